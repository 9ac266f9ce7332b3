"""What was found for pieces of evidence, for a moment, in bounded memory."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Longest use of what was read, in seconds.
MEMORY_S = 30
#: Pieces of evidence remembered, and bytes of what was found for them: a node of eight GPUs has two
#: MiB, and whoever has one admitted worker can show as many bindings of it as it likes.
MEMORY_MAX = 4096
MEMORY_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Item:
    """What was found for one piece of evidence, and when it counts."""

    since: int
    until: int
    roles: Mapping[str, bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.roles.values()))


@dataclass(slots=True)
class Found:
    """Role to bytes by a digest of the question. Times are Unix seconds.

    Attributes:
        size: bytes held.
    """

    size: int = 0
    _items: "OrderedDict[bytes, _Item]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Pieces of evidence remembered."""
        return len(self._items)

    def get(self, digest: bytes, now: int) -> Mapping[str, bytes] | None:
        """What was found, if that still counts; what is past its use is dropped."""
        # None is used longer than `MEMORY_S`, so the oldest are first. A clock that was set back
        # must not make them last.
        while self._items:
            oldest = next(iter(self._items.values()))
            if oldest.since <= now < oldest.since + MEMORY_S:
                break
            self._drop(next(iter(self._items)))
        item = self._items.get(digest)
        return item.roles if item is not None and item.since <= now < item.until else None

    def keep(
        self, digest: bytes, now: int, expires: int | None, roles: Mapping[str, bytes]
    ) -> None:
        """Remember what was found.

        Args:
            digest: of everything the answer depends on.
            now: when it was found.
            expires: when the first of it is no longer in force.
            roles: it.
        """
        if digest in self._items:
            self._drop(digest)
        until = now + MEMORY_S if expires is None else min(now + MEMORY_S, expires)
        item = _Item(now, until, roles)
        if until <= now or item.size > MEMORY_BYTES_MAX:
            return
        self._items[digest] = item
        self.size += item.size
        while len(self._items) > MEMORY_MAX or self.size > MEMORY_BYTES_MAX:
            self._drop(next(iter(self._items)))

    def _drop(self, digest: bytes) -> None:
        self.size -= self._items.pop(digest).size
