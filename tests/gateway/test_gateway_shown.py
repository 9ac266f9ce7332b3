"""What a worker showed is encoded once for all who ask, and is of its newest verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.found import Collected
from gateway.shown import Shown

if TYPE_CHECKING:
    from simulators.deployment import Fleet, Up

    from gateway.session import Epoch


@pytest.fixture
async def epochs(up: Up, fleet: Fleet) -> list[Epoch]:
    workers = await fleet.admit("a", "b", "c")
    found = [up.gateway.registry.epoch(worker.bh) for worker in workers]
    return [epoch for epoch in found if epoch is not None]


def parsed(shown: Shown, epoch: Epoch) -> dict[str, object]:
    found = json.loads(shown.document(epoch, epoch.verdict, None))
    assert isinstance(found, dict)
    return found


async def test_the_document_has_what_was_shown_and_what_dates_it(epochs: list[Epoch]) -> None:
    document = parsed(Shown(), epochs[0])
    assert set(document) == {
        "binding", "evidence", "posture", "collateral", "inclusion", "beacon",
    }  # fmt: skip
    assert document["evidence"] == [item.to_json() for item in epochs[0].presented.evidence]
    assert document["inclusion"] == epochs[0].verdict.to_json()
    assert document["beacon"] is None


async def test_another_verdict_shows_other_collateral(epochs: list[Epoch]) -> None:
    shown, first = Shown(), epochs[0]
    before = parsed(shown, first)
    later = replace(first, collateral=Collected.of({"software": {"crl": b"\x01"}}))
    assert parsed(shown, later)["collateral"] != before["collateral"]
    assert parsed(shown, first) == before


async def test_what_is_kept_has_bounded_room_and_the_oldest_leaves_first(
    epochs: list[Epoch],
) -> None:
    a, b, c = epochs
    first = parsed(Shown(), a)
    size = len(Shown().document(a, a.verdict, None)) - len(json.dumps(first["inclusion"]))
    shown = Shown(room=2 * size + size // 2)
    for epoch in (a, b, a, c):  # b is the one that was not asked for since
        assert parsed(shown, epoch) == parsed(Shown(), epoch)
    assert set(shown._made) == {a.bh, c.bh}
    tight = Shown(room=1)
    assert parsed(tight, a) == first
    assert not tight._made
    assert tight._size == 0
