"""What was found for pieces of evidence that were shown lately, in bounded memory.

Anyone may show the same evidence again and again. For a moment it costs one hash, and a look at the
files that the answer rests on.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from .found import Found

#: Longest use of what was found, in seconds.
MEMORY_S = 30
#: Pieces of evidence remembered, and bytes of what was found for them: a node of eight GPUs has two
#: MiB, and whoever has one admitted worker can show as many bindings of it as it likes.
MEMORY_MAX = 4096
MEMORY_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class FoundMemory:
    """What was found, by a digest of the question. Times are Unix seconds.

    Attributes:
        size: bytes held.
    """

    size: int = 0
    _items: "OrderedDict[bytes, Found]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Pieces of evidence remembered."""
        return len(self._items)

    def get(self, digest: bytes, now: int) -> Found | None:
        """What was found, if that still counts; what is past its use is dropped."""
        # None is used longer than `MEMORY_S`, so the oldest are first. A clock that was set back
        # must not make them last.
        while self._items:
            oldest = next(iter(self._items.values()))
            if oldest.since <= now < oldest.since + MEMORY_S:
                break
            self._drop(next(iter(self._items)))
        found = self._items.get(digest)
        return found if found is not None and found.in_time(now, found.age_s) else None

    def keep(self, digest: bytes, found: Found) -> None:
        """Remember what was found.

        Args:
            digest: of everything the answer depends on.
            found: it.
        """
        if digest in self._items:
            self._drop(digest)
        if found.until <= found.since or found.size > MEMORY_BYTES_MAX:
            return
        self._items[digest] = found
        self.size += found.size
        while len(self._items) > MEMORY_MAX or self.size > MEMORY_BYTES_MAX:
            self._drop(next(iter(self._items)))

    def _drop(self, digest: bytes) -> None:
        self.size -= self._items.pop(digest).size
