"""Serves an ASGI application on a loopback port from a thread of this process."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import uvicorn

if TYPE_CHECKING:
    from pathlib import Path


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
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the loopback server did not start"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
