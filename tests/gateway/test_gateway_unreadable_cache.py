"""A cache folder whose faults are none that anybody foresaw: refusals, and nothing ends."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from simulators.hardware_tee import SnpTee

from attestation.collateral.services import Services
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from gateway.asker import Asker
from gateway.clock import Clock
from gateway.collateral import CollateralSource
from gateway.found import NONE_COLLECTED
from gateway.questions import Questions, Watcher
from wire.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Faulty:
    """A source over a folder with a zero byte in its name, which no file system has.

    TOML can spell it. The system answers with a ValueError, where it says of every other folder
    that cannot be used what is wrong with it (an OSError).
    """

    def __init__(self, folder: Path) -> None:
        self.tee = SnpTee()
        self.evidence = [self.tee.evidence(self.tee.binding())]
        self.told: list[BaseException] = []
        self.missing: list[str] = []
        self.folder = folder / "cache\0"

    @contextmanager
    def source(self) -> Iterator[CollateralSource]:
        vendors = Vendors(Services(), secrets.token_bytes, self.tee.amd.anchors)
        found = CollateralSource(
            Store(self.folder),
            lambda: vendors,
            None,
            Clock(wall=lambda: self.tee.now),
            lambda: 3600,
            lambda kinds: kinds,
            self.missing.append,
            Questions(lambda: 0.0, 15, 60, Watcher(failed=self.told.append)),
        )
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    return Faulty(tmp_path)


async def test_a_worker_that_comes_finds_no_collateral_and_we_are_told(faulty: Faulty) -> None:
    with faulty.source() as source:
        found = await source.collect(faulty.evidence, Asker(1))
        assert not found.roles[faulty.tee.kind]
    assert faulty.missing == ["collateral_unavailable"]
    assert [type(error) for error in faulty.told] == [ValueError]
    verdict = faulty.tee.appraise(collateral=found.roles)
    assert "collateral_missing" in verdict.codes


async def test_an_admitted_worker_is_not_judged_as_if_nothing_were_there(faulty: Faulty) -> None:
    """What cannot be told is said, so that the sweep can go on with what it had for a while."""
    with faulty.source() as source, pytest.raises(UnavailableError, match="cannot be used"):
        await source.refresh(faulty.evidence, NONE_COLLECTED)
    assert [type(error) for error in faulty.told] == [ValueError]


async def test_the_source_goes_on_after_it(faulty: Faulty, tmp_path: Path) -> None:
    with faulty.source() as source:
        await source.collect(faulty.evidence, Asker(1))
        source.store = Store(tmp_path / "cache")
        await source.collect(faulty.evidence, Asker(1))
    assert len(faulty.told) == 1
    assert faulty.missing[0] == "collateral_unavailable"
    assert "collateral_unavailable" not in faulty.missing[1:]
