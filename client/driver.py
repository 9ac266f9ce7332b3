"""The synchronous driver: performs commands over httpx2; threads may share it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, cast

import httpx2

from wire.errors import StreamTruncated

from .commands import (
    Close,
    Command,
    Emit,
    Exclusive,
    Fetch,
    Opened,
    Pause,
    Read,
    Recall,
    Remember,
    Reply,
    Result,
    Send,
    Shorten,
    Steps,
)
from .http import (
    Endpoint,
    TimeLeft,
    content_type,
    http_client,
    request_extensions,
    request_headers,
    time_left,
    too_long,
    unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .events import Event
    from .state import TrustState


class Driver:
    """Runs steps for one gateway.

    Args:
        where: the gateway.
        state: where log heads are remembered.
        transport: httpx2 transport to use instead of a pooled HTTP one.

    Raises:
        ConfigError: the environment's proxies or roots cannot be used.
    """

    def __init__(
        self, where: Endpoint, state: TrustState, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self._where = where
        self._state = state
        self._http = http_client(httpx2.Client, where, transport)
        self._lock = threading.RLock()

    def run(self, steps: Steps[Result]) -> Generator[Event, None, Result]:
        """Perform `steps`, yielding what they emit; closing this closes their connection."""
        reply = _OpenReply()
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    step = steps.send(value) if error is None else steps.throw(error)
                except StopIteration as done:
                    return cast("Result", done.value)
                value = error = None
                if isinstance(step, Emit):
                    yield step.event
                    continue
                try:
                    value = self._perform(step, reply)
                except Exception as failure:  # goes into the steps, which decide
                    error = failure
        finally:
            steps.close()
            reply.close()

    def call(self, steps: Steps[Result]) -> Result:
        """Perform steps that emit nothing; returns their result."""
        running = self.run(steps)
        try:
            next(running)
        except StopIteration as done:
            return cast("Result", done.value)
        raise AssertionError("steps that emit nothing expected")

    def exclusive(self, steps: Steps[Result]) -> Result:
        """Perform steps while no other exchange changes what is remembered."""
        with self._lock:
            return self.call(steps)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _perform(self, command: Command, reply: _OpenReply) -> Any:
        match command:
            case Fetch():
                return self._fetch(command)
            case Send():
                reply.close()
                left = time_left(self._where, command)
                response = self._open(command, left)
                left.begun()
                reply.response, reply.chunks, reply.left = response, response.iter_raw(), left
                return Opened(response.status_code, content_type(response))
            case Read():
                return reply.read()
            case Shorten():
                reply.shorten(command.whole_s)
            case Close():
                reply.close()
            case Pause():
                time.sleep(command.seconds)
            case Exclusive():
                return self.exclusive(command.steps)
            case Recall():
                return self._state.read(command.origin)
            case Remember():
                return self._state.advance(command.origin, command.expected, command.new)
        return None

    def _fetch(self, command: Fetch) -> Reply:
        response = self._open(command, time_left(self._where, command))
        try:
            body = b""
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > command.limit:
                    raise too_long(command.limit)
            return Reply(response.status_code, content_type(response), body)
        except httpx2.TransportError as error:
            raise unreachable(self._where, error) from error
        finally:
            response.close()

    def _open(self, command: Fetch | Send, left: TimeLeft) -> httpx2.Response:
        method = command.method if isinstance(command, Fetch) else "POST"
        headers = request_headers(command)
        extensions = request_extensions(self._where, left)
        for pause in (*self._where.pauses, None):
            request = self._http.build_request(
                method,
                command.path,
                content=command.body or None,
                headers=headers,
                extensions=extensions,
            )
            try:
                return self._http.send(request, stream=True)
            except httpx2.ConnectError as error:
                if pause is None:
                    raise unreachable(self._where, error) from error
                time.sleep(pause)
            except httpx2.TransportError as error:
                raise unreachable(self._where, error) from error
        raise AssertionError("the last attempt returns or raises")


class _OpenReply:
    """The reply being read, if any; `left` is the time that its request and it may take."""

    __slots__ = ("chunks", "left", "response")

    def __init__(self) -> None:
        self.response: httpx2.Response | None = None
        self.chunks: Iterator[bytes] = iter(())
        self.left: TimeLeft | None = None

    def shorten(self, whole_s: float) -> None:
        """Have it end so many seconds from now, unless it ends sooner."""
        if self.left is not None:
            self.left.shorten(whole_s)

    def read(self) -> bytes:
        """Next bytes; empty at the end."""
        try:
            return next((chunk for chunk in self.chunks if chunk), b"")
        except httpx2.TransportError as error:
            raise StreamTruncated(
                f"the connection broke before the authenticated end ({type(error).__name__})",
                hint="what was delivered is incomplete; send the request again",
            ) from error

    def close(self) -> None:
        """Drop the reply."""
        if self.response is not None:
            self.response.close()
        self.response, self.chunks, self.left = None, iter(()), None
