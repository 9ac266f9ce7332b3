"""Traffic shaping: which records go into which frame, how large, and when.

An observer who cannot open frames still sees their number, sizes and times; under plain streaming
these give away topics and whole sentences. A shaper turns "what" and "when it was ready" into
sizes and times that depend only on the profile and on a coarse length bucket:

    cadence   one 256-byte frame every 100 ms, content or not, up to a Padmé frame count
    bucket    frames of whole 256-byte steps after 8 tokens or 100 ms: times still leak
    off       a frame whenever something is ready: everything leaks; for tests

Replies that are not streamed are one body padded to a Padmé size, on a 250 ms grid under cadence.
Under cadence and bucket the FINAL frame has one fixed size whether or not it holds the receipt.

A shaper is a pure state machine: `now` is any monotonic clock in seconds, given by the caller, and
nothing here waits. Spec §8.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from .limits import FRAME_PT_MAX
from .packing import RecordQueue, paginate
from .padding import padme
from .records import HEAD, RECEIPT, TOKENS, Record, TokenDelta

if TYPE_CHECKING:
    from collections.abc import Callable

    from .header import Pad

FRAME_SIZE: Final = 256  # plaintext bytes; 276 on the wire
TICK_S: Final = 0.1
GRID_S: Final = 0.25  # of replies that are not streamed
FINAL_SIZE: Final = 8192  # holds a receipt with its log proof; larger receipts take whole steps
BUCKET_TOKENS: Final = 8
# Grid points are computed, not added up: this only absorbs the rounding of one multiplication.
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class FramePlan:
    """One frame to seal now: its records, plaintext size (None: unpadded), whether it is last."""

    records: tuple[Record, ...] = field(repr=False)
    size: int | None
    final: bool = False


class Shaper(Protocol):
    """What every profile does."""

    @property
    def done(self) -> bool:
        """Whether the final frame was planned."""

    def push(self, item: Record | TokenDelta) -> None:
        """Queue a record; HEAD first, at once, for the clock shows nothing before it."""

    def close(self, receipt: Record | None) -> None:
        """No more content. The final frame, when it is due, holds the receipt."""

    def settle(self) -> list[FramePlan]:
        """Frames that may be sealed before their moment, which `due` then leaves out.

        A reply that is not streamed is known as a whole before its receipt is signed, so the
        receipt can name its frames. The frames of a stream belong to moments: none.
        """

    def due(self, now: float) -> list[FramePlan]:
        """Frames to send at `now`."""

    def next_at(self, now: float) -> float | None:
        """When to call `due` next; None while only a `push` or `close` can make anything due."""


class _Stream:
    """What the profiles share: the queue, the receipt, the end."""

    __slots__ = ("_closed", "_done", "_opened", "_queue", "_receipt")

    def __init__(self, capacity: int) -> None:
        self._queue = RecordQueue(capacity)
        self._receipt: tuple[Record, ...] = ()
        self._opened = False
        self._closed = False
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    def push(self, item: Record | TokenDelta) -> None:
        if self._closed:
            raise RuntimeError("shaper: pushed after close")
        kind = TOKENS if isinstance(item, TokenDelta) else item.type
        if kind == RECEIPT:
            raise ValueError("shaper: a receipt is given to close")
        if self._opened is (kind == HEAD):
            raise ValueError("shaper: HEAD comes first, and once")
        self._queue.push(item)
        self._opened = True

    def close(self, receipt: Record | None) -> None:
        if self._closed or not self._opened:
            raise RuntimeError("shaper: closed once, after HEAD")
        if receipt is not None:
            if receipt.type != RECEIPT or receipt.size > FRAME_PT_MAX:
                raise ValueError(f"shaper: expected a RECEIPT of at most {FRAME_PT_MAX} bytes")
            self._receipt = (receipt,)
        self._closed = True

    def settle(self) -> list[FramePlan]:
        return []

    def _final(self, padded: bool = True) -> FramePlan:
        self._done = True
        size = sum(record.size for record in self._receipt)
        steps = max(1, -(-size // FINAL_SIZE))
        return FramePlan(self._receipt, steps * FINAL_SIZE if padded else None, final=True)


class CadenceShaper(_Stream):
    """One frame a tick from `start` on, whatever there is to say.

    Args:
        start: when frame 0 is due; when the request was opened, so that neither a cache hit nor
            the length of the prompt moves it.
    """

    __slots__ = ("_count", "_start", "_target")

    def __init__(self, start: float) -> None:
        super().__init__(FRAME_SIZE)
        self._start = start
        self._count = 0  # frames planned
        self._target: int | None = None  # number of the final frame, once content has ended

    def due(self, now: float) -> list[FramePlan]:
        plans: list[FramePlan] = []
        if self._count == 0 and not self._queue:
            return plans  # frame 0 begins with HEAD
        while not self._done and self._tick() <= now + _EPSILON:
            plans.append(self._plan())
            self._count += 1
        return plans

    def _plan(self) -> FramePlan:
        if self._target is None and self._closed and not self._queue:
            self._target = padme(self._count + 1)
        if self._target is not None and self._count + 1 >= self._target:
            return self._final()
        return FramePlan(tuple(self._queue.take(FRAME_SIZE)), FRAME_SIZE)

    def _tick(self) -> float:
        return self._start + self._count * TICK_S

    def next_at(self, now: float) -> float | None:
        if self._done or (self._count == 0 and not self._queue):
            return None
        return max(now, self._tick())


class BucketShaper(_Stream):
    """Frames of whole 256-byte steps, after 8 tokens or 100 ms; sizes blur, times leak."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        super().__init__(FRAME_PT_MAX)
        self._since: float | None = None  # first `due` that saw the waiting text

    def due(self, now: float) -> list[FramePlan]:
        plans: list[FramePlan] = []
        if self._queue and self._since is None:
            self._since = now
        if self._queue and (self._ripe() or self._at() <= now + _EPSILON):
            while self._queue:
                records = tuple(self._queue.take(FRAME_PT_MAX))
                size = sum(record.size for record in records)
                plans.append(FramePlan(records, -(-size // FRAME_SIZE) * FRAME_SIZE))
            self._since = None
        if self._closed and not self._done:
            plans.append(self._final())
        return plans

    def _ripe(self) -> bool:
        waiting = self._queue
        return self._closed or waiting.others > 0 or waiting.deltas >= BUCKET_TOKENS

    def _at(self) -> float:
        return math.inf if self._since is None else self._since + TICK_S

    def next_at(self, now: float) -> float | None:
        if self._done or not (self._queue or self._closed):
            return None
        if self._ripe() or self._since is None:
            return now
        return max(now, self._at())


class OpenShaper(_Stream):
    """No shaping: every record as soon as it is there. For tests and measurements."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(FRAME_PT_MAX)

    def due(self, now: float) -> list[FramePlan]:
        del now
        plans: list[FramePlan] = []
        while self._queue:
            plans.append(FramePlan(tuple(self._queue.take(FRAME_PT_MAX)), None))
        if self._closed and not self._done:
            plans.append(self._final(padded=False))
        return plans

    def next_at(self, now: float) -> float | None:
        return now if not self._done and (self._queue or self._closed) else None


class BodyShaper(_Stream):
    """A reply that is not streamed: everything at once, after `close`.

    Args:
        start: origin of the grid.
        grid: seconds between moments at which the reply may go; 0 for at once.
        padded: whether its size is padded.
    """

    __slots__ = ("_at", "_grid", "_padded", "_start")

    def __init__(self, start: float, grid: float = GRID_S, padded: bool = True) -> None:
        super().__init__(FRAME_PT_MAX)
        self._start = start
        self._grid = grid
        self._padded = padded
        self._at: float | None = None

    def due(self, now: float) -> list[FramePlan]:
        at = self.next_at(now)
        if at is None or at > now + _EPSILON:
            return []
        return [*self.settle(), self._final(self._padded)]

    def settle(self) -> list[FramePlan]:  # type: ignore[explicit-override]  # 3.12's
        plans: list[FramePlan] = []
        if self._padded and self._queue:
            return [FramePlan(records, size) for records, size in paginate(self._queue)]
        while self._queue:
            plans.append(FramePlan(tuple(self._queue.take(FRAME_PT_MAX)), None))
        return plans

    def next_at(self, now: float) -> float | None:
        if self._done or not self._closed:
            return None
        if self._at is None:  # fixed at the first look after the close: the grid never slides
            steps = math.ceil((now - self._start) / self._grid - _EPSILON) if self._grid else 0
            self._at = self._start + max(0, steps) * self._grid if self._grid else now
        return max(now, self._at)


def shaper_for(pad: Pad, *, stream: bool, start: float) -> Shaper:
    """The shaper of a request's profile.

    Args:
        pad: the header's profile.
        stream: the header's `stream`.
        start: monotonic seconds at which the request was opened.
    """
    if not stream:
        return BodyShaper(start, GRID_S if pad == "cadence" else 0.0, padded=pad != "off")
    by_profile: dict[str, Callable[[], Shaper]] = {
        "cadence": lambda: CadenceShaper(start),
        "bucket": BucketShaper,
        "off": OpenShaper,
    }
    return by_profile[pad]()
