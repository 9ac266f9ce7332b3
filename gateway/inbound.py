"""What a link reads: which messages may come, how large, and where the large ones are parsed.

Until a worker is admitted these are HELLO and short answers, and what it has sent counts among what
strangers may hold. Evidence is parsed in a thread, in turns that processes share: an event loop
that parsed what anybody sends would serve nobody else meanwhile.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from wire.link import FROM_STRANGERS, FROM_WORKERS, HELLO, Decoder, Message

from .strangers import Stranger, Strangers
from .turns import Turns

#: Messages from a worker are responses in pieces and evidence; jobs, the large ones, go out only.
INBOUND_MAX = 16 * 1024 * 1024
#: From HELLO's first byte to its last. How long a worker attests before the first is not ours to
#: hurry.
HELLO_S = 10.0
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Inbound:
    """The reading half of one link.

    Args:
        stranger: the link among those that are not admitted.
        strangers: all of these.
        own: places in which the messages of admitted workers are parsed.
    """

    stranger: Stranger
    strangers: Strangers
    own: Turns
    _admitted: bool = False
    _said: int = 0
    _whole: asyncio.TimerHandle | None = None
    _decoder: Decoder = field(default_factory=lambda: Decoder(INBOUND_MAX, FROM_STRANGERS))

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that a chunk completes.

        Raises:
            MalformedError: one that cannot be, or may not come now; the link is closed.
        """
        found = self._decoder.feed(chunk)
        if not self._admitted:
            self._count(found)
        return found

    async def read(self, work: Callable[[], T]) -> T:
        """Parse something in a thread, when its turn comes."""
        turns = self.own if self._admitted else self.strangers.reading
        return await turns.run(self.stranger.asker, lambda: asyncio.to_thread(work))

    def admitted(self) -> None:
        """From now on it may send what workers send."""
        self._admitted = True
        self._decoder.expected = FROM_WORKERS
        self._leave()

    def close(self) -> None:
        """The link has ended: what it held is let go now, not when garbage is collected."""
        self._leave()
        self._decoder = Decoder(INBOUND_MAX, {})
        self.stranger.end = _ended

    def _leave(self) -> None:
        self.strangers.leave(self.stranger)
        if self._whole is not None:
            self._whole.cancel()

    def _count(self, found: list[Message]) -> None:
        """What it has sent is kept until it is judged."""
        for message in found:
            if message.type == HELLO:
                self.stranger.said = True
                self._said += len(message.body)
        if self.stranger.said:
            if self._whole is not None:
                self._whole.cancel()
        elif self._whole is None:
            loop = asyncio.get_running_loop()
            self._whole = loop.call_later(HELLO_S, self.stranger.end, "expired")
        self.strangers.holds(self.stranger, self._said + self._decoder.held)


def _ended(_cause: str) -> None:
    """What is left to end of a link that has ended."""
