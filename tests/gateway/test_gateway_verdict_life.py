"""How long a verdict counts: a later one takes its place, and a refusal is put off once only."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Deployment, Fleet, Up, now, problem, seal
from simulators.hardware_tee import QuoteTee
from simulators.tee import SoftwareTee

from attestation.policy import parse_policy
from attestation.result import AppraisedEvidence
from evidence.directory import verify_directory
from gateway.appraiser import Appraiser
from gateway.clock import Clock
from gateway.found import Collected
from gateway.reappraisal import AGAIN_S, PAST_S
from gateway.registry import Registry
from wire.link import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.worker_peer import WorkerPeer

    from gateway.session import Epoch

SELDOM = 3600
SPOOLED = 200_000  # bytes of a request that waits in a file
TTL_S = 20


def put_in_force(up: Up, **changes: Any) -> None:
    document = {**up.deployment.tee.demands, "seq": 2, **changes}
    up.gateway.reappraisal.appraiser.policy = parse_policy(json.dumps(document).encode())


def epoch_of(up: Up, worker: WorkerPeer) -> Epoch:
    found = up.gateway.registry.epoch(worker.bh)
    assert found is not None
    return found


@pytest.fixture
def freshness() -> dict[str, int]:
    """How fresh the policy wants things; overridden by parametrising `freshness`."""
    return {}


@pytest.fixture
def deployment(request: pytest.FixtureRequest, freshness: dict[str, int]) -> Iterator[Deployment]:
    """Sweeps are seldom as far as settings go."""
    found = Deployment(getattr(request, "param", SoftwareTee), reappraise_s=SELDOM, lease_s=60)
    found.tee.demands["freshness"] = freshness
    found.config.admission_policy_file.write_text(json.dumps(found.tee.demands))
    yield found
    found.remove()


#: Machines whose maker certifies their TPM; its lists of revoked ones are not asked for.
on_machines = pytest.mark.parametrize("deployment", [QuoteTee], indirect=True)
#: Verdicts are short.
briefly = pytest.mark.parametrize("freshness", [{"result_ttl_s": TTL_S}])


# ---------------------------------------------------------------- a refusal that is put off


def demand_lists(up: Up) -> None:
    """From now on the maker's lists are demanded; none is to be had, so nothing can be renewed."""
    rule = {name: value for name, value in up.deployment.tee.rule.items() if name != "revocation"}
    put_in_force(up, accept=[rule])


@on_machines
async def test_a_refusal_that_no_newer_collateral_mends_fences_after_half_a_minute(
    up: Up, fleet: Fleet
) -> None:
    """Every sweep in between has all its steps: none of them may begin the wait again."""
    (worker,) = await fleet.admit("a", pull=1)
    gateway, at = up.gateway, [1000.0]
    gateway.reappraisal.clock = Clock(monotonic=lambda: at[0])
    demand_lists(up)
    for _ in range(3):
        assert await gateway.reappraisal.sweep() == 0
        at[0] += PAST_S / 3
    assert await gateway.reappraisal.sweep() == 1
    await worker.closed()
    assert not gateway.registry.knows(worker.kid)


@on_machines
async def test_the_next_sweep_is_due_when_a_refusal_was_put_off_for_long_enough(
    up: Up, fleet: Fleet
) -> None:
    await fleet.admit("a")
    reappraisal, at = up.gateway.reappraisal, [1000.0]
    reappraisal.clock = Clock(monotonic=lambda: at[0])
    demand_lists(up)
    assert reappraisal.pause_s(SELDOM) > PAST_S
    await reappraisal.check()
    assert reappraisal.pause_s(SELDOM) == PAST_S
    at[0] += PAST_S - AGAIN_S / 2
    assert reappraisal.pause_s(SELDOM) == AGAIN_S


