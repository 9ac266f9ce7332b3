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
        begun: whether any byte was sent, after which no other worker may answer.
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
        header = opened.header
        self.writer = ResponseWriter(
            opened.th, opened.kid, header.rid, opened.keys.rs, opened.r_kid, rng
        )
        self._shaper: Shaper = shaper_for(header.pad, stream=header.stream, start=clock())
        self._clock = clock
        self._send = send
        self._wake = asyncio.Event()
        self._inbox: deque[Record | TokenDelta] = deque()
        self._closing: tuple[Record | None] | None = None
        self._stopped = False
        self.begun = False

    def put(self, item: Record | TokenDelta) -> None:
        """Queue one record."""
        self._inbox.append(item)
        self._wake.set()

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
        data = frames if self.begun else self.writer.prelude() + frames
        self.begun = True
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(data)
        except TimeoutError:
            raise ConnectionError("gateway: stopped reading") from None


def head_record(document: dict[str, object]) -> Record:
    """Return the HEAD record of a logical response."""
    return json_record(HEAD, document)
