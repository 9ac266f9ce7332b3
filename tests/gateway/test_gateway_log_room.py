"""What workers may add to a log that is kept for ever, and how long many bindings hold others up.

Making a key costs nothing, and each refused HELLO would be an entry; so would each accepted one of
a worker that comes and goes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from simulators.tee import SoftwareTee

from attestation.evidence import Evidence
from attestation.result import Check, Reason, Refused
from evidence.events import ATTEST_VERDICT, WORKER_SESSION
from gateway.admission import ACCEPTED_AT_ONCE, ACCEPTED_PER_MINUTE, REFUSALS_PER_MINUTE
from gateway.allowance import BURST_MINUTES, Allowance
from gateway.appraiser import Presented
from gateway.asker import Asker
from gateway.registry import EPOCHS_PER_SESSION_MAX, Registry
from gateway.session import Epoch, Session
from gateway.verdicts import CHECKS_MAX, KINDS_MAX, REASONS_MAX, log_verdict
from wire.ids import b64u, sha256_tag
from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Observed, Up
    from simulators.worker_peer import WorkerPeer

AT_ONCE = REFUSALS_PER_MINUTE * BURST_MINUTES
HELD = "anchorhold_verdicts_held"


def unaccepted(fleet: Fleet, name: str) -> WorkerPeer:
    """A stranger with keys of its own making, whose code nobody accepts."""
    worker = fleet.make(name)
    worker.tee.parts["first_party"] = sha256_tag(name.encode())
    worker.tee.facts["image"] = worker.tee.measurement()
    return worker


async def test_strangers_without_end_add_a_bounded_number_of_entries(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    came = AT_ONCE + 10
    for number in range(came):
        stranger = unaccepted(fleet, f"stranger-{number}")
        assert await stranger.refused() == ["measurement_not_accepted"]
        await stranger.drop()
    logged = len(await up.events(ATTEST_VERDICT))
    assert 0 < logged < AT_ONCE  # one process never takes all of it
    assert observed.total(HELD) == came - logged
    reason = {"anchorhold__reason": "measurement_not_accepted"}
    assert observed.total("anchorhold_attest_failures", **reason) == came
    # An acceptance has room of its own, and what another process does is still written.
    (honest,) = await fleet.admit("honest")
    assert (await up.events(ATTEST_VERDICT))[-1]["bh"] == b64u(honest.bh)
    room = up.gateway.roster.admission._entries
    assert room.take(Asker(-1, -1), "evidence-log", up.gateway.clock.monotonic())


async def test_an_admitted_worker_whose_new_keys_are_refused_again_and_again_is_no_exception(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    (worker,) = await fleet.admit("a")
    for epoch in range(1, AT_ONCE + 2):
        await worker.new_keys(epoch=epoch, policy=sha256_tag(b"other"))
        await worker.receive(MessageType.REFUSED)
    assert observed.total(HELD) > 0
    refused = [body for body in await up.events(ATTEST_VERDICT) if not body["ok"]]
    assert len(refused) < AT_ONCE


# ---------------------------------------------------------------- accepted workers


def little_room(up: Up) -> Allowance:
    """Room for the entries of eight accepted workers, of which one process gets a part."""
    room = up.gateway.roster.admission._accepted = Allowance(1, 8)
    return room


async def came(worker: WorkerPeer) -> str:
    """Connect and introduce; whether it was admitted, or why not."""
    await worker.connect()
    await worker.hello()
    found = {
        asyncio.create_task(worker.receive(kind)): kind
        for kind in (MessageType.ADMITTED, MessageType.REFUSED)
    }
    done, waiting = await asyncio.wait(found, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    (first,) = done
    return ",".join(first.result().json().get("reasons", ["admitted"]))


async def test_an_accepted_worker_that_comes_and_goes_adds_a_bounded_number_of_entries(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    room = little_room(up)
    worker, heard = fleet.make("a"), []
    for _ in range(12):
        heard.append(await came(worker))
        await worker.drop()
    admitted = heard.count("admitted")
    assert 0 < admitted < 8
    assert heard == ["admitted"] * admitted + ["too_often"] * (12 - admitted)
    verdicts = await up.events(ATTEST_VERDICT)
    assert [body["ok"] for body in verdicts] == [True] * admitted
    opened = [body for body in await up.events(WORKER_SESSION) if body["phase"] == "open"]
    assert len(opened) == admitted
    assert observed.total(HELD) == 12 - admitted
    # It took none of what refusals have, nor all of what accepted ones have.
    now = up.gateway.clock.monotonic()
    assert up.gateway.roster.admission._entries._buckets == {}
    assert room.take(Asker(-1, -1), "evidence-log", now)


async def test_new_keys_without_end_add_a_bounded_number_of_entries_and_end_nothing(
    up: Up, fleet: Fleet
) -> None:
    little_room(up)
    (worker,) = await fleet.admit("a")
    kept = worker.bh
    for epoch in range(1, 10):
        await worker.new_keys(epoch=epoch)
        refused = asyncio.create_task(worker.receive(MessageType.REFUSED))
        admitted = asyncio.create_task(worker.receive(MessageType.ADMITTED))
        await asyncio.wait([refused, admitted], return_when=asyncio.FIRST_COMPLETED)
        admitted.cancel()
        if refused.done():
            assert refused.result().json()["reasons"] == ["too_often"]
            break
        refused.cancel()
        kept = worker.bh
    assert refused.done()
    assert up.gateway.registry.holder(kept) is not None
    assert up.gateway.registry.epoch(worker.bh) is None
    assert len(await up.events(ATTEST_VERDICT)) < 8


async def test_a_refusal_is_written_also_where_accepted_workers_have_no_room(
    up: Up, fleet: Fleet
) -> None:
    """Else what a worker was accepted with would stay the log's last word on it."""
    up.gateway.roster.admission._accepted = Allowance(1, 1)
    (worker,) = await fleet.admit("a")
    await worker.drop()
    assert await came(worker) == "too_often"
    await worker.drop()
    up.deployment.tee.rule["measurements"] = [sha256_tag(b"other")]
    up.gateway.reappraisal.appraiser.policy = up.deployment.tee.policy()
    assert await came(worker) == "measurement_not_accepted"
    assert [body["ok"] for body in await up.events(ATTEST_VERDICT)] == [True, False]


