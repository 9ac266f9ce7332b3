"""The room that a cache takes, without looking at all of it each time something is added.

Under the store's lock a count is kept in a file: what there was when it was all looked at, and what
was written since. A file that is replaced counts twice, and so does one that a process was killed
before writing: the count may say too much, never too little, and what comes of that is that all is
looked at sooner. That happens when the count passes a bound, and frees so much that it happens
again only after as much was written: what one write costs does not grow with what is kept.

An entry's file bears the time of its end as that of its change. What has ended makes room first,
those that ended first before all; then what ends next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .whole_file import NEW, read_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ABANDONED_S: Final = 600  # a half-written file that old belongs to a process that is gone
SPARE_SHARE: Final = 8  # the share of the greatest size that is freed, and then written anew
FORGOTTEN_SHARE: Final = 4  # the share of the memories that is forgotten at once
COUNT_LEN: Final = 42
_COUNT = re.compile(rb"([0-9]{20}) ([0-9]{20})\n")


@dataclass(frozen=True, slots=True)
class Count:
    """What there is, at most.

    Attributes:
        size: bytes of the entries.
        answers: memories of answers about certificates.
    """

    size: int
    answers: int


@dataclass(frozen=True, slots=True)
class Room:
    """The room of one cache. All methods are for whoever holds the store's lock, and raise OSError.

    Attributes:
        root: the cache's folder.
        size: bytes of entries that it may hold.
        answers: memories that it may hold whose names begin with `prefix`.
        prefix: see there.
    """

    root: Path
    size: int
    answers: int
    prefix: str

    def counted(self, now: int) -> Count:
        """What there is; looks at all of it where no count was kept."""
        try:
            found = _COUNT.fullmatch(read_whole(self._file, COUNT_LEN))
        except FileNotFoundError:
            found = None
        except OSError as cause:
            if cause.errno != errno.EFBIG:
                raise
            found = None
        if found is not None:
            return Count(int(found[1]), int(found[2]))
        # Versions before wrote beside the entries, and may have left something there.
        return Count(
            sum(one.st_size for _, one in _files(self.root / "entries", now)),
            sum(name.startswith(self.prefix) for name, _ in _files(self.root / "seen", now)),
        )

    def note(self, count: Count) -> None:
        """Keep a count: before what it counts is there, so that it never says too little."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        # Written over, not made durable: one that is lost or torn is made anew.
        file = os.open(self._file, flags, 0o600)
        try:
            os.pwrite(file, b"%020d %020d\n" % (count.size, count.answers), 0)
            os.ftruncate(file, COUNT_LEN)
        finally:
            os.close(file)

    def freed(self, count: Count, keep: str, now: int) -> Count:
        """Make room if there is too much.

        Args:
            count: what there is.
            keep: name of the entry that was just written.
            now: Unix seconds.
        """
        size, answers = count.size, count.answers
        if size > self.size:
            size = self._evict(keep, now)
        if answers > self.answers:
            answers = self._forget(now)
        return Count(size, answers)

    def _evict(self, keep: str, now: int) -> int:
        found = list(_files(self.root / "entries", now))
        total = sum(one.st_size for _, one in found)
        for _, name, size in sorted((one.st_mtime, name, one.st_size) for name, one in found):
            if total <= self.size - self.size // SPARE_SHARE:
                break
            if name != keep:
                (self.root / "entries" / name).unlink(missing_ok=True)
                total -= size
        return total

    def _forget(self, now: int) -> int:
        found = sorted(
            (one.st_mtime, name)
            for name, one in _files(self.root / "seen", now)
            if name.startswith(self.prefix)
        )
        gone = found[: self.answers // FORGOTTEN_SHARE] if len(found) > self.answers else []
        for _, name in gone:
            (self.root / "seen" / name).unlink(missing_ok=True)
        return len(found) - len(gone)

    @property
    def _file(self) -> Path:
        return self.root / "count"


def _files(folder: Path, now: int) -> Iterator[tuple[str, os.stat_result]]:
    """Names and states of what a folder holds; what the dead left half written is deleted."""
    with os.scandir(folder) as listing:
        for item in listing:
            with contextlib.suppress(FileNotFoundError):
                found = item.stat(follow_symlinks=False)
                if not item.name.startswith(NEW):
                    yield item.name, found
                elif found.st_mtime < now - ABANDONED_S:
                    (folder / item.name).unlink()
