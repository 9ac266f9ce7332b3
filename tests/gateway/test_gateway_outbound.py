"""What a worker still gets when its link ends: all of it within a while, or nothing at all."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx2
import pytest
from simulators.deployment import problem, read, seal, until
from simulators.worker_peer import WorkerPeer

from gateway.outbound import Outbound
from wire.link import JOB, MessageType, encode, raw_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from simulators.deployment import Fleet, Up

LINGER_S = 0.5
LARGE = raw_message(JOB, bytes(16), os.urandom(4 * 1024 * 1024))  # more than any socket buffers
BODY = b'{"model":"m"}' + b" " * (4 * 1024 * 1024)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Outbound, socket.socket]]:
    """A link's writing half, and the worker's end of it, which reads when told to."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, writer = await asyncio.open_connection(sock=ours)
    try:
        yield Outbound(writer, LINGER_S), theirs
    finally:
        theirs.close()
        writer.close()


async def received(theirs: socket.socket) -> int:
    """Bytes that still come, up to the end of the stream."""
    loop, size = asyncio.get_running_loop(), 0
    with suppress(ConnectionError):
        while chunk := await loop.sock_recv(theirs, 1024 * 1024):
            size += len(chunk)
    return size


async def ended(outbound: Outbound) -> None:
    """Wait until the connection is gone, however it went."""
    async with asyncio.timeout(15):
        with suppress(ConnectionError):
            await outbound.writer.wait_closed()


async def test_a_worker_that_reads_gets_all_that_was_sent_before_the_end() -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with pair() as (outbound, theirs):
        outbound.send(LARGE)
        outbound.close(jobs=False)
        assert await received(theirs) == len(encode(LARGE))
        await ended(outbound)
        await asyncio.sleep(2 * LINGER_S)  # and nothing is left to be done then
    assert failed == []


async def test_a_worker_that_had_jobs_gets_nothing_of_what_was_not_out_yet() -> None:
    async with pair() as (outbound, theirs):
        outbound.send(LARGE)
        outbound.close(jobs=True)
        await ended(outbound)
        assert await received(theirs) < len(encode(LARGE))


async def test_a_worker_that_does_not_read_is_waited_for_no_longer_than_the_linger() -> None:
    async with pair() as (outbound, theirs):
        outbound.send(LARGE)
        outbound.close(jobs=False)
        assert outbound.writer.transport.get_write_buffer_size() > 0
        await ended(outbound)
        assert await received(theirs) < len(encode(LARGE))


async def test_nothing_is_sent_after_the_end() -> None:
    async with pair() as (outbound, theirs):
        outbound.close(jobs=False)
        outbound.send(LARGE)
        assert await received(theirs) == 0
        await ended(outbound)


# ---------------------------------------------------------------- a fence, seen from a request


async def says_no_more(_: Up, worker: WorkerPeer) -> None:
    assert worker._writer is not None
    worker._writer.write_eof()


async def breaks_the_protocol(_: Up, worker: WorkerPeer) -> None:
    worker.send_raw(b"\x00\x00\x00\x01\xff")


async def lets_its_lease_end(up: Up, worker: WorkerPeer) -> None:
    up.gateway.registry.sessions[worker.wid].lease_until = 0.0
    up.gateway.roster.end_expired()


async def comes_back(_: Up, worker: WorkerPeer) -> None:
    again = WorkerPeer(worker.tee, worker.path)
    await again.admitted()
    await again.drop()


def reading(worker: WorkerPeer, *, on: bool) -> None:
    assert worker._writer is not None
    transport = worker._writer.transport
    assert isinstance(transport, asyncio.Transport)
    if on:
        transport.resume_reading()
    else:
        transport.pause_reading()


async def waits_in_a_buffer(up: Up, worker: WorkerPeer) -> None:
    """Until a request was released to the worker, and is on its way."""
    session = up.gateway.registry.sessions[worker.wid]
    (link,) = [one for one in up.gateway.workers._links if one.session is session]
    await until(lambda: link.out.writer.transport.get_write_buffer_size() > 0)


@pytest.mark.parametrize(
    "end",
    [says_no_more, breaks_the_protocol, lets_its_lease_end, comes_back],
    ids=lambda end: end.__name__,
)
async def test_a_worker_denied_after_its_link_ended_gets_nothing_that_was_on_its_way(
    up: Up, fleet: Fleet, end: Callable[[Up, WorkerPeer], Awaitable[None]]
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reading(worker, on=False)
    reply = asyncio.create_task(up.post(seal([worker], BODY)))
    await waits_in_a_buffer(up, worker)
    session = up.gateway.registry.sessions[worker.wid]
    await end(up, worker)
    await until(lambda: session.ended)
    up.gateway.roster.end_denied(lambda bh: bh == worker.bh)
    assert not up.gateway.registry.knows(worker.kid)
    reading(worker, on=True)
    await worker.closed()
    assert worker.got(MessageType.JOB) == 0
    assert problem(await reply) == (409, "rewrap_needed")


async def test_a_request_on_its_way_to_a_worker_that_is_fenced_is_answered_by_another(
    up: Up, fleet: Fleet
) -> None:
    (bad,) = await fleet.admit("bad", pull=1)
    (good,) = await fleet.admit("good")
    reading(bad, on=False)
    sealed = seal([bad, good], BODY)
    reply = asyncio.create_task(up.post(sealed))
    await waits_in_a_buffer(up, bad)
    up.gateway.roster.fence(bad.bh)
    await good.pull(1)
    await good.answer(await good.job())
    assert read(sealed, (await reply).content)[1]
    reading(bad, on=True)
    await bad.closed()
    assert bad.got(MessageType.JOB) == 0  # it never had the whole of it


@pytest.mark.parametrize(
    ("retry", "answer"), [("safe", (409, "rewrap_needed")), ("never", (503, "no_worker"))]
)
async def test_a_request_whose_only_worker_is_fenced_before_it_began_ends_as_documented(
    up: Up, fleet: Fleet, retry: str, answer: tuple[int, str]
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker], retry=retry)))
    await worker.job()
    up.gateway.roster.fence(worker.bh)
    await worker.closed()
    assert problem(await reply) == answer


async def test_an_answer_that_had_begun_is_cut_when_its_worker_is_fenced(
    up: Up, fleet: Fleet
) -> None:
    """Part of it was read: another worker's would not go on where this one stopped."""
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    data = bytearray()

    async def receive() -> None:
        async with up.stream(seal([first, second])) as response:
            async for chunk in response.aiter_raw():
                data.extend(chunk)

    receiving = asyncio.create_task(receive())
    first.begin(await first.job())
    await until(lambda: bool(data))
    await second.pull(1)
    up.gateway.roster.fence(first.bh)
    with pytest.raises(httpx2.RemoteProtocolError):
        await receiving
    assert second.got(MessageType.JOB) == 0
