"""A worker must hold every key its binding lists: it shows that on its own link, before it counts.

Whoever lists another's key cannot read what is sealed to it, but would be given it: requests would
end there, and the key's holder would be refused.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import now, read, seal

from attestation.binding import Kem
from evidence.events import ATTEST_VERDICT, WORKER_SESSION
from wire.ids import b64u
from wire.link import MessageType
from wire.suites import HYBRID, SUITES, X25519

if TYPE_CHECKING:
    from simulators.deployment import Deployment, Fleet, Observed, Up
    from simulators.worker_peer import WorkerPeer

UNPROVEN = ["possession_unproven"]


def lists_keys_of(worker: WorkerPeer, other: WorkerPeer) -> None:
    """Let a worker list another's key: everybody has its public half."""
    worker.tee.facts["kems"] = [other.tee.kem(HYBRID)]
    worker.binding = worker.tee.binding()


async def asked(worker: WorkerPeer) -> dict[str, object]:
    """Connect, introduce, and return the question the gateway then asks."""
    worker.honest = False
    await worker.connect()
    await worker.hello()
    return (await worker.receive(MessageType.PROVE)).json()


async def verdict_on(worker: WorkerPeer) -> list[str]:
    reasons: list[str] = (await worker.receive(MessageType.REFUSED)).json()["reasons"]
    return reasons


async def test_a_worker_that_lacks_the_key_it_lists_is_refused_and_counted_and_no_entry(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    worker = fleet.make("a")
    worker.tee.keys[HYBRID] = SUITES[HYBRID].generate(os.urandom)
    assert await worker.refused() == UNPROVEN
    await worker.closed()
    assert await up.events(ATTEST_VERDICT) == []
    assert await up.events(WORKER_SESSION) == []
    assert not up.gateway.registry.knows(worker.kid)
    counted = {"anchorhold__reason": "possession_unproven"}
    assert observed.total("anchorhold_attest_failures", **counted) == 1


async def test_after_a_restart_whoever_comes_first_cannot_claim_anothers_key(
    deployment: Deployment,
) -> None:
    honest = deployment.worker("a")
    async with deployment.up():
        await honest.admitted()
        await honest.drop()
    async with deployment.up() as up:
        evil = deployment.worker("evil")
        lists_keys_of(evil, honest)
        assert await evil.refused() == UNPROVEN
        again = deployment.worker("a")
        await again.admitted()
        await again.pull(1)
        sealed = seal([again])
        reply = asyncio.create_task(up.post(sealed))
        await again.answer(await again.job())
        assert read(sealed, (await reply).content)[1]
        await asyncio.gather(evil.drop(), again.drop())


async def test_one_key_of_two_is_not_enough(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    worker.tee.facts["kems"] = [worker.tee.kem(HYBRID), worker.tee.kem(X25519)]
    worker.tee.keys[X25519] = SUITES[X25519].generate(os.urandom)
    worker.binding = worker.tee.binding()
    assert await worker.refused() == UNPROVEN


async def test_a_worker_that_holds_both_its_keys_is_admitted(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    worker.tee.facts["kems"] = [worker.tee.kem(HYBRID), worker.tee.kem(X25519)]
    await worker.admitted()
    for suite in (HYBRID, X25519):
        assert up.gateway.registry.live(worker.candidate(suite).kid, now()) is not None


async def test_a_key_that_nothing_can_be_sealed_to_is_held_by_nobody(fleet: Fleet) -> None:
    worker = fleet.make("a")
    worker.tee.facts["kems"] = [worker.tee.kem(HYBRID), Kem(X25519, bytes(32))]
    worker.binding = worker.tee.binding()
    assert await worker.refused() == UNPROVEN


async def test_a_question_passed_on_to_the_keys_holder_does_not_open_there(
    up: Up, fleet: Fleet
) -> None:
    """The holder answers on its own link about its own binding, and for nobody else."""
    (honest,) = await fleet.admit("a")
    await honest.drop()
    evil = fleet.make("evil")
    lists_keys_of(evil, honest)
    question = await asked(evil)
    assert honest.prove(question, evil.nonce) is None  # its binding is another
    assert honest.prove(question) is None
    evil.proved(question, None)
    assert await verdict_on(evil) == UNPROVEN


async def test_an_answer_given_on_another_link_is_none_on_this_one(up: Up, fleet: Fleet) -> None:
    first, second = fleet.make("a"), fleet.make("a")
    there, here = await asked(first), await asked(second)
    assert first.bh == second.bh
    assert second.prove(there) is None  # sealed for the other link's nonce
    second.proved(here, first.prove(there))
    assert await verdict_on(second) == UNPROVEN
    first.proved(there, first.prove(there))
    await first.receive(MessageType.ADMITTED)


@pytest.mark.parametrize("answer", [None, 7, "", "not base64!", b64u(bytes(31)), b64u(bytes(32))])
async def test_an_answer_that_is_none_is_refused(fleet: Fleet, answer: object) -> None:
    worker = fleet.make("a")
    question = await asked(worker)
    worker.proved(question, answer)
    assert await verdict_on(worker) == UNPROVEN


@pytest.mark.parametrize("settings", [{"hello_deadline_s": 0.3}])
async def test_a_worker_that_never_answers_is_cut_off(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    await asked(worker)
    await worker.closed()
    assert await up.events(ATTEST_VERDICT) == []


async def test_new_keys_that_their_worker_lacks_are_refused_and_the_others_stay(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    held = worker.binding
    stranger = SUITES[HYBRID].generate(os.urandom)
    await worker.new_keys(epoch=1, kems=[Kem(HYBRID, stranger.pk)])
    assert await verdict_on(worker) == UNPROVEN
    assert not up.gateway.registry.knows(worker.kid)
    worker.binding = held
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    await worker.answer(await worker.job())
    assert read(sealed, (await reply).content)[1]


async def test_each_question_is_new(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    worker.honest = False
    await worker.new_keys(epoch=1)
    question = (await worker.receive(MessageType.PROVE)).json()
    assert question["bh"] == b64u(worker.bh)
    worker.proved(question, worker.prove(question))
    await worker.receive(MessageType.ADMITTED)
    await worker.new_keys(epoch=2)
    later = (await worker.receive(MessageType.PROVE)).json()
    assert set(later["sealed"]).isdisjoint(question["sealed"])
    worker.proved(later, worker.prove(question))
    assert await verdict_on(worker) == UNPROVEN
