"""Fixtures of the collectors' tests: one TPM made a session, and one boot of it a test."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from simulators.tpm_machine import QuotingService, TpmMachine, manufacture

from attestation.collect.swtpm import missing_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def made_tpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    absent = missing_tools()
    if absent:
        what = f"simulated TPM: {', '.join(absent)} not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{what}: must be present when CI=true")
        pytest.skip(what)
    folder = tmp_path_factory.mktemp("made-tpm")
    manufacture(folder)
    return folder


@pytest.fixture
def booted(made_tpm: Path, tmp_path: Path) -> Iterator[TpmMachine]:
    state = tmp_path / "t"
    state.mkdir()
    shutil.copytree(made_tpm / "tpm", state / "tpm")
    machine = TpmMachine(state)
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def quoting_service() -> Iterator[QuotingService]:
    with QuotingService() as service:
        yield service
