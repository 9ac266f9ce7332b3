"""What became of policy and deny list while a worker was judged counts before it is taken."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from simulators.held_log import HeldLog

from attestation.policy import parse_policy
from evidence.events import ATTEST_VERDICT, WORKER_SESSION
from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Up
    from simulators.worker_peer import WorkerPeer

CHANGED = ["policy_changed"]


def hold(up: Up, kind: str) -> HeldLog:
    """Let the gateway wait for its log when it has written an event of this kind."""
    held = up.gateway.ledger.log = HeldLog(up.gateway.ledger.log, kind)
    return held


def new_policy(up: Up) -> None:
    """One that accepts the same workers."""
    document = {**up.deployment.tee.demands, "seq": 2}
    up.gateway.reappraisal.appraiser.policy = parse_policy(json.dumps(document).encode())


def denied(up: Up, worker: WorkerPeer) -> None:
    up.gateway.deny.value = frozenset({worker.bh})


async def verdict_on(worker: WorkerPeer) -> list[str]:
    reasons: list[str] = (await worker.receive(MessageType.REFUSED)).json()["reasons"]
    return reasons


@pytest.mark.parametrize("kind", [ATTEST_VERDICT, WORKER_SESSION])
async def test_a_worker_judged_under_the_policy_before_is_not_taken_and_may_come_again(
    up: Up, fleet: Fleet, kind: str
) -> None:
    held, worker = hold(up, kind), fleet.make("a")
    await worker.connect()
    await worker.hello()
    await held.reached.wait()
    new_policy(up)
    held.gate.set()
    assert await verdict_on(worker) == CHANGED
    await worker.closed()
    assert not up.gateway.registry.knows(worker.kid)
    phases = [event["phase"] for event in await up.events(WORKER_SESSION)]
    assert phases == ["open", "close"]
    again = fleet.make("a")
    await again.admitted()
    assert up.gateway.registry.knows(again.kid)


async def logged_sessions(up: Up, count: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(5):
        while len(found := await up.events(WORKER_SESSION)) < count:
            await asyncio.sleep(0.01)
    return [(event["phase"], event["reason"]) for event in found]


async def test_a_session_whose_worker_left_before_its_beginning_was_durable_has_an_end_too(
    up: Up, fleet: Fleet
) -> None:
    """Whoever counts the workers of a log must not find one that is there for ever."""
    held, worker = hold(up, WORKER_SESSION), fleet.make("a")
    await worker.connect()
    await worker.hello()
    await held.reached.wait()
    (link,) = up.gateway.workers._links
    await worker.drop()
    async with asyncio.timeout(5):
        while link.ended is None:
            await asyncio.sleep(0.01)
    held.gate.set()
    assert await logged_sessions(up, 2) == [("open", ""), ("close", "lost")]
    assert len(up.gateway.roster) == 0


async def test_a_session_that_is_ended_before_its_beginning_was_durable_has_an_end_too(
    up: Up, fleet: Fleet
) -> None:
    held, worker = hold(up, WORKER_SESSION), fleet.make("a")
    await worker.connect()
    await worker.hello()
    await held.reached.wait()
    (link,) = up.gateway.workers._links
    link.end("stopped")
    held.gate.set()
    await worker.closed()
    assert await logged_sessions(up, 2) == [("open", ""), ("close", "stopped")]


async def test_a_worker_denied_while_it_was_judged_is_not_taken(up: Up, fleet: Fleet) -> None:
    held, worker = hold(up, ATTEST_VERDICT), fleet.make("a")
    await worker.connect()
    await worker.hello()
    await held.reached.wait()
    denied(up, worker)
    held.gate.set()
    assert await verdict_on(worker) == CHANGED
    assert len(up.gateway.roster) == 0


async def test_new_keys_judged_under_the_policy_before_are_not_taken_and_the_others_stay(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    kept, held = worker.kid, hold(up, ATTEST_VERDICT)
    worker.tee.keys = type(worker.tee)("other", worker.tee.now).keys
    await worker.new_keys(epoch=1, kems=[worker.tee.kem(next(iter(worker.tee.keys)))])
    await held.reached.wait()
    new_policy(up)
    held.gate.set()
    assert await verdict_on(worker) == CHANGED
    assert not up.gateway.registry.knows(worker.kid)
    assert up.gateway.registry.knows(kept)
