"""The asyncio driver: the same commands, the same order, without blocking the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

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
    content_type,
    http_client,
    request_headers,
    too_long,
    unreachable,
)

if TYPE_CHECKING:
    from .events import Event
    from .state import TrustState


class AsyncDriver:
    """Runs steps for one gateway.

    Args:
        where: the gateway.
        state: where log heads are remembered.
        transport: httpx2 transport to use instead of a pooled HTTP one.

    Raises:
        ConfigError: the environment's proxies or roots cannot be used.
    """

    def __init__(
        self, where: Endpoint, state: TrustState, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._where = where
        self._state = state
        self._http = http_client(httpx2.AsyncClient, where, transport)
        self._lock = asyncio.Lock()

    async def run(self, steps: Steps[Result]) -> AsyncGenerator[Event, None]:
        """Perform `steps`, yielding what they emit; closing this closes their connection."""
        reply = _OpenReply()
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    step = steps.send(value) if error is None else steps.throw(error)
                except StopIteration:
                    return
                value = error = None
                if isinstance(step, Emit):
                    yield step.event
                    continue
                try:
                    value = await self._perform(step, reply)
                except Exception as failure:  # goes into the steps, which decide
                    error = failure
        finally:
            steps.close()
            await reply.close()

    async def call(self, steps: Steps[Result]) -> Result:
        """Perform steps that emit nothing; returns their result."""
        result: list[Result] = []
        async for _ in self.run(_keep(steps, result)):
            raise AssertionError("steps that emit nothing expected")
        return result[0]

    async def exclusive(self, steps: Steps[Result]) -> Result:
        """Perform steps while no other exchange changes what is remembered."""
        async with self._lock:
            return await self.call(steps)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _perform(self, command: Command, reply: _OpenReply) -> Any:
        match command:
            case Fetch():
                return await self._fetch(command)
            case Send():
                await reply.close()
                return await self._send(command, reply)
            case Read():
                return await reply.read()
            case Shorten():
                reply.shorten(command.whole_s)
            case Close():
                await reply.close()
            case Pause():
                await asyncio.sleep(command.seconds)
            case Exclusive():
                return await self.exclusive(command.steps)
            case Recall():
                return await asyncio.to_thread(self._state.read, command.origin)
            case Remember():
                return await asyncio.to_thread(
                    self._state.advance, command.origin, command.expected, command.new
                )
        return None

    async def _fetch(self, command: Fetch) -> Reply:
        try:
            async with asyncio.timeout(command.whole_s):
                return await self._whole(command)
        except (httpx2.TransportError, TimeoutError) as error:
            raise unreachable(self._where, error) from error

    async def _whole(self, command: Fetch) -> Reply:
        response = await self._open(command)
        try:
            body = b""
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > command.limit:
                    raise too_long(command.limit)
            return Reply(response.status_code, content_type(response), body)
        finally:
            await response.aclose()

    async def _send(self, command: Send, reply: _OpenReply) -> Opened:
        now, whole_s = asyncio.get_running_loop().time(), command.whole_s
        reply.ends = None if whole_s is None else now + whole_s
        begins = now + command.begins_s
        try:
            async with asyncio.timeout_at(
                begins if reply.ends is None else min(begins, reply.ends)
            ):
                response = await self._open(command)
        except TimeoutError as error:
            raise unreachable(self._where, error) from error
        reply.response, reply.chunks = response, response.aiter_raw()
        return Opened(response.status_code, content_type(response))

    async def _open(self, command: Fetch | Send) -> httpx2.Response:
        method = command.method if isinstance(command, Fetch) else "POST"
        headers = request_headers(command)
        for pause in (*self._where.pauses, None):
            request = self._http.build_request(
                method, command.path, content=command.body or None, headers=headers
            )
            try:
                return await self._http.send(request, stream=True)
            except httpx2.ConnectError as error:
                if pause is None:
                    raise unreachable(self._where, error) from error
                await asyncio.sleep(pause)
            except httpx2.TransportError as error:
                raise unreachable(self._where, error) from error
        raise AssertionError("the last attempt returns or raises")


def _keep(steps: Steps[Result], result: list[Result]) -> Steps[None]:
    """Put the steps' result where the caller finds it: an async generator cannot return one."""
    result.append((yield from steps))


class _OpenReply:
    """The reply being read, if any; `ends` is the loop's time of its end, if it has one."""

    __slots__ = ("chunks", "ends", "response")

    def __init__(self) -> None:
        self.ends: float | None = None
        self.response: httpx2.Response | None = None
        self.chunks: AsyncIterator[bytes] | None = None

    def shorten(self, whole_s: float) -> None:
        """Have it end so many seconds from now, unless it ends sooner."""
        ends = asyncio.get_running_loop().time() + whole_s
        self.ends = ends if self.ends is None else min(self.ends, ends)

    async def read(self) -> bytes:
        """Next bytes; empty at the end."""
        if self.chunks is None:
            return b""
        try:
            async with asyncio.timeout_at(self.ends):
                async for chunk in self.chunks:
                    if chunk:
                        return chunk
        except (httpx2.TransportError, TimeoutError) as error:
            raise StreamTruncated(
                f"the connection broke before the authenticated end ({type(error).__name__})",
                hint="what was delivered is incomplete; send the request again",
            ) from error
        return b""

    async def close(self) -> None:
        """Drop the reply."""
        response, chunks = self.response, self.chunks
        self.response = self.chunks = None
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
        if response is not None:
            await response.aclose()
