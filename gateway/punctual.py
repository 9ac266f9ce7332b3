"""HTTP/1.1 with a deadline for request headers and one for taking an answer.

The server library bounds the pause between requests, not the time headers take, nor how long an
answer may lie unread, so that one slow peer a connection could hold as many connections as the
system has. Bad HTTP is answered with a problem document like everything else.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from .errors import Fault, Refusal
from .line import Line
from .seats import Seat

#: How long a tenant may take not one byte of what waits for it. More than `response_buffer_bytes`
#: ends its stream at once; what is less would wait for ever for a machine that is gone.
TENANT_UNREAD_S = 600.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a server demands of connections.

    Attributes:
        deadline_s: how long headers may take.
        unread_s: how long a stranger may take not one byte of what waits for it.
        known: whether an Authorization header is a tenant's.
        line: where requests of others wait.
    """

    deadline_s: float
    unread_s: float
    known: Callable[[str | None], bool]
    line: Line


class PunctualProtocol(H11Protocol):
    """One connection, in its place."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        terms: Terms,
        seat: Seat,
    ) -> None:
        """Wait for the connection to be made."""
        super().__init__(config, server_state, app_state)
        self.terms = terms
        self.seat = seat
        self.deadline: asyncio.TimerHandle | None = None
        self.judged: RequestResponseCycle | None = None
        self.turn: asyncio.Future[bool] | None = None
        self.served = self.app
        self.app = self.serve

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """The application's answer: to a tenant at once, to a stranger in its turn."""
        if self.seat.known:
            await self.served(scope, receive, send)
            return
        line, turn = self.terms.line, self.terms.line.ask()
        self.turn = turn

        async def answer(message: Any) -> None:
            line.give_back(turn)  # what is left is its own to take, however slowly
            await send(message)

        try:
            if await turn:
                await self.served(scope, receive, answer)
        finally:
            line.give_back(turn)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[explicit-override, override]
        super().connection_made(transport)
        self.seat.end = transport.abort
        self.seat.unsent = partial(unsent, transport)
        self.allow_unread(self.terms.unread_s)
        self.expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[explicit-override]
        self.seat.leave()
        if self.turn is not None:
            self.terms.line.give_up(self.turn)
        self.forget_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:  # type: ignore[explicit-override]
        super().pause_writing()
        self.seat.owe()

    def data_received(self, data: bytes) -> None:  # type: ignore[explicit-override]
        super().data_received(data)
        if self.between_requests():
            self.expect_headers()
        else:
            self.forget_deadline()

    def handle_events(self) -> None:  # type: ignore[explicit-override]
        super().handle_events()
        if self.cycle is not self.judged:
            self.judged = self.cycle
            self.judge()

    def judge(self) -> None:
        """See whose the request is that just began."""
        texts = (value for name, value in self.headers if name == b"authorization")
        first = next(texts, None)
        if first is None or not self.terms.known(first.decode("latin-1")):
            return
        if not self.seat.known:
            self.allow_unread(TENANT_UNREAD_S)
        self.seat.ask()

    def on_response_complete(self) -> None:  # type: ignore[explicit-override]
        self.seat.rest()
        super().on_response_complete()  # which may begin what was sent meanwhile

    def allow_unread(self, seconds: float) -> None:
        """Have the kernel end the connection when no byte was taken for so long.

        It also does for one that is closed and cannot be, since bytes are left.
        """
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        sock = self.transport.get_extra_info("socket")
        if option is not None:
            with suppress(OSError):  # it ended meanwhile
                sock.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))

    def between_requests(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def expect_headers(self) -> None:
        if self.deadline is None:
            self.deadline = self.loop.call_later(self.terms.deadline_s, self.too_late)

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


def unsent(transport: asyncio.Transport) -> int:
    """Bytes written that the connection has not taken; under TLS, ciphertext as well."""
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    plain = transport.get_write_buffer_size()
    return plain if below is None else plain + int(below.get_write_buffer_size())
