"""Older collateral is genuine within its dates; a client that saw newer does not go back to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from simulators.hardware_tee import TdxTee
from simulators.hardware_workers import tee_of

from client.api import Client
from client.highest import FOLDER, Highest
from wire.errors import AttestationError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulators.answers import Listed
    from simulators.service import Service

    from client.report import Verification
    from client.session import Options

tdx = pytest.mark.parametrize("make", [TdxTee])


def report(service: Service, options: Options) -> Verification:
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options) as client,
    ):
        return client.report()


def name(listed: Listed, trust: str = "simulated") -> str:
    return f"intel-tcb/{trust}/{listed.tee.kind}/{tee_of(listed).intel.fmspc.hex()}"


@pytest.fixture
def number(service: Service, listed: Listed, options: Any, tmp_path: Path) -> int:
    """The evaluation number of the worker's collateral, which a first look remembers."""
    assert report(service, options(state_dir=tmp_path / "first")).error is None
    (path,) = (tmp_path / "first" / FOLDER).glob("*.json")
    memory = Highest(tmp_path / "first")
    assert memory.admit(name(listed), 0) is not None
    return next(n for n in range(100) if memory.admit(name(listed), n) is None and path.exists())


@tdx
def test_the_same_number_is_accepted_again_and_a_lower_one_than_was_seen_is_not(
    service: Service, listed: Listed, options: Callable[..., Options], tmp_path: Path, number: int
) -> None:
    memory = Highest(tmp_path / "state")
    assert memory.admit(name(listed), number) is None
    assert report(service, options(state_dir=tmp_path / "state")).error is None
    assert memory.admit(name(listed), number + 1) is None
    found = report(service, options(state_dir=tmp_path / "state"))
    assert isinstance(found.error, AttestationError)
    assert found.error.reasons == ("collateral_rollback",)
    assert f"found TCB evaluation {number}, expected at least {number + 1}" in found.error.message
    assert "renew it" in found.error.hint


@tdx
def test_simulated_numbers_and_real_ones_do_not_meet(
    service: Service, listed: Listed, options: Callable[..., Options], tmp_path: Path
) -> None:
    assert Highest(tmp_path / "state").admit(name(listed, "hardware"), 999) is None
    assert report(service, options(state_dir=tmp_path / "state")).error is None


@tdx
def test_a_memory_that_cannot_be_read_stops_the_client(
    service: Service, options: Callable[..., Options], tmp_path: Path
) -> None:
    assert report(service, options(state_dir=tmp_path / "state")).error is None
    (path,) = (tmp_path / "state" / FOLDER).glob("*.json")
    path.write_bytes(b"{}")
    found = report(service, options(state_dir=tmp_path / "state"))
    assert isinstance(found.error, ConfigError)
    assert found.exit_code == 4
    assert "delete it" in found.error.hint


@tdx
def test_a_collateral_folder_that_is_not_there_is_said_before_anything_is_asked(
    service: Service, options: Callable[..., Options], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        report(service, options(collateral_dir=tmp_path / "missing"))
    assert not service.seen
