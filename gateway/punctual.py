"""HTTP/1.1 with a deadline for request headers: a connection that dawdles is closed.

The server library bounds the pause between requests, not the time headers take, so that one slow
peer a connection could hold as many connections as the system has. Bad HTTP is answered with a
problem document like everything else.
"""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from .errors import Fault, Refusal


def punctual_protocol(deadline_s: float) -> type[H11Protocol]:
    """The protocol class for one server; `deadline_s` is how long headers may take."""

    class PunctualProtocol(H11Protocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self.deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[explicit-override, override]
            super().connection_made(transport)
            self.expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[explicit-override]
            self.forget_deadline()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:  # type: ignore[explicit-override]
            super().data_received(data)
            if self.between_requests():
                self.expect_headers()
            else:
                self.forget_deadline()

        def between_requests(self) -> bool:
            cycle: RequestResponseCycle | None = self.cycle
            return cycle is None or cycle.response_complete

        def expect_headers(self) -> None:
            if self.deadline is None:
                self.deadline = self.loop.call_later(deadline_s, self.too_late)

        def forget_deadline(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

        def too_late(self) -> None:
            self.deadline = None
            if self.between_requests():
                self.transport.close()

        def send_400_response(self, msg: str) -> None:  # type: ignore[explicit-override]
            del msg  # the library's words; ours are a closed list
            if self.between_requests():
                refusal = Refusal(Fault.BAD_REQUEST)
                body = refusal.body()
                fields = {**refusal.headers(), "content-length": len(body), "connection": "close"}
                lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{lines}\r\n".encode() + body)
            self.transport.close()

    return PunctualProtocol
