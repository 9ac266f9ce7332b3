"""Serves an ASGI application on a loopback port from a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import uvicorn

if TYPE_CHECKING:
    from pathlib import Path


class _Server(uvicorn.Server):
    """Ends when it is told to, where the library looks ten times a second and then rests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: asyncio.Event

    def end(self) -> None:
        """Stop serving; from any thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # type: ignore[explicit-override]
        self._told = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:  # type: ignore[explicit-override]
        await self.on_tick(0)
        await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # type: ignore[explicit-override]
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        while (state.connections or state.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        for task in list(state.tasks):
            task.cancel("the loopback server ends")


class Loopback:
    """A running server; use as a context manager.

    Attributes:
        url: where it listens; with `uds` there is no port, and the URL names no real host.
    """

    def __init__(self, app: Any, *, port: int = 0, uds: Path | None = None) -> None:
        if uds is None:
            # proto is named: asyncio turns Nagle off only on sockets that say they are TCP
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", port))
            self.port = self._socket.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(uds))
            self.port, self.url = 0, "http://localhost"
        # As the gateway does: longer than clients keep connections, so that it is they who close.
        config = uvicorn.Config(
            app,
            log_level="critical",
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=75,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the loopback server did not start"
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()
        self._thread.join(10)
        self._socket.close()
