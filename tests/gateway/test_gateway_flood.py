"""Strangers that name chips nobody has: the vendor is spared, and workers come and stay."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Deployment, Fleet, Observed, Up, written
from simulators.hardware_tee import SnpTee
from simulators.vendor_services import Fault, VendorServices

from attestation.collateral_key import vcek
from gateway.breaker import SILENT_MAX
from gateway.collateral import _watcher
from gateway.found import NONE_COLLECTED
from gateway.journal import Event, Journal
from gateway.questions import Held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELD = "anchorhold_collateral_held"
FEW = {"collateral_unknown_per_minute": 1}  # three at once; one process gets two of them


@pytest.fixture
def deployment(
    served: VendorServices, settings: dict[str, Any], tmp_path: Path
) -> Iterator[Deployment]:
    services = tmp_path / "services.toml"
    found = Deployment(SnpTee, collateral_services_file=services, **settings)
    services.write_text(f'amd_kds = "{served.url}"')
    found.config.admission_policy_file.write_text(json.dumps(found.tee.demands))
    yield found
    found.remove()


def served_by(worker: Any, served: VendorServices) -> None:
    assert isinstance(worker.tee, SnpTee)
    worker.tee.serve(served)


def chips(served: VendorServices) -> int:
    """How often the service was asked for a chip's certificate."""
    return sum("?" in path for _, path, _ in served.asked)


@pytest.mark.parametrize("settings", [FEW])
async def test_a_flood_of_unknown_chips_costs_the_vendor_little_and_known_workers_nothing(
    up: Up,
    fleet: Fleet,
    served: VendorServices,
    observed: Observed,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = fleet.make("a")
    served_by(worker, served)
    await worker.admitted()
    flood = [fleet.make(f"flood-{number}") for number in range(12)]
    for reasons in await asyncio.gather(*(stranger.refused() for stranger in flood)):
        assert reasons[0] == "collateral_missing"
    assert chips(served) <= 3
    assert observed.total(HELD, anchorhold__cause="allowance_spent") >= 9
    assert len(written(caplog, Event.COLLATERAL_HELD)) == 1
    assert up.gateway.registry.knows(worker.kid)
    assert await up.gateway.reappraisal.sweep() == 0
    # It restarts in the middle of the flood: its chip is known here.
    await worker.drop()
    again = fleet.make("a")
    await again.admitted()
    # One that nobody knows comes with its collateral in the cache, as its operator put it there.
    late = fleet.make("late")
    served_by(late, served)
    assert (await late.refused())[0] == "collateral_missing"
    await late.drop()
    await up.gateway.collateral.refresh(late.tee.presented(late.binding), NONE_COLLECTED)
    await late.admitted()


async def test_a_vendor_that_falls_silent_is_left_alone_and_known_workers_stay(
    up: Up,
    fleet: Fleet,
    served: VendorServices,
    observed: Observed,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = fleet.make("a")
    served_by(worker, served)
    await worker.admitted()
    questions, source = up.gateway.collateral.questions, "amd-kds"
    for number in range(SILENT_MAX):
        questions.end(keys()[number], None, answered=False, stranger=False)
    asked = len(served.asked)
    stranger = fleet.make("b")
    served_by(stranger, served)
    assert (await stranger.refused())[0] == "collateral_missing"
    assert len(served.asked) == asked
    assert observed.total(HELD, anchorhold__source=source, anchorhold__cause="vendor_silent") == 1
    assert len(written(caplog, Event.VENDOR_SILENT)) == 1
    assert await up.gateway.reappraisal.sweep() == 0
    assert up.gateway.registry.knows(worker.kid)


async def test_each_question_to_a_vendor_is_counted(
    fleet: Fleet, served: VendorServices, observed: Observed
) -> None:
    served.faults["/vcek/v1/Genoa/crl"] = Fault("status", status=404)
    worker = fleet.make("a")
    served_by(worker, served)
    await worker.refused()
    name = "anchorhold_collateral_fetches"
    assert observed.total(name, anchorhold__source="amd-kds") == len(served.asked) == 3


def test_a_flood_writes_one_line_a_minute(
    observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="anchorhold.gateway")
    now = [0.0]
    watcher = _watcher(observed.telemetry, Journal(observed.telemetry), lambda: now[0])
    for _ in range(100):
        watcher.held("amd-kds", Held.ALLOWANCE)
    watcher.held("amd-kds", Held.REMEMBERED)
    assert len(written(caplog, Event.COLLATERAL_HELD)) == 1
    watcher.held("intel-pcs", Held.ALLOWANCE)
    assert len(written(caplog, Event.COLLATERAL_HELD)) == 2
    now[0] += 60
    watcher.held("amd-kds", Held.ALLOWANCE)
    assert len(written(caplog, Event.COLLATERAL_HELD)) == 3
    assert observed.total(HELD) == 103
    watcher.silent("amd-kds", False)
    assert len(written(caplog, Event.VENDOR_ANSWERS)) == 1


def keys() -> list[Any]:
    return [vcek("Genoa", bytes([number]) * 64, (1, 2, 3, 4)) for number in range(SILENT_MAX)]


async def test_links_have_numbers_of_their_own_and_the_kernels_word_on_their_process(
    up: Up, fleet: Fleet
) -> None:
    for name in ("a", "b"):
        await fleet.make(name).connect()
    askers = {link.asker for link in up.gateway.workers._links}
    assert len({asker.link for asker in askers}) == 2
    assert {asker.peer for asker in askers} == {os.getpid()}
