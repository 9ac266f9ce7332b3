"""A whole service on loopback: real gateway process, real sandboxed workers, real engine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simulators.models import tiny_llama

from ops.deployment import create
from ops.stack import Stack, StackConfig

MODEL = "tiny"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", hidden=64, layers=2)


@contextmanager
def running(root: Path, model: Path, **settings: Any) -> Iterator[Stack]:
    """Start a stack in `root`; `settings` are members of StackConfig."""
    deployment = create(root / "d", aud="e2e", now=int(time.time()))
    engine = {"dtype": "float32", "threads": 1} | settings.pop("engine", {})
    config = StackConfig(
        deployment=deployment, model_dir=model, model_name=MODEL, engine=engine, **settings
    )
    with Stack(config) as stack:
        yield stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Stack]:
    """Two workers behind one gateway, shared by the tests that do not break it."""
    with running(tmp_path_factory.mktemp("s"), tiny_model, workers=2) as started:
        yield started
