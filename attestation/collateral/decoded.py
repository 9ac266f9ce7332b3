"""Entries that were read from files that have not changed since: a fleet rests on the same few.

Workers of one kind share chains, lists and manifests, and each is judged every minute. Read once,
an entry is found again by what the system says about its file, and all share its bytes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attestation.collateral_key import CollateralKey

    from .entry import Entry

# Bodies and chains held: the platforms' certificates and answers of a fleet, and its manifests.
BYTES_MAX: Final = 64 * 1024 * 1024

# One tuple a file: inode, times of change in ns, size; or the error that came instead.
Stamp: TypeAlias = "tuple[tuple[int, ...], ...]"


def stamp_of(paths: Iterable[str]) -> Stamp:
    """What differs once one of these files was written, replaced, removed or made.

    To be taken before the files are read: what is written in between then counts as a change.
    A file that is renamed into place has another inode than the one it replaces; who writes into
    one changes its times.
    """
    return tuple(map(_stamp, paths))


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116  # a Path takes longer to make than this to answer
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


@dataclass(slots=True)
class Decoded:
    """Entries by key, the least used dropped first. Used by several threads.

    Attributes:
        size: bytes of their pieces.
    """

    size: int = 0
    _held: OrderedDict[CollateralKey, tuple[Stamp, Entry]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: CollateralKey, stamp: Stamp) -> Entry | None:
        """The entry that was read when the files were as they are now."""
        with self._lock:
            held = self._held.get(key)
            if held is None or held[0] != stamp:
                return None
            self._held.move_to_end(key)
            return held[1]

    def keep(self, key: CollateralKey, stamp: Stamp, entry: Entry) -> None:
        """Remember what was read; `stamp` was taken before.

        Beside the same files, what was fetched last counts: they were read before it came.
        """
        with self._lock:
            held = self._held.get(key)
            if held is not None and held[0] == stamp and held[1].fetched_at > entry.fetched_at:
                return
            self._drop(key)
            self._held[key] = stamp, entry
            self.size += _size(entry)
            while self.size > BYTES_MAX:
                self._drop(next(iter(self._held)))

    def _drop(self, key: CollateralKey) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self.size -= _size(held[1])


def _size(entry: Entry) -> int:
    return len(entry.piece.body) + len(entry.piece.chain)
