"""Which HTTP connection gives way where there is no place for one more, and which never does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

import httpx2
import pytest
from simulators.deployment import WAIT_S, Observed, seal, until, written
from simulators.loopback_certificate import certificate

from gateway.descriptors import http_max
from gateway.journal import Event, Journal
from gateway.listener import Listener
from gateway.punctual import unsent
from gateway.seats import UNSENT_MAX, Seat, Seats
from gateway.server import bind

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.deployment import Fleet, Up
    from simulators.worker_peer import Job

    from wire.response import ResponseWriter


class House:
    """Connections by name, and which of them were ended."""

    def __init__(self, most: int) -> None:
        self.seats = Seats(most)
        self.ended: list[str] = []

    def come(self, name: str = "") -> Seat | None:
        return self.seats.take(lambda: self.ended.append(name))

    def asks(self, name: str) -> Seat:
        seat = self.come(name)
        assert seat is not None
        seat.ask()
        return seat

    def rests(self, name: str) -> Seat:
        seat = self.asks(name)
        seat.rest()
        return seat


def test_where_every_place_is_taken_the_oldest_stranger_gives_way() -> None:
    house = House(3)
    for name in ("first", "second", "third", "fourth", "fifth"):
        assert house.come(name) is not None
    assert house.ended == ["first", "second"]
    assert (len(house.seats), house.seats.cut) == (3, 2)


def test_a_stranger_that_asks_all_the_time_is_as_old_as_it_is() -> None:
    house = House(2)
    busy = house.come("busy")
    house.come("new")
    assert busy is not None
    busy.rest()  # what it asked without a credential is answered
    house.come()
    assert house.ended == ["busy"]


def test_a_tenant_that_waits_for_its_answer_gives_way_to_nobody() -> None:
    house = House(8)
    for number in range(7):
        house.asks(f"tenant {number}")
    for number in range(100):
        house.come(f"stranger {number}")
    assert house.ended == [f"stranger {number}" for number in range(99)]


def test_where_all_are_tenants_that_wait_nobody_else_comes_in() -> None:
    house = House(2)
    first = house.asks("first")
    house.asks("second")
    assert house.come() is None
    assert (house.ended, house.seats.cut) == ([], 1)
    first.rest()
    assert house.come() is not None
    assert house.ended == ["first"]


def test_tenants_that_rest_give_way_only_where_strangers_have_few_places() -> None:
    house = House(8)
    for number in range(5):
        house.rests(f"tenant {number}")
    for number in range(3):
        house.come(f"stranger {number}")
    house.come("honest")
    assert house.ended == ["stranger 0"]
    other = House(8)
    for number in range(6):
        other.rests(f"tenant {number}")
    for number in range(3):
        other.come(f"stranger {number}")
    assert other.ended == ["tenant 0"]


def test_an_answer_that_is_not_sent_yet_is_not_cut_by_a_stranger() -> None:
    house = House(2)
    house.rests("slow").unsent = lambda: 1
    house.rests("done")
    house.come()
    assert house.ended == ["done"]
    house.come()
    assert house.ended == ["done", ""]


def test_of_strangers_that_do_not_take_their_answers_the_one_with_most_gives_way() -> None:
    house = House(9)
    many = {"little": 1, "most": UNSENT_MAX // 2 + 1, "much": UNSENT_MAX // 2}
    for name, size in many.items():
        seat = house.come(name)
        assert seat is not None
        seat.unsent = partial(int, size)
        seat.owe()
    assert house.ended == ["most"]
    tenant = house.asks("tenant")
    tenant.unsent = partial(int, UNSENT_MAX)
    tenant.owe()  # what tenants may leave has a bound of its own
    last = house.come("last")
    assert last is not None
    last.owe()
    assert house.ended == ["most"]


@pytest.mark.parametrize("encrypted", [False, True])
async def test_what_a_connection_has_not_taken_is_counted_under_tls_too(
    tmp_path: Path, encrypted: bool
) -> None:
    server = client = None
    if encrypted:
        chain, key = certificate(tmp_path)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(chain, key)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    left: list[int] = []

    class Full(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            transport.write(bytes(16 << 20))  # more than any socket takes at once
            left.append(unsent(transport))

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(Full, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, limit=1)
    await until(lambda: bool(left))
    writer.close()
    listening.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
    assert left[0] > 1 << 20


def test_a_connection_that_ended_has_no_place() -> None:
    house = House(2)
    seat = house.asks("gone")
    seat.leave()
    seat.leave()
    seat.ask()
    seat.rest()
    assert len(house.seats) == 0
    assert not house.ended


def test_http_takes_half_of_the_files_and_no_more_than_is_needed() -> None:
    assert 0 < http_max() <= 4096


# ---------------------------------------------------------------- accepting


async def test_who_does_not_shake_hands_holds_no_more_places_than_there_are(
    tmp_path: Path, observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    cert_file, key_file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    sock, seats, served = bind("127.0.0.1", 0), Seats(8), []

    def make(seat: Seat) -> asyncio.Protocol:
        served.append(seat)
        return asyncio.Protocol()

    listener = Listener(sock, seats, make, Journal(observed.telemetry), context, WAIT_S)
    port = sock.getsockname()[1]
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
    trusted = ssl.create_default_context(cafile=str(cert_file))
    _, honest = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trusted, server_hostname="localhost"
    )
    assert len(seats) == 8
    assert len(served) == 61
    for reader, _ in silent[:53]:
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    assert len(written(caplog, Event.CONNECTIONS_CUT)) == 1
    await listener.close()
    for _, writer in [*silent, (None, honest)]:
        writer.close()
    sock.close()


class Exhausted(socket.socket):
    """A listening socket of a process that has no file left."""

    tried = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.tried += 1
        raise OSError(errno.EMFILE, "Too many open files")


async def test_where_no_file_is_left_it_is_tried_again_later_and_said_once(
    observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    with bind("127.0.0.1", 0) as sock:
        exhausted = Exhausted(fileno=sock.detach())
    with exhausted, socket.socket() as peer:
        listener = Listener(
            exhausted, Seats(8), lambda _: asyncio.Protocol(), Journal(observed.telemetry), None, 1
        )
        peer.connect(exhausted.getsockname())
        await until(lambda: exhausted.tried > 0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert exhausted.tried == len(written(caplog, Event.INTERNAL)) == 1
        await listener.close()


# ---------------------------------------------------------------- answers that nobody reads

KEYS = b"GET /v1/keys HTTP/1.1\r\nhost: x\r\n\r\n"
# More than fits where a client that reads nothing has room.
MUCH = bytes(1_000_000)
PATIENT = {"idle_deadline_s": 0.5, "header_deadline_s": 120.0}


def unread(up: Up, asked: bytes) -> socket.socket:
    """A connection that sent this, has little room for an answer, and reads nothing."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    found.connect(("127.0.0.1", httpx2.URL(up.running.url).port))
    found.sendall(asked)
    found.setblocking(False)
    return found


