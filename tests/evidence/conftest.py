"""Fixtures of the evidence tests: official vectors, a log, and one honest exchange."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.exchange import Exchange
from simulators.log import SimulatedLog
from simulators.written_log import KEY, ORIGIN

from evidence.sequencer import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    """Opens the log of this test; closes whatever is still open at the end."""
    logs: list[Log] = []

    def open_log(**options: Any) -> Log:
        log = Log.open(tmp_path / "log.db", ORIGIN, KEY, **options)
        logs.append(log)
        return log

    yield open_log
    for log in logs:
        log.close()
