"""One sealed response on its way: shaped frames on the clock, with back-pressure.

The engine thread feeds `put`, the event loop runs `run`. Frames go out when the shaper says so, not
when tokens happen to be ready; the receipt is obtained while the clock keeps ticking, so that
neither the engine's nor the log's timing shows outside. What waits behind a slow gateway is bounded
by the request's output class, and for how long by SEND_TIMEOUT_S.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from wire.envelope import OpenedRequest
from wire.records import ERROR, HEAD, RECEIPT, Record, TokenDelta, json_record
from wire.response import ResponseWriter
from wire.shaping import Shaper, shaper_for

# A gateway that reads nothing for this long is treated as gone.
SEND_TIMEOUT_S = 30.0

Send = Callable[[bytes], Awaitable[None]]


class Delivery:
    """Writes one response. All methods belong to the event loop's thread.

    Attributes:
        writer: seals the frames; also gives `salt_r` and the running ciphertext hash.
        begun: whether any byte was sent; from then on the reply can only be continued.
    """

    def __init__(
        self,
        opened: OpenedRequest,
        rng: Callable[[int], bytes],
        clock: Callable[[], float],
        send: Send,
    ) -> None:
        """Prepare; the clock of a cadence starts now, whatever the prompt will cost.

        Args:
            opened: the request.
            rng: random bytes.
            clock: monotonic seconds.
            send: writes response bytes towards the client, waiting while the gateway is slow.
        """
        self._opened = opened
        self._rng = rng
        self._start = clock()
        self._clock = clock
        self._send = send
        self._wake = asyncio.Event()
        self._inbox: deque[Record | TokenDelta] = deque()
        self._sealed = b""
        self._closing: tuple[Record | None] | None = None
        self._stopped = False
        self.begun = False
        self.writer, self._shaper = self._blank()

    def put(self, item: Record | TokenDelta) -> None:
        """Queue one record."""
        self._inbox.append(item)
        self._wake.set()

    def settle(self) -> None:
        """Seal the body of a plain reply, so that the receipt can name its frames.

        They are kept until the reply's moment, and until there is a receipt to go with them.
        """
        self._feed()
        self._sealed += self.writer.write(self._shaper.settle())

    def restart(self) -> None:
        """Forget everything put and sealed: another reply goes out in its place.

        It has keys of its own, so no two texts are ever sealed under one.
        """
        if self.begun:
            raise RuntimeError("delivery: restarted after its first byte")
        self._inbox.clear()
        self._sealed = b""
        self.writer, self._shaper = self._blank()

    def close(self, receipt: bytes | None) -> None:
        """End the response; `receipt` is the payload of the RECEIPT record, if there is one."""
        self._closing = (None if receipt is None else Record(RECEIPT, receipt),)
        self._wake.set()

    def fail(self, code: str, message: str) -> None:
        """End a response that has begun with an ERROR record and no receipt."""
        self.put(json_record(ERROR, {"code": code, "message": message}))
        self.close(None)

    def abandon(self) -> None:
        """Stop sending at once: nobody listens any more. The stream stays without its end."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> bool:
        """Send until the final frame; False if the response was abandoned before it.

        Raises:
            ConnectionError: the gateway is gone or has stopped reading.
        """
        while not self._stopped:
            self._wake.clear()
            self._feed()
            now = self._clock()
            plans = self._shaper.due(now)
            if plans:
                await self._emit(self.writer.write(plans))
            if self._shaper.done:
                return True
            if not self._inbox and self._closing is None:
                await self._sleep()
        return False

    def _blank(self) -> tuple[ResponseWriter, Shaper]:
        """A response of which nothing was written."""
        opened, header = self._opened, self._opened.header
        writer = ResponseWriter(
            opened.th, opened.kid, header.rid, opened.keys.rs, opened.r_kid, self._rng
        )
        return writer, shaper_for(header.pad, stream=header.stream, start=self._start)

    def _feed(self) -> None:
        """Hand everything queued to the shaper, and the end once nothing is left before it."""
        while self._inbox:
            self._shaper.push(self._inbox.popleft())
        if self._closing is not None:
            (receipt,) = self._closing
            self._closing = None
            self._shaper.close(receipt)

    async def _sleep(self) -> None:
        """Wait for the next record or for the shaper's next moment."""
        at = self._shaper.next_at(self._clock())
        if at is None:
            await self._wake.wait()
            return
        pause = at - self._clock()
        if pause > 0 and not self._wake.is_set():
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _emit(self, frames: bytes) -> None:
        data = self._sealed + frames
        self._sealed = b""
        if not self.begun:
            data = self.writer.prelude() + data
        self.begun = True
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(data)
        except TimeoutError:
            raise ConnectionError("gateway: stopped reading") from None


def head_record(document: dict[str, object]) -> Record:
    """Return the HEAD record of a logical response."""
    return json_record(HEAD, document)
