"""What vendors said and the folder could not take: remembered here until it is written.

A full disk, or a process that is suspended while it writes, must not bring back a list that names
nobody. So what was delivered stands in this process's memory apart from what was read, whatever is
read or written beside it, until the folder has it or a newer one:

- of two statements the one with the higher number counts, of the same number the one that was
  fetched later;
- statements whose names are a closed list (lists, chains, identities, key sets: under 32 MiB) are
  held, all of them;
- of those that evidence names there is no end. Beyond `BYTES_MAX` the oldest make room: a chip's
  certificate and a manifest revoke nothing and are had again, while of TCB levels and OCSP answers
  it stays known that there was one, and an older one is refused. Beyond `COUNT_MAX` of these,
  another is refused itself.

Whoever is responsible is told with the first that is held, and once none is. Once all are written
that can be, and of some it is known alone that there were any, that is told in between.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .entry import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attestation.collateral_key import CollateralKey
    from wire.errors import AnchorholdError

    from .entry import Entry

BYTES_MAX: Final = 64 * MIB  # bodies and chains: more than all whose names are a closed list
COUNT_MAX: Final = 32_768  # as many answers as the folder remembers
_HAD_AGAIN: Final = frozenset({"vcek", "rim"})  # named by evidence, and revoke nothing
_COUNTED: Final = frozenset({"tcb", "ocsp"})  # named by evidence
NAMED: Final = _HAD_AGAIN | _COUNTED


class Cause(Enum):
    """Why an entry could not be written."""

    LOCKED = "locked"
    FULL = "disk_full"
    READ_ONLY = "disk_read_only"
    FAILING = "disk_failing"
    EXHAUSTED = "exhausted"
    DAMAGED = "damaged"
    REFUSED = "refused"
    DROPPED = "dropped"  # it could not be held either

    @property
    def words(self) -> str:
        """For a human, with what to do."""
        return _WORDS[self]


_WORDS: Final[Mapping[Cause, str]] = MappingProxyType(
    {
        Cause.LOCKED: "another process holds the cache: find one that was suspended",
        Cause.FULL: "there is no room for the cache: make room on its disk, or in its quota",
        Cause.READ_ONLY: "the cache's disk cannot be written: mount it for writing",
        Cause.FAILING: "the cache's disk fails: look at the system's log",
        Cause.EXHAUSTED: "no more files can be opened, or there is no memory: raise the limits",
        Cause.DAMAGED: "the cache's memory of numbers is damaged: restore the file under seen, or "
        "delete it to accept collateral as it is shown now",
        Cause.REFUSED: "the cache's folder cannot be used: look at its owner and mode",
        Cause.DROPPED: "too much could not be written: what was dropped is to be fetched again",
    }
)
# What is no matter of owner and mode. EFBIG is a limit of the process or the file system.
CAUSES: Final[Mapping[int, Cause]] = MappingProxyType(
    {
        errno.ENOSPC: Cause.FULL,
        errno.EDQUOT: Cause.FULL,
        errno.EFBIG: Cause.FULL,
        errno.EROFS: Cause.READ_ONLY,
        errno.EIO: Cause.FAILING,
        errno.EMFILE: Cause.EXHAUSTED,
        errno.ENFILE: Cause.EXHAUSTED,
        errno.ENOMEM: Cause.EXHAUSTED,
    }
)


def cause_of(error: AnchorholdError | OSError) -> Cause:
    """What the system's refusal means, or the one that an error of ours was raised from."""
    found = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(found, OSError):
        return Cause.DAMAGED
    return CAUSES.get(found.errno or 0, Cause.REFUSED)


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of one delivered statement.

    Attributes:
        number: its sequence number, or None.
        fetched_at: Unix second of the answer.
        mark: differs for each that is held under a key.
        cause: why it is not in the folder.
        entry: it, or None if there was no room for it.
    """

    number: int | None
    fetched_at: int
    mark: int
    cause: Cause
    entry: Entry | None

    def overtaken(self, found: Entry) -> bool:
        """Whether another entry of the key is this one, or newer."""
        if found.sequence != self.number:
            return found.sequence is not None and (self.number or 0) <= found.sequence
        return found.fetched_at >= self.fetched_at


@dataclass(slots=True)
class Unkept:
    """Entries by key, the oldest first. Used by several threads.

    Args:
        told: why an entry is held, with the first; `Cause.DROPPED` once all are written that can
            be; None once none is held.
        bytes_max: of all bodies and chains.
        count_max: of the statements that evidence names and that may revoke.

    Attributes:
        size: bytes of the bodies and chains.
        waits: whether something is to be written.
    """

    told: Callable[[Cause | None], None] = lambda _cause: None
    bytes_max: int = BYTES_MAX
    count_max: int = COUNT_MAX
    size: int = 0
    waits: bool = False
    _held: OrderedDict[CollateralKey, Held] = field(default_factory=OrderedDict)
    _counted: int = 0
    _marks: int = 0
    _said: Cause | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: CollateralKey) -> Held | None:
        """What is held under a key."""
        return self._held.get(key)

    def keep(self, entry: Entry, cause: Cause) -> bool:
        """Hold an entry; False if there is no place left for one of this kind."""
        key = entry.key
        with self._lock:
            held = self._held.get(key)
            if held is None and key.kind in _COUNTED and self._counted >= self.count_max:
                return False
            if held is None or held.overtaken(entry):
                self._drop(key)
                self._marks += 1
                number, fetched_at = entry.sequence, entry.fetched_at
                self._held[key] = Held(number, fetched_at, self._marks, cause, entry)
                self._counted += key.kind in _COUNTED
                self.size += _size(entry)
                self._make_room(key)
        self._tell()
        return True

    def forget(self, key: CollateralKey, held: Held) -> None:
        """The folder knows of a newer one than `held`; another that came meanwhile stays."""
        with self._lock:
            if self._held.get(key) is held:
                self._drop(key)
        self._tell()

    def written(self, entry: Entry) -> None:
        """The folder has this entry: what it overtakes goes."""
        held = self._held.get(entry.key)
        if held is not None and held.overtaken(entry):
            self.forget(entry.key, held)

    def waiting(self) -> tuple[Entry, ...]:
        """What is to be written, the oldest first."""
        with self._lock:
            return tuple(held.entry for held in self._held.values() if held.entry is not None)

    def _make_room(self, newest: CollateralKey) -> None:
        if self.size <= self.bytes_max:
            return
        for key, held in tuple(self._held.items()):
            if self.size <= self.bytes_max:
                break
            if held.entry is None or key == newest or key.kind not in NAMED:
                continue
            if key.kind in _HAD_AGAIN:
                self._drop(key)
            else:
                self._held[key] = replace(held, entry=None)
                self.size -= _size(held.entry)

    def _drop(self, key: CollateralKey) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._counted -= key.kind in _COUNTED
            self.size -= 0 if held.entry is None else _size(held.entry)

    def _tell(self) -> None:
        with self._lock:
            causes = (held.cause for held in self._held.values() if held.entry is not None)
            cause = next(causes, None)
            self.waits = cause is not None
            if cause is None and self._held:
                cause = Cause.DROPPED
            # Of all that waits the first alone is told.
            if cause is self._said or (self.waits and self._said not in (None, Cause.DROPPED)):
                return
            self._said = cause
        self.told(cause)


def _size(entry: Entry) -> int:
    return len(entry.piece.body) + len(entry.piece.chain)
