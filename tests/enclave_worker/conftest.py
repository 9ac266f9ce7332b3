"""A real sandboxed worker, started once per module, and a peer that plays the gateway."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.link_peer import LinkPeer
from simulators.models import tiny_llama

from enclave_worker.launch import Launcher
from enclave_worker.launcher_config import LauncherConfig

POLICY = b'{"v":1,"id":"tests","retention":"none"}'
ENGINE = {"dtype": "float32", "threads": 1, "kv_pages": 2048, "max_len": 1024, "max_batch": 32}


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def launcher_config(model_dir: Path, tmp_path: Path) -> LauncherConfig:
    return LauncherConfig(
        model_dir=model_dir,
        model_name="tiny",
        aud="tests",
        gateway_socket=tmp_path / "worker.sock",
        state_dir=tmp_path / "state",
        service_policy=POLICY,
        engine=ENGINE,
        restart=False,
        log=tmp_path / "worker.log",
    )


class Bed:
    """One worker and the peer it is connected to."""

    def __init__(self, config: LauncherConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.states: list[tuple[str, dict[str, Any]]] = []
        self.launcher = Launcher(config, on_state=lambda s, f: self.states.append((s, dict(f))))
        self.peer: LinkPeer

    async def up(self) -> None:
        self.peer = LinkPeer(self.config.gateway_socket, self.folder / "log.db")
        await self.peer.start()
        await asyncio.to_thread(self.launcher.start)
        await self.peer.admitted()

    async def down(self) -> None:
        await asyncio.to_thread(self.launcher.stop)
        await self.peer.close()
        assert not self.peer.failures

    @property
    def journal(self) -> str:
        assert self.config.log is not None
        return self.config.log.read_text()


@contextlib.asynccontextmanager
async def bed(config: LauncherConfig, folder: Path, **changes: Any) -> AsyncIterator[Bed]:
    made = Bed(replace(config, **changes), folder)
    await made.up()
    try:
        yield made
    finally:
        await made.down()


@pytest.fixture
def make_bed(launcher_config: LauncherConfig, tmp_path: Path) -> Iterator[Any]:
    """A function that brings a worker up with changed settings: `async with make_bed(…) as bed`."""

    def make(**changes: Any) -> contextlib.AbstractAsyncContextManager[Bed]:
        return bed(launcher_config, tmp_path, **changes)

    return make


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def worker(
    anyio_backend: str, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bed]:
    """One worker shared by a module's tests; they must not end it."""
    folder = tmp_path_factory.mktemp("shared")
    config = LauncherConfig(
        model_dir=model_dir,
        model_name="tiny",
        aud="tests",
        gateway_socket=folder / "worker.sock",
        state_dir=folder / "state",
        service_policy=POLICY,
        engine=ENGINE,
        require_pq=False,
        restart=False,
        log=folder / "worker.log",
    )
    async with bed(config, folder) as made:
        yield made
