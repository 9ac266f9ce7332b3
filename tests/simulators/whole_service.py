"""A whole service on loopback, for tests: real gateway process, sandboxed workers, engine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.deployment import create
from ops.stack import Stack, StackConfig

MODEL = "tiny"


@contextmanager
def running(root: Path, model: Path, **settings: Any) -> Iterator[Stack]:
    """Start a stack in `root`; `settings` are members of StackConfig."""
    deployment = create(root / "d", aud="e2e", now=int(time.time()))  # noqa: TID251 - a real clock
    engine = {"dtype": "float32", "threads": 1} | settings.pop("engine", {})
    config = StackConfig(
        deployment=deployment, model_dir=model, model_name=MODEL, engine=engine, **settings
    )
    with Stack(config) as stack:
        yield stack
