"""Which worker has a binding: one answer, whoever asks, and none for what is gone or unknown."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest
from simulators.admitted_epochs import admitted, here
from simulators.tee import SoftwareTee

from gateway.registry import EPOCHS_PER_SESSION_MAX, Registry

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Up


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_worker_is_found_by_its_newest_binding_and_by_its_older_ones(registry: Registry) -> None:
    sessions = {name: here(registry, admitted(name, 2)) for name in ("a", "b")}
    for session in sessions.values():
        assert [registry.holder(epoch.bh) for epoch in session.epochs] == [session] * 2


def test_nobody_is_found_by_a_binding_of_a_worker_that_is_gone(registry: Registry) -> None:
    session = here(registry, admitted("a", 1))
    registry.remove(session)
    assert registry.epoch(session.newest.bh) is not None
    assert registry.holder(session.newest.bh) is None


def test_a_worker_that_came_again_is_not_found_by_what_it_had_before(registry: Registry) -> None:
    before, now = admitted("a", 2)
    registry.remove(here(registry, [before]))
    again = here(registry, [now])
    assert registry.epoch(before.bh) is not None
    assert registry.holder(before.bh) is None
    assert registry.holder(now.bh) is again


def test_nobody_is_found_by_a_binding_that_is_forgotten_or_was_one_too_many(
    registry: Registry,
) -> None:
    epochs = admitted("a", EPOCHS_PER_SESSION_MAX + 1)
    here(registry, epochs)
    registry.forget([epochs[-1].bh])
    assert registry.holder(epochs[-1].bh) is registry.holder(epochs[0].bh) is None
    assert registry.holder(bytes(32)) is None


def test_a_binding_judged_again_is_its_workers_too_and_no_others(registry: Registry) -> None:
    one, other = here(registry, admitted("a", 2)), here(registry, admitted("b", 1))
    untouched, older = other.newest, one.epochs[0]
    renewed = dataclasses.replace(older, policy="newer")
    registry.renew(renewed)
    assert one.epochs[0] is renewed is registry.epoch(older.bh)
    assert one.newest.policy == ""
    assert other.epochs == [untouched]


async def test_a_refused_binding_ends_its_worker_unless_that_has_newer_keys(
    up: Up, fleet: Fleet
) -> None:
    one, other = await fleet.admit("a", "b")
    older = one.bh
    one.tee.keys = SoftwareTee("new", one.tee.now).keys
    one.tee.facts["kems"] = [one.tee.kem(suite) for suite in one.tee.keys]
    await one.new_keys(epoch=1)
    async with asyncio.timeout(10):
        while up.gateway.registry.epoch(one.bh) is None:
            await asyncio.sleep(0.01)
    roster = up.gateway.roster
    roster.refuse(older)
    (session,) = [held for held in roster._ends if held.wid == one.wid]
    assert [epoch.bh for epoch in session.epochs] == [one.bh]
    assert up.gateway.registry.epoch(older) is None
    assert len(roster) == 2
    roster.refuse(other.bh)
    await other.closed()
    assert len(roster) == 1
    roster.refuse(one.bh)
    await one.closed()