def test_as_many_workers_as_a_list_names_come_back_at_once_and_rotate_every_hour() -> None:
    room = Allowance(ACCEPTED_PER_MINUTE, ACCEPTED_AT_ONCE)
    fleet = [Asker(number, number) for number in range(ACCEPTED_AT_ONCE)]
    assert all(room.take(asker, "evidence-log", 0.0) for asker in fleet)
    step = 3600 / len(fleet)
    for hour in range(2):
        first = (hour + 1) * 3600
        assert all(
            room.take(asker, "evidence-log", first + step * number)
            for number, asker in enumerate(fleet)
        )


def test_names_of_those_who_took_room_are_kept_no_longer_than_it_takes_to_fill_again() -> None:
    room = Allowance(60, 4)
    for number in range(1000):
        room.take(Asker(number, number), "evidence-log", float(number))
    assert len(room._buckets["evidence-log"].spent) <= 2 * 4


def test_room_in_the_log_comes_back_with_time() -> None:
    room, asker = Allowance(REFUSALS_PER_MINUTE), Asker(1, 1)
    taken = sum(room.take(asker, "evidence-log", 0.0) for _ in range(AT_ONCE))
    assert 0 < taken < AT_ONCE
    assert not room.take(asker, "evidence-log", 0.0)
    assert room.take(asker, "evidence-log", 60.0)


# ---------------------------------------------------------------- many bindings


def admitted(name: str, epochs: int) -> list[Epoch]:
    """Epochs of one worker, oldest first; how they came to be accepted is no matter here."""
    tee, found = SoftwareTee(name), []
    for number in range(epochs):
        tee.facts["epoch"] = number
        binding = tee.binding()
        appraised = tee.appraise(binding_raw=binding)
        shown = Presented(binding, tuple(tee.presented(binding)), tee.posture())
        found.append(Epoch(appraised, shown, None, "", None))  # type: ignore[arg-type]
    return found


def here(registry: Registry, epochs: list[Epoch]) -> Session:
    session = Session(bytes(32), lambda _: None, epochs[:1], 10.0)
    registry.add(session)
    for epoch in epochs[1:]:
        registry.add_epoch(session, epoch)
    return session


def test_a_worker_with_many_bindings_delays_no_others_judgement() -> None:
    registry = Registry()
    many, one = admitted("many", 3), admitted("one", 1)
    gone = here(registry, admitted("gone", 2))
    here(registry, many)
    here(registry, one)
    registry.remove(gone)
    order = [many[2], one[0], many[0], many[1], *gone.epochs]
    assert registry.admitted() == [epoch.bh for epoch in order]


def test_bindings_that_ended_are_in_no_order() -> None:
    registry = Registry()
    session = here(registry, admitted("a", 3))
    registry.forget([session.newest.bh])
    assert registry.admitted() == [epoch.bh for epoch in session.epochs[:-1]]


def test_a_worker_has_room_for_what_an_honest_one_holds() -> None:
    """The old keys, the new ones, and those of a replay set that was full."""
    assert EPOCHS_PER_SESSION_MAX >= 3


async def test_an_entry_about_a_refusal_is_bounded_whatever_was_shown_and_found(up: Up) -> None:
    tee = SoftwareTee()
    items = tuple(Evidence(f"{number}-of-a-kind-with-a-name", b"{}") for number in range(8))
    shown = Presented(tee.binding(), items, None)
    codes = tuple(f"code_{number}" for number in range(2 * REASONS_MAX))
    checks = tuple(Check(f"step {number}", True, "") for number in range(2 * CHECKS_MAX))
    reasons = tuple(Reason(code, "", "step 0") for code in codes)
    refused = Refused(reasons=reasons, checks=checks)
    await log_verdict(up.gateway.ledger, shown, sha256_tag(b"policy"), refused)
    (entry,) = await up.events(ATTEST_VERDICT)
    assert entry["reasons"] == list(codes[:REASONS_MAX])
    assert len(entry["checks"]) == CHECKS_MAX
    assert len(entry["kind"]) == KINDS_MAX
