"""What stands while time passes: verdicts in memory, keys in the registry, workers in service."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import Deployment, Fleet, Up, problem, seal, until, written
from simulators.held_log import HeldLog
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee

from attestation.result import AppraisedEvidence, Refused
from evidence.entry import Logged
from evidence.events import ATTEST_VERDICT, WORKER_SESSION
from gateway.admission import APPRAISALS
from gateway.appraiser import REFUSAL_S, REFUSALS_MAX, Appraiser, Presented
from gateway.asker import Asker
from gateway.clock import Clock
from gateway.found import NONE_COLLECTED, Collected
from gateway.journal import Event
from gateway.registry import Registry
from gateway.session import Epoch, Session
from wire.errors import MalformedError, UnavailableError
from wire.ids import b64u, unb64u
from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.tee import Tee

    from wire.errors import AnchorholdError

OTHER = "sha256:" + "ab" * 32


def shown_by(tee: Tee) -> Presented:
    binding = tee.binding()
    return Presented(binding, tuple(tee.presented(binding)), tee.posture())


# ---------------------------------------------------------------- verdicts in memory


class Judge:
    """An appraiser, and what it says at the time of a worker."""

    def __init__(self, tee: Tee) -> None:
        self.tee = tee
        self.appraiser = Appraiser(tee.policy())

    async def __call__(
        self, shown: Presented, at: int = 0, collateral: Collected = NONE_COLLECTED
    ) -> AppraisedEvidence | Refused:
        return (await self.appraiser.judge(shown, self.tee.now + at, collateral))[0]


async def test_an_acceptance_is_not_remembered_for_another_activation() -> None:
    tee = TpmTee()
    judge, bare = Judge(tee), shown_by(tee)
    good = tee.activation(bare.evidence[0])
    assert isinstance(await judge(replace(bare, activation=good)), AppraisedEvidence)
    wrong = replace(good, answer=bytes(32))
    for other in (
        wrong,
        replace(good, answer=None),
        replace(good, secret_expected=bytes(32)),
        None,
    ):
        assert isinstance(await judge(replace(bare, activation=other)), Refused)
    elsewhere = replace(good, credential=replace(good.credential, ak_name=b"\0\x0b" + bytes(32)))
    assert isinstance(await judge(replace(bare, activation=elsewhere)), Refused)


@pytest.mark.parametrize("posture", [None, b"", b"no record"])
async def test_an_acceptance_is_not_remembered_for_another_posture(posture: bytes | None) -> None:
    judge = Judge(SoftwareTee())
    shown = shown_by(judge.tee)
    assert isinstance(await judge(shown), AppraisedEvidence)
    assert isinstance(await judge(replace(shown, posture=posture)), Refused)


async def test_an_acceptance_is_not_remembered_for_a_time_before_it_was_given() -> None:
    judge = Judge(SoftwareTee())
    shown = shown_by(judge.tee)
    assert isinstance(await judge(shown, 10), AppraisedEvidence)
    assert isinstance(await judge(shown, -3000), Refused)  # its keys are not valid yet
    assert isinstance(await judge(shown), AppraisedEvidence)


async def test_a_refusal_is_remembered_for_a_moment_and_no_longer() -> None:
    judge = Judge(SoftwareTee())
    shown = replace(shown_by(judge.tee), posture=None)
    first = await judge(shown)
    assert isinstance(first, Refused)
    assert await judge(shown, REFUSAL_S - 1) is first
    second = await judge(shown, REFUSAL_S)
    assert second is not first
    assert await judge(shown, REFUSAL_S - 1) is not second  # a clock that was set back


async def test_a_refusal_is_not_remembered_for_other_collateral() -> None:
    judge = Judge(SoftwareTee())
    shown = replace(shown_by(judge.tee), posture=None)
    first = await judge(shown)
    assert await judge(shown, collateral=Collected.of({"software": {"crl": b"\x01"}})) is not first


async def test_a_refusal_is_not_remembered_for_another_policy() -> None:
    judge = Judge(SoftwareTee())
    honest = judge.tee.policy()
    judge.tee.rule["measurements"] = [OTHER]
    judge.appraiser.policy = judge.tee.policy()
    shown = shown_by(judge.tee)
    assert isinstance(await judge(shown), Refused)
    judge.appraiser.policy = honest
    assert isinstance(await judge(shown), AppraisedEvidence)


async def test_refusals_are_remembered_in_bounded_number() -> None:
    judge = Judge(SoftwareTee())
    for number in range(REFUSALS_MAX + 3):
        await judge(Presented(b"%d" % number, (), None))
    assert len(judge.appraiser._refused) == REFUSALS_MAX


@pytest.mark.parametrize("good", [True, False])
async def test_whoever_asks_for_a_verdict_that_is_being_made_gets_that_one(good: bool) -> None:
    judge = Judge(SoftwareTee())
    shown = shown_by(judge.tee)
    shown = shown if good else replace(shown, posture=None)
    verdicts = await asyncio.gather(*(judge(shown) for _ in range(20)))
    assert all(verdict is verdicts[0] for verdict in verdicts)
    assert isinstance(verdicts[0], AppraisedEvidence) is good


async def test_who_goes_away_takes_no_verdict_from_others() -> None:
    judge = Judge(SoftwareTee())
    shown = shown_by(judge.tee)
    first = asyncio.create_task(judge(shown))
    await asyncio.sleep(0)
    second = asyncio.create_task(judge(shown))
    await asyncio.sleep(0)
    (making,) = judge.appraiser._making.values()
    first.cancel()
    await asyncio.sleep(0)
    assert list(judge.appraiser._making.values()) == [making]
    assert isinstance(await second, AppraisedEvidence)


async def test_a_refused_workers_token_costs_one_appraisal_however_often_it_is_asked_for(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    up.deployment.tee.rule["measurements"] = [OTHER]
    up.gateway.reappraisal.appraiser.policy = up.deployment.tee.policy()  # and no sweep yet
    path = f"/v1/attestation/results/{b64u(worker.bh)}"
    refused = up.gateway.reappraisal.appraiser._refused
    known = []
    for _ in range(5):
        answer = await up.http.get(path)
        said = json.loads(unb64u(answer.text.split(".")[1]))
        assert said["submods"]["worker"]["ear.status"] == "contraindicated"
        known.append(next(iter(refused.values()))[1])
    assert len({id(verdict) for verdict in known}) == 1


# ---------------------------------------------------------------- keys in the registry


async def epoch_of(tee: Tee) -> Epoch:
    shown = shown_by(tee)
    verdict, policy = await Appraiser(tee.policy()).judge(shown, tee.now)
    assert isinstance(verdict, AppraisedEvidence)
    return Epoch(verdict, shown, NONE_COLLECTED, policy, Logged(0, b"", b"", b"", "", ()))


async def test_a_key_that_a_later_binding_lists_outlives_the_earlier_one() -> None:
    tee = SoftwareTee()
    first = await epoch_of(tee)
    tee.facts["epoch"] = 1
    second = await epoch_of(tee)
    (kid,) = first.kids
    assert first.bh != second.bh
    assert second.kids == {kid}
    registry = Registry()
    session = Session(bytes(32), lambda _: None, [first], 10.0)
    registry.add(session)
    registry.add_epoch(session, second)
    registry.forget([first.bh])
    assert registry.knows(kid)
    assert registry.live(kid, tee.now) is session
    registry.forget([second.bh])
    assert not registry.knows(kid)
    assert registry.live(kid, tee.now) is None


async def test_bindings_of_workers_that_come_and_go_are_bounded_and_judged_last() -> None:
    tee, registry, bhs = SoftwareTee(), Registry(gone_max=3), []
    stays = Session(bytes(32), lambda _: None, [await epoch_of(SoftwareTee("stays"))], 10.0)
    for number in range(5):
        tee.facts["epoch"] = number
        comes = Session(bytes(32), lambda _: None, [await epoch_of(tee)], 10.0)
        bhs.append(comes.newest.bh)
        registry.add(comes)
        if number == 0:
            registry.add(stays)
        registry.remove(comes)
    assert registry.admitted() == [stays.newest.bh, *bhs[2:]]
    assert registry.knows(next(iter(stays.newest.kids)))


# ---------------------------------------------------------------- who went meanwhile


def hold(up: Up, kind: str, error: AnchorholdError | None = None) -> HeldLog:
    held = HeldLog(up.gateway.ledger.log, kind, error)
    up.gateway.ledger.log = held
    return held


async def test_a_link_that_ended_while_its_session_was_written_is_not_taken(
    up: Up, fleet: Fleet
) -> None:
    held = hold(up, WORKER_SESSION)
    worker = fleet.make("a")
    await worker.connect()
    await worker.hello()
    await held.reached.wait()
    (link,) = up.gateway.workers._links
    link.end("expired")
    held.gate.set()
    await worker.closed()
    await until(lambda: not up.gateway.workers._links)
    assert not up.gateway.registry.knows(worker.kid)
    assert worker.got(MessageType.ADMITTED) == 0


async def test_new_keys_judged_while_their_worker_was_fenced_lead_to_nobody(
    up: Up, fleet: Fleet
) -> None:
    (worker,) = await fleet.admit("a")
    first = worker.bh
    held = hold(up, ATTEST_VERDICT)
    worker.tee.keys = type(worker.tee)("other", worker.tee.now).keys
    await worker.new_keys(epoch=1, kems=[worker.tee.kem(next(iter(worker.tee.keys)))])
    await held.reached.wait()
    up.gateway.roster.fence(first)
    held.gate.set()
    await worker.closed()
    await until(lambda: not up.gateway.workers._links)
    assert not up.gateway.registry.knows(worker.kid)
    assert problem(await up.post(seal([worker]))) == (409, "kid_unknown")


# ---------------------------------------------------------------- sweeps


FAILURES = [MalformedError("a body that does not fit"), UnavailableError("the log has stopped")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_verdict_that_cannot_be_written_ends_neither_the_fence_nor_the_sweep(
    up: Up, fleet: Fleet, error: AnchorholdError, caplog: pytest.LogCaptureFixture
) -> None:
    workers = await fleet.admit("a", "b", "c")
    hold(up, ATTEST_VERDICT, error)
    up.deployment.tee.rule["measurements"] = [OTHER]
    up.gateway.reappraisal.appraiser.policy = up.deployment.tee.policy()
    assert await up.gateway.reappraisal.sweep() == 3
    for worker in workers:
        await worker.closed()
        assert not up.gateway.registry.knows(worker.kid)
    assert len(written(caplog, Event.VERDICT_UNLOGGED)) == 3
    assert not up.gateway.failed.is_set()


async def test_keys_past_their_end_are_no_reason_to_fence_the_worker(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    end = epoch.appraised.binding.exp
    assert end < epoch.held_until
    up.gateway.reappraisal.clock = Clock(wall=lambda: end)
    assert await up.gateway.reappraisal.sweep() == 0
    assert up.gateway.registry.knows(worker.kid)


async def test_a_sweep_waits_for_no_stranger_that_is_being_judged(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    gate, turns = asyncio.Event(), up.gateway.roster.admission._turns

    async def busy() -> None:
        await gate.wait()

    strangers = [
        asyncio.create_task(turns.run(Asker(number, number), busy))
        for number in range(-1000, -1000 + APPRAISALS + 5)
    ]
    late = fleet.make("b")
    await late.connect()
    await late.hello()
    up.deployment.tee.rule["measurements"] = [OTHER]
    up.gateway.reappraisal.appraiser.policy = up.deployment.tee.policy()
    assert await up.gateway.reappraisal.sweep() == 1
    assert not up.gateway.registry.knows(worker.kid)
    await asyncio.sleep(0.5)
    assert late.got(MessageType.REFUSED) == 0
    gate.set()
    await asyncio.gather(*strangers)
    await late.receive(MessageType.REFUSED)


async def test_what_a_new_policy_denies_is_published_as_denied(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    await up.demand(deny={"bh": [b64u(worker.bh)]})
    await worker.closed()
    assert worker.bh in up.gateway.directory.deny
    async with asyncio.timeout(10):
        while True:
            document = (await up.http.get("/v1/keys")).json()
            if b64u(worker.bh) in json.loads(unb64u(document["payload"]))["deny"]:
                break
            await asyncio.sleep(0.05)
    deployment: Deployment = up.deployment
    assert deployment.config.deny_file is not None
    # The deny file's own entries stay, and so do the policy's when that file changes.
    await asyncio.to_thread(deployment.config.deny_file.write_text, b64u(bytes(32)) + "\n")
    await up.gateway.look()
    assert bytes(32) in up.gateway.directory.deny
    assert worker.bh in up.gateway.directory.deny
