"""Requests wrapped to two keys of one worker, as clients may while keys rotate; second chances."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import httpx2
import pytest
from simulators.deployment import Up, problem, seal

from attestation.binding import Kem
from gateway.clock import Clock
from gateway.registry import EPOCHS_PER_SESSION_MAX
from gateway.runtime import Gateway
from gateway.server import running
from wire.ids import b64u
from wire.link import MessageType
from wire.suites import HYBRID, SUITES

if TYPE_CHECKING:
    from simulators.deployment import Deployment, Fleet
    from simulators.worker_peer import WorkerPeer

    from wire.wraps import Candidate


async def rotated(worker: WorkerPeer, epoch: int = 1) -> tuple[Candidate, Candidate]:
    """Announce another epoch; returns the old and the new key."""
    old = worker.candidate()
    fresh = worker.tee.keys[HYBRID] = SUITES[HYBRID].private_key(os.urandom(32))
    await worker.new_keys(epoch=epoch, kems=[Kem(HYBRID, SUITES[HYBRID].public_bytes(fresh))])
    await worker.receive(MessageType.ADMITTED)
    return old, worker.candidate()


async def test_a_request_for_two_keys_of_one_worker_does_not_end_its_link(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=8)
    for epoch in range(1, 8):  # a choice in the order of a set is right for half of all keys
        old, new = await rotated(worker, epoch)
        reply = asyncio.create_task(up.post(seal([new, old])))
        await worker.answer(await worker.job())
        assert (await reply).status_code == 200
    assert len(up.gateway.roster) == 1


async def test_a_worker_that_has_wiped_the_key_it_was_chosen_for_answers_with_its_other_one(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=8)
    for epoch in range(1, 4):
        old, new = await rotated(worker, epoch)
        # Released for the first wrap; what this worker opens and signs with is its newest key.
        reply = asyncio.create_task(up.post(seal([old, new])))
        await worker.answer(await worker.job())
        assert (await reply).status_code == 200
        assert (await up.events("infer.receipt"))[-1]["kid"] == b64u(new.kid)
    assert len(up.gateway.roster) == 1


async def test_a_receipt_under_a_key_of_the_worker_that_is_not_the_requests_is_refused(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    reply = asyncio.create_task(up.post(seal([worker])))
    job = await worker.job()
    _, _, event = worker.receipt(job, worker.begin(job), "")
    _, new = await rotated(worker)
    found = await worker.log(job, event | {"kid": b64u(new.kid)})
    assert found == {"error": "receipt_mismatch"}
    with pytest.raises(httpx2.RemoteProtocolError):
        await reply
    assert len(up.gateway.roster) == 1


async def test_nothing_is_released_to_a_key_its_worker_has_wiped(deployment: Deployment) -> None:
    at = [deployment.tee.now]
    gateway = await asyncio.to_thread(
        Gateway.open, deployment.config, clock=Clock(wall=lambda: at[0])
    )
    async with (
        running(deployment.config, gateway) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=30) as http,
    ):
        up, worker = Up(deployment, served, http), deployment.worker("a")
        worker.tee.facts["exp"] = at[0] + 8  # kept for two seconds more
        await worker.admitted()
        await worker.pull(2)
        at[0] += 9
        reply = asyncio.create_task(up.post(seal([worker])))
        await worker.answer(await worker.job())
        assert (await reply).status_code == 200
        at[0] += 1
        assert (await up.post(seal([worker]))).status_code == 409
        assert worker.got(MessageType.JOB) == 0
        await worker.drop()


async def test_both_keys_of_a_busy_worker_are_one_candidate(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=8)
    old, new = await rotated(worker)
    reply = asyncio.create_task(up.post(seal([new, old])))
    worker.notice(await worker.job(), "busy")
    assert problem(await reply) == (409, "rewrap_needed")
    assert worker.got(MessageType.JOB) == 0


async def test_a_request_that_must_not_run_twice_is_not_given_to_a_second_worker(
    up: Up, fleet: Fleet
) -> None:
    first, second = await fleet.admit("a", "b")
    await first.pull(1)
    reply = asyncio.create_task(up.post(seal([first, second], retry="never")))
    job = await first.job()
    await second.pull(1)
    first.done(job, "error")
    assert problem(await reply) == (503, "no_worker")
    assert second.got(MessageType.JOB) == 0


async def test_a_worker_that_announces_keys_without_end_holds_a_bounded_number(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    registry = up.gateway.registry
    oldest = worker.kid
    assert registry.knows(oldest)
    for epoch in range(1, EPOCHS_PER_SESSION_MAX + 3):
        await rotated(worker, epoch)
    assert len(registry.admitted()) == EPOCHS_PER_SESSION_MAX
    assert not registry.knows(oldest)
    assert registry.live(oldest, 0) is None
    reply = asyncio.create_task(up.post(seal([worker])))
    await worker.answer(await worker.job())
    assert (await reply).status_code == 200
