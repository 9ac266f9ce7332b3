"""What strangers may add to a log that is kept for ever, and how long many bindings hold others up.

Making a key costs nothing, and each refused HELLO would be an entry. Accepted workers are admitted
however often they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulators.admitted_epochs import admitted, here
from simulators.tee import SoftwareTee

from attestation.evidence import Evidence
from attestation.result import Check, Reason, Refused
from evidence.events import ATTEST_VERDICT
from gateway.admission import REFUSALS_PER_MINUTE
from gateway.allowance import BURST_MINUTES, Allowance
from gateway.appraiser import Presented
from gateway.asker import Asker
from gateway.registry import EPOCHS_PER_SESSION_MAX, Registry
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
    # An acceptance is always written, and what another process does still is.
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


async def test_an_accepted_worker_that_comes_back_again_and_again_is_admitted_each_time(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    """An honest one whose link breaks does the same; to keep it out costs more than the entries."""
    worker = fleet.make("a")
    for _ in range(AT_ONCE + 2):
        await worker.admitted()
        await worker.drop()
    assert [body["ok"] for body in await up.events(ATTEST_VERDICT)] == [True] * (AT_ONCE + 2)
    assert observed.total(HELD) == 0


async def test_new_keys_of_an_accepted_worker_are_taken_however_often_it_makes_them(
    up: Up, fleet: Fleet
) -> None:
    """A worker announces an epoch once: refused, it would be out until the next."""
    (worker,) = await fleet.admit("a")
    for epoch in range(1, AT_ONCE + 2):
        await worker.new_keys(epoch=epoch)
        await worker.receive(MessageType.ADMITTED)
    assert up.gateway.registry.holder(worker.bh) is not None
    assert [body["ok"] for body in await up.events(ATTEST_VERDICT)] == [True] * (AT_ONCE + 2)


async def test_an_accepted_worker_is_admitted_where_refusals_have_no_room(
    up: Up, fleet: Fleet
) -> None:
    room = up.gateway.roster.admission._entries
    later = up.gateway.clock.monotonic() + 600  # nothing comes back before
    for number in range(1, AT_ONCE + 1):
        assert room.take(Asker(-number, -number), "evidence-log", later)
    stranger = unaccepted(fleet, "stranger")
    assert await stranger.refused() == ["measurement_not_accepted"]
    (worker,) = await fleet.admit("a")
    assert [body["bh"] for body in await up.events(ATTEST_VERDICT)] == [b64u(worker.bh)]


def test_names_of_those_who_took_room_are_kept_no_longer_than_it_takes_to_fill_again() -> None:
    room = Allowance(60)
    for number in range(1000):
        room.take(Asker(number, number), "evidence-log", float(number))
    assert len(room._buckets["evidence-log"].spent) <= 2 * 60 * BURST_MINUTES


def test_room_in_the_log_comes_back_with_time() -> None:
    room, asker = Allowance(REFUSALS_PER_MINUTE), Asker(1, 1)
    taken = sum(room.take(asker, "evidence-log", 0.0) for _ in range(AT_ONCE))
    assert 0 < taken < AT_ONCE
    assert not room.take(asker, "evidence-log", 0.0)
    assert room.take(asker, "evidence-log", 60.0)


# ---------------------------------------------------------------- many bindings


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
