"""Fixtures of the evidence tests: official vectors, a log, and one honest exchange."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from simulators.exchange import Exchange
from simulators.log import SimulatedLog

VECTORS = "ANCHORHOLD_VECTORS"


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of official log vectors; without it these tests are skipped, in CI they fail."""
    root = os.environ.get(VECTORS)
    if root and (Path(root) / "log").is_dir():
        return Path(root) / "log"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{VECTORS} must name the vector folder in CI, found {root!r}")
    pytest.skip(f"{VECTORS} names no folder with log/: official vectors not run")


@pytest.fixture
def log() -> SimulatedLog:
    return SimulatedLog()


@pytest.fixture(scope="session")
def honest() -> Exchange:
    """Read only: shared by all tests of a run."""
    return Exchange()
