"""The HTTP answer that carries a sealed response: raw bytes, as they come from the worker."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wire.response import CONTENT_TYPE

from .exchange import Exchange

HEADERS = {
    # Nothing between us and the client may keep, compress or rewrite a sealed stream.
    "cache-control": "no-store, no-transform",
    "content-type": CONTENT_TYPE,
    "incremental": "?1",
    "x-content-type-options": "nosniff",
}


async def watch_disconnect(receive: Receive) -> None:
    """Return when the client goes away. The request's body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def first_byte(request: Request, exchange: Exchange, cancel: Callable[[], None]) -> bool:
    """Wait for the first response byte, or for the client to leave.

    Returns:
        True when bytes are there; False when the client left and the request was cancelled.

    Raises:
        Refusal: there will be no response.
    """
    loop = asyncio.get_running_loop()
    first = loop.create_task(exchange.first())
    gone = loop.create_task(watch_disconnect(request.receive))
    try:
        await asyncio.wait({first, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            cancel()
            return False
        await first
    except asyncio.CancelledError:
        cancel()
        raise
    finally:
        first.cancel()
        gone.cancel()
        await asyncio.gather(first, gone, return_exceptions=True)
    return True


class SealedStream(Response):
    """Streams an exchange's bytes. An incomplete one is cut: the connection closes mid-body."""

    def __init__(self, exchange: Exchange, cancel: Callable[[], None]) -> None:
        """Answer 200 with the protocol's fixed headers."""
        super().__init__(status_code=200, headers=HEADERS)
        # A length would be computed from the empty body; the stream is chunked.
        del self.headers["content-length"]
        self._exchange = exchange
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[explicit-override]
        """Send until the end, the cut, or until the client leaves."""
        del scope
        loop = asyncio.get_running_loop()
        sender = loop.create_task(self._send(send))
        gone = loop.create_task(watch_disconnect(receive))
        try:
            await asyncio.wait({sender, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                await sender
            else:
                self._cancel()
        except asyncio.CancelledError:
            self._cancel()
            raise
        finally:
            sender.cancel()
            gone.cancel()
            await asyncio.gather(sender, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async for data in self._exchange.chunks():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if self._exchange.complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Not complete: returning without the last chunk makes the server close the connection, so
        # every client sees a broken transfer, and ours sees a stream without its final frame.