async def cut(found: socket.socket) -> None:
    """Wait until the other side has ended it: only then does a byte more meet an error."""
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionError):
            while True:
                with contextlib.suppress(BlockingIOError):
                    found.send(b"G")
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("settings", [PATIENT])
@pytest.mark.parametrize("many", [40, 8000])
async def test_a_stranger_that_takes_none_of_its_answers_is_ended(
    up: Up, fleet: Fleet, many: int
) -> None:
    await fleet.admit("a")
    with unread(up, KEYS * many) as found:
        await cut(found)


@pytest.mark.parametrize("settings", [PATIENT])
async def test_a_tenant_that_takes_its_answer_late_is_not_ended_as_a_stranger_is(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])

    async def begin() -> tuple[Job, ResponseWriter]:
        job = await worker.job()
        return job, worker.begin(job)

    working = asyncio.create_task(begin())
    async with up.stream(sealed) as response:
        job, writer = await working
        worker.bytes(job, MUCH)  # nothing of it is the gateway's to read
        await worker.finish(job, writer, "")
        # It reads nothing more while a stranger comes, reads nothing and is ended.
        with unread(up, KEYS * 40) as found:
            await cut(found)
        data = b"".join([chunk async for chunk in response.aiter_raw()])
    assert MUCH in data
    assert len(data) > len(MUCH) + 8192
