"""A queue of outgoing records, cut into frames of any capacity.

Text and DATA may be split between frames, and neighbouring text of one choice merged, so a frame
boundary says nothing about where a token ended. HEAD, RECEIPT and ERROR are never split.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from .limits import FRAME_PT_MAX
from .padding import request_size
from .records import DATA, PLACES, RECORD_HEAD, TOKENS, Record, TokenDelta

_RUNE_MAX = 4  # bytes of the longest UTF-8 character
_MERGE_MAX: Final = 32_768  # characters; keeps a merged text under the u16 length


class RecordQueue:
    """Records waiting for a frame.

    Args:
        capacity: smallest frame that will be asked for; a record that can never fit is refused
            when it is pushed.

    Attributes:
        deltas: token deltas pushed since the queue was last empty.
        others: other records pushed since then.
    """

    __slots__ = ("_capacity", "_items", "deltas", "others")

    def __init__(self, capacity: int = FRAME_PT_MAX) -> None:
        self._items: deque[Record | TokenDelta] = deque()
        self._capacity = capacity
        self.deltas = 0
        self.others = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    def push(self, item: Record | TokenDelta) -> None:
        """Add a record, or a token delta that may be merged and split.

        Raises:
            ValueError: it cannot be split and is larger than a frame.
        """
        if isinstance(item, Record) and item.type == TOKENS:
            item = TokenDelta.decode(item.data)
        if isinstance(item, TokenDelta):
            self._push_delta(item)
            return
        if item.type != DATA and item.size > self._capacity:
            raise ValueError(f"record {item.type.name}: {item.size} bytes in {self._capacity}")
        if item.type == DATA:  # cut once here, so that taking from a long body stays linear
            view = memoryview(item.data)
            step = FRAME_PT_MAX - RECORD_HEAD
            self._items += (
                Record(DATA, bytes(view[i : i + step])) for i in range(0, len(view), step)
            )
        else:
            self._items.append(item)
        self.others += 1

    def _push_delta(self, delta: TokenDelta) -> None:
        bare = TokenDelta("", delta.tail).record()
        if bare.size + _RUNE_MAX > self._capacity:
            raise ValueError(f"token tail: {bare.size} bytes in {self._capacity}")
        last = self._items[-1] if self._items else None
        if (
            isinstance(last, TokenDelta)
            and last.tail == _choice(delta.tail)
            and len(last.text) + len(delta.text) <= _MERGE_MAX
        ):
            self._items[-1] = TokenDelta(last.text + delta.text, delta.tail)
        else:
            self._items.append(delta)
        self.deltas += 1

    def take(self, room: int) -> list[Record]:
        """The next records that fit `room` bytes, in order; the last may be part of one."""
        taken: list[Record] = []
        while self._items:
            item = self._items.popleft()
            record = item.record() if isinstance(item, TokenDelta) else item
            if record.size <= room:
                taken.append(record)
                room -= record.size
                continue
            piece, rest = _split(item, room)
            if piece is not None:
                taken.append(piece)
            self._items.appendleft(rest)
            return taken
        self.deltas = self.others = 0
        return taken


def paginate(queue: RecordQueue) -> list[tuple[tuple[Record, ...], int]]:
    """Everything in `queue` as frames of a padded whole: records and plaintext size of each.

    Full frames and a shorter last one: the sizes follow from the padded total alone.
    """
    frames: list[tuple[Record, ...]] = []
    while queue:
        frames.append(tuple(queue.take(FRAME_PT_MAX)))
    used = sum(record.size for record in frames[-1]) if frames else 0
    total = request_size(max(0, len(frames) - 1) * FRAME_PT_MAX + used)
    count = -(-total // FRAME_PT_MAX)
    frames += [()] * (count - len(frames))
    sizes = [FRAME_PT_MAX] * (count - 1) + [total - (count - 1) * FRAME_PT_MAX]
    return list(zip(frames, sizes, strict=True))


def _choice(tail: dict[str, Any]) -> dict[str, Any]:
    """The part of a tail that every piece of its text repeats: what the text belongs to."""
    return {name: tail[name] for name in PLACES if name in tail}


def _split(item: Record | TokenDelta, room: int) -> tuple[Record | None, Record | TokenDelta]:
    """As much of `item` as fits `room`, and the rest."""
    return _split_text(item, room) if isinstance(item, TokenDelta) else _split_data(item, room)


def _split_text(delta: TokenDelta, room: int) -> tuple[Record | None, TokenDelta]:
    text = delta.text.encode("utf-8")
    tail = _choice(delta.tail)
    cut = min(room - TokenDelta("", tail).record().size, len(text))
    while 0 < cut < len(text) and text[cut] & 0xC0 == 0x80:  # inside a character
        cut -= 1
    if cut <= 0:
        return None, delta
    piece = TokenDelta(text[:cut].decode("utf-8"), tail).record()
    return piece, TokenDelta(text[cut:].decode("utf-8"), delta.tail)


def _split_data(record: Record, room: int) -> tuple[Record | None, Record]:
    cut = room - RECORD_HEAD
    if record.type != DATA or cut <= 0:
        return None, record
    return Record(DATA, record.data[:cut]), Record(DATA, record.data[cut:])
