"""When epochs are made and what dates them: a real keyring, a scripted launcher, no process."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from simulators.key_holder import key_holder

from attestation.binding import Beacon, parse_binding
from enclave_worker.clock import Clock
from enclave_worker.control import ControlSocket
from enclave_worker.epochs import Keyring
from enclave_worker.port import LauncherPort
from enclave_worker.rotation import FirstEpochError, Rotation
from wire.errors import MalformedError, UnavailableError
from wire.ids import b64u, unb64u
from wire.replay import ReplaySet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLD, NEW = Beacon("log", 5, bytes(range(32))), Beacon("log", 9, bytes(32))


class Desk:
    """The launcher's end of the control channel: attests, or says that it cannot."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.control = ControlSocket(ours)
        self.port = LauncherPort(ControlSocket(theirs))
        self.broken = False
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        self.port.attach()
        asyncio.get_running_loop().add_reader(self.control.fileno(), self._readable)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)
        asyncio.get_running_loop().remove_reader(self.control.fileno())
        self.port.detach()
        self.control.close()
        self.port._control.close()

    def _readable(self) -> None:
        for message in self.control.receive_ready():
            self.asked.append(unb64u(message["binding"]))
            self._tasks.append(asyncio.create_task(self._answer(message["id"])))

    async def _answer(self, number: int) -> None:
        await self.gate.wait()
        facts = (
            {"error": "attest"}
            if self.broken
            else {"evidence": [{"kind": "software", "body": b64u(b"{}")}]}
        )
        self.control.send({"type": "EVIDENCE", "id": number, **facts})


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    made.open()
    yield made
    await made.close()


@pytest.fixture
async def ring() -> AsyncIterator[Keyring]:
    made = Keyring(key_holder(), os.urandom)
    yield made
    made.close()


@pytest.fixture
def rotation(desk: Desk, ring: Keyring) -> Rotation:
    return Rotation(ring, Clock(), desk.port)


def hear(rotation: Rotation, beacon: Beacon | None) -> None:
    rotation.heard({"beacon": None if beacon is None else beacon.to_json()}, "link")


@pytest.mark.parametrize("beacon", [OLD, None])
async def test_the_first_epoch_names_what_the_gateway_named(
    rotation: Rotation, desk: Desk, beacon: Beacon | None
) -> None:
    hear(rotation, beacon)
    (epoch,) = await rotation.offered()
    assert parse_binding(epoch.binding).beacon == beacon
    assert desk.asked == [epoch.binding]


async def test_another_connection_is_offered_the_same_epoch(rotation: Rotation, desk: Desk) -> None:
    hear(rotation, OLD)
    first = await rotation.offered()
    hear(rotation, NEW)
    assert await rotation.offered() == first
    assert len(desk.asked) == 1


async def test_the_next_epoch_names_the_newest_beacon(rotation: Rotation, ring: Keyring) -> None:
    hear(rotation, OLD)
    (first,) = await rotation.offered()
    assert await rotation.due() is None
    first.replay = ReplaySet(limit=1)
    first.replay.enter(bytes(32))  # full: keys are due at once
    hear(rotation, NEW)
    second = await rotation.due()
    assert second is not None
    assert parse_binding(second.binding).beacon == NEW
    assert ring.offered(Clock().s()) == [first, second]


async def test_two_who_ask_at_once_get_one_epoch(rotation: Rotation, desk: Desk) -> None:
    hear(rotation, OLD)
    desk.gate.clear()
    both = [asyncio.create_task(rotation.offered()), asyncio.create_task(rotation.offered())]
    await asyncio.sleep(0.01)
    desk.gate.set()
    one, other = await asyncio.gather(*both)
    assert one == other
    assert len(desk.asked) == 1


async def test_an_attester_that_fails_at_the_first_epoch_ends_the_worker(
    rotation: Rotation, desk: Desk, ring: Keyring
) -> None:
    hear(rotation, OLD)
    desk.broken = True
    with pytest.raises(FirstEpochError):
        await rotation.offered()
    assert ring.offered(Clock().s()) == []


async def test_an_attester_that_fails_later_is_asked_again(
    rotation: Rotation, desk: Desk, ring: Keyring
) -> None:
    hear(rotation, OLD)
    (first,) = await rotation.offered()
    first.replay = ReplaySet(limit=1)
    first.replay.enter(bytes(32))
    desk.broken = True
    with pytest.raises(UnavailableError):
        await rotation.due()
    assert ring.offered(Clock().s()) == [first]
    desk.broken = False
    assert await rotation.due() is not None


async def test_a_refusal_for_the_beacon_makes_new_keys_and_wipes_the_old(
    rotation: Rotation, desk: Desk, ring: Keyring
) -> None:
    hear(rotation, OLD)
    (first,) = await rotation.offered()
    (kid,) = first.keys
    rotation.refused(["measurement_not_accepted"])
    assert await rotation.offered() == [first]
    rotation.refused(["beacon_unverified"])
    assert ring.offered(Clock().s()) == []
    assert first.keys == {}
    hear(rotation, NEW)
    (second,) = await rotation.offered()
    assert parse_binding(second.binding).beacon == NEW
    assert ring.named([kid]) == kid
    assert len(desk.asked) == 2


async def test_a_live_challenge_keeps_the_beacon(rotation: Rotation, ring: Keyring) -> None:
    hear(rotation, OLD)
    (epoch,) = await rotation.offered()
    assert parse_binding(ring.challenged(epoch, bytes(32))).beacon == OLD


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"beacon": "5"},
        {"beacon": {"log": "l", "size": 1}},
        {"beacon": {**OLD.to_json(), "extra": 1}},
        {"beacon": {**OLD.to_json(), "size": True}},
        {"beacon": {**OLD.to_json(), "root": b64u(bytes(31))}},
    ],
    ids=range(6),
)
async def test_a_beacon_of_another_form_is_refused(
    rotation: Rotation, document: dict[str, Any]
) -> None:
    with pytest.raises(MalformedError):
        rotation.heard(document, "link: LEASE")
