"""A whole service on loopback: real gateway process, real sandboxed workers, real engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.models import tiny_llama
from simulators.whole_service import running

from ops.stack import Stack


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", hidden=64, layers=2)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Stack]:
    """Two workers behind one gateway, shared by the tests that do not break it."""
    with running(tmp_path_factory.mktemp("s"), tiny_model, workers=2) as started:
        yield started