@on_machines
async def test_what_was_put_off_for_a_binding_that_is_gone_hurries_no_sweep(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    reappraisal, at = up.gateway.reappraisal, [1000.0]
    reappraisal.clock = Clock(monotonic=lambda: at[0])
    demand_lists(up)
    await reappraisal.check()
    up.gateway.registry.forget([worker.bh])
    at[0] += PAST_S
    await reappraisal.check()
    assert reappraisal.pause_s(SELDOM) > PAST_S


@on_machines
async def test_a_worker_that_is_accepted_meanwhile_is_put_off_for_as_long_another_time(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    gateway, at = up.gateway, [1000.0]
    gateway.reappraisal.clock = Clock(monotonic=lambda: at[0])
    demand_lists(up)
    assert await gateway.reappraisal.sweep() == 0
    put_in_force(up)
    at[0] += PAST_S - 1
    assert await gateway.reappraisal.sweep() == 0
    demand_lists(up)
    at[0] += 2
    assert await gateway.reappraisal.sweep() == 0
    assert gateway.registry.knows(worker.kid)


# ---------------------------------------------------------------- an acceptance


async def test_a_policy_prolonged_before_its_end_keeps_its_workers_in_the_directory(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    gateway, ends = up.gateway, now() + 300
    put_in_force(up, expires=ends)
    await gateway.reappraisal.check()
    assert epoch_of(up, worker).offered_until == ends
    put_in_force(up, seq=3, expires=ends + 86400)
    await gateway.reappraisal.check()
    assert epoch_of(up, worker).policy == gateway.reappraisal.appraiser.policy.digest
    assert [epoch.bh for epoch in gateway.registry.offered(ends)] == [worker.bh]


@briefly
async def test_the_next_verdict_is_given_in_the_last_quarter_of_one(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    first = epoch_of(up, worker).appraised
    given = first.expires - TTL_S
    for after in (0, TTL_S * 3 // 4 - 1):
        up.gateway.reappraisal.clock = Clock(wall=lambda at=given + after: at)
        await up.gateway.reappraisal.check()
        assert epoch_of(up, worker).appraised is first
    up.gateway.reappraisal.clock = Clock(wall=lambda: given + TTL_S * 3 // 4)
    await up.gateway.reappraisal.check()
    assert epoch_of(up, worker).appraised.expires == first.expires + TTL_S * 3 // 4


@briefly
async def test_sweeps_are_as_close_as_short_verdicts_want_them(up: Up, fleet: Fleet) -> None:
    """Two in the last quarter: one may be late, and no worker leaves the directory."""
    reappraisal = up.gateway.reappraisal
    assert 2 * reappraisal.pause_s(SELDOM) <= TTL_S / 4
    assert reappraisal.pause_s(0.1) == 0.1
    put_in_force(up, freshness={"result_ttl_s": 1})
    assert reappraisal.pause_s(SELDOM) == AGAIN_S


@pytest.mark.parametrize("freshness", [{"result_ttl_s": 8}])
async def test_workers_stay_listed_however_short_verdicts_are(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    ends, clock = epoch_of(up, worker).appraised.expires, up.gateway.clock
    up.deployment.ahead = 5  # one second before the last quarter
    while clock.wall() < ends + 1:
        assert [epoch.bh for epoch in up.gateway.registry.offered(clock.wall())] == [worker.bh]
        await asyncio.sleep(0.1)
    answer = asyncio.create_task(up.post(seal([worker])))
    await worker.answer(await worker.job())
    assert (await answer).status_code == 200


@pytest.mark.parametrize("freshness", [{"result_ttl_s": 8}])
async def test_a_worker_that_left_the_directory_is_listed_again_when_it_is_accepted(
    up: Up, fleet: Fleet
) -> None:
    """By a sweep that came late: not at the next refresh, which is a minute away."""
    (worker,) = await fleet.admit("a")
    given, clock = now(), up.gateway.clock
    up.gateway.reappraisal.clock = Clock(wall=lambda: given)
    for ahead, expected in ((0, 1), (8, 0), (8, 1)):
        up.deployment.ahead = ahead
        if not expected:
            up.gateway.directory.changed()
        async with asyncio.timeout(10):
            while await listed(up) != expected:
                await asyncio.sleep(0.02)
        if not expected:
            up.gateway.reappraisal.clock = clock
    assert up.gateway.registry.knows(worker.kid)


async def listed(up: Up) -> int:
    document = (await up.http.get("/v1/keys")).content
    return len(verify_directory(document, up.deployment.client_policy(), now()).workers)


async def test_a_later_verdict_leaves_newer_collateral_that_came_while_it_was_given(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    epoch, newer = epoch_of(up, worker), Collected.of({"software": {"crl": b"\x01"}})
    put_in_force(up, k=1)
    judging = asyncio.create_task(up.gateway.reappraisal.check())
    await asyncio.sleep(0)  # it has begun
    up.gateway.registry.renew(replace(epoch, collateral=newer))
    assert await judging == 0
    assert epoch_of(up, worker).collateral is newer


async def test_a_verdict_under_a_policy_replaced_meanwhile_does_not_count(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    put_in_force(up, k=1)
    renewing = asyncio.create_task(up.gateway.reappraisal.check())
    await asyncio.sleep(0)  # it has begun
    put_in_force(up, seq=3, freshness={"result_ttl_s": TTL_S})
    assert await renewing == 0
    epoch = epoch_of(up, worker)
    assert epoch.policy == up.gateway.reappraisal.appraiser.policy.digest
    assert epoch.released_until <= now() + TTL_S


# ---------------------------------------------------------------- the end of a verdict


@briefly
async def test_nothing_is_released_under_a_verdict_that_has_ended(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    registry, ends = up.gateway.registry, epoch_of(up, worker).appraised.expires
    assert registry.live(worker.kid, ends - 1) is not None
    assert registry.live(worker.kid, ends) is None


@briefly
async def test_a_worker_that_asks_gets_nothing_either(up: Up, fleet: Fleet) -> None:
    """The request waits for another one, which is in service and busy."""
    ended, other = await fleet.admit("a", "b")
    epoch = epoch_of(up, other)
    up.gateway.reappraisal.registry = Registry()  # of nobody: no later verdict is given
    verdict = await verdict_of(up, epoch)
    up.gateway.registry.renew(replace(epoch, appraised=verdict))
    up.deployment.ahead = TTL_S
    sealed = seal([ended, other])
    answer = asyncio.create_task(up.post(sealed))
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting != 1:
            await asyncio.sleep(0.02)
    await ended.pull(1)
    await asyncio.sleep(0.5)
    assert up.gateway.dispatcher.waiting == 1
    await other.pull(1)
    await other.answer(await other.job())
    assert (await answer).status_code == 200


async def verdict_of(up: Up, epoch: Epoch, **freshness: int) -> AppraisedEvidence:
    """What is judged of it now, under the policy as it is but for its freshness."""
    demands = {**up.deployment.tee.demands, "freshness": freshness}
    appraiser = Appraiser(parse_policy(json.dumps(demands).encode()))
    verdict, _ = await appraiser.judge(epoch.presented, now(), epoch.collateral)
    assert isinstance(verdict, AppraisedEvidence)
    return verdict


async def test_a_verdict_that_ends_while_the_request_is_read_sends_it_elsewhere(
    up: Up, fleet: Fleet
) -> None:
    """Large requests are files, and the threads that read them may be busy."""
    (ending,) = await fleet.admit("a")
    epoch, session = epoch_of(up, ending), up.gateway.registry.sessions[ending.wid]
    ended = await verdict_of(up, epoch, result_ttl_s=1)
    up.gateway.reappraisal.registry = Registry()  # of nobody: no later verdict is given
    answer = asyncio.create_task(up.post(seal([ending], b"x" * SPOOLED)))
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting != 1 or now() < ended.expires:
            await asyncio.sleep(0.02)
    loop, gate = asyncio.get_running_loop(), Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, gate.wait)
    await ending.pull(1)
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting:
            await asyncio.sleep(0.02)
    assert session.credits == 0
    up.gateway.registry.renew(replace(epoch, appraised=ended))
    gate.set()
    await busy
    assert problem(await answer)[1] == "rewrap_needed"
    assert (ending.got(MessageType.JOB), session.credits) == (0, 1)


@briefly
async def test_what_waited_for_a_later_verdict_goes_out_when_it_is_given(
    up: Up, fleet: Fleet
) -> None:
    idle, busy = await fleet.admit("a", "b")
    await idle.pull(1)
    up.gateway.registry.renew(
        replace(epoch_of(up, busy), appraised=await verdict_of(up, epoch_of(up, busy)))
    )
    registry = up.gateway.reappraisal.registry
    up.gateway.reappraisal.registry = Registry()  # of nobody: no later verdict is given
    up.deployment.ahead = TTL_S
    answer = asyncio.create_task(up.post(seal([idle, busy])))
    async with asyncio.timeout(5):
        while up.gateway.dispatcher.waiting != 1:
            await asyncio.sleep(0.02)
    up.gateway.reappraisal.registry = registry
    await idle.answer(await idle.job())
    assert (await answer).status_code == 200


async def test_keys_open_for_their_grace_what_was_sealed_before_their_offer_ended(up: Up) -> None:
    worker, began = up.deployment.worker("a", beat_s=0.5), now()
    worker.tee.facts.update(nbf=began - 1795, exp=began + 1805)
    worker.binding = worker.tee.binding()
    await worker.admitted()
    registry, epoch = up.gateway.registry, epoch_of(up, worker)
    assert epoch.appraised.expires == epoch.appraised.binding.exp < epoch.held_until
    assert registry.live(worker.kid, epoch.held_until - 1) is not None
    assert registry.live(worker.kid, epoch.held_until) is None
    up.gateway.reappraisal.clock = Clock(wall=lambda: epoch.appraised.binding.exp)
    put_in_force(up, expires=epoch.held_until - 1)  # and no longer than the policy then says
    await up.gateway.reappraisal.check()
    assert registry.live(worker.kid, epoch.held_until - 2) is not None
    assert registry.live(worker.kid, epoch.held_until - 1) is None
    await worker.drop()


async def test_the_end_of_a_policy_is_one_though_keys_are_offered_no_longer_then(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    ends = epoch_of(up, worker).appraised.binding.exp
    put_in_force(up, expires=ends)
    await up.gateway.reappraisal.check()
    epoch = epoch_of(up, worker)
    assert epoch.offered_until == epoch.released_until == ends < epoch.held_until
