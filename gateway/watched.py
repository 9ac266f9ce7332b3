"""A file that may change while the gateway runs: read again when its stamp changes.

What cannot be taken is tried again each time, since what mends it need not touch the file: another
file it rests on, or the hour from which it counts. It is reported once for each stamp.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from wire.errors import AnchorholdError

T = TypeVar("T")
#: A revoked key or a denied binding takes effect within this many seconds.
CHECK_EVERY_S = 2.0


class Watched(Generic[T]):
    """The parsed content of a file, kept up to date. An unreadable change keeps the last value.

    Keeping the old value is safe in one direction only: a revocation that cannot be read does not
    take effect. `changed()` therefore reports the failure so that the operator hears of it.
    """

    def __init__(self, path: Path, load: Callable[[], T]) -> None:
        """Load now; failing to is the caller's error (the gateway must not start)."""
        self.path = path
        self._load = load
        self._stamp = self._look()
        self._reported: object = ()
        self.value = load()

    async def changed(self) -> bool:
        """Look at the file; True when a new value was read.

        Raises:
            AnchorholdError: the file changed and cannot be taken; not raised again until it changes
                once more.
        """
        stamp = await asyncio.to_thread(self._look)
        if stamp == self._stamp:
            return False
        try:
            self.value = await asyncio.to_thread(self._load)
        except AnchorholdError:
            if stamp == self._reported:
                return False
            self._reported = stamp
            raise
        self._stamp, self._reported = stamp, ()
        return True

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        # Of a change of owner or mode, only the last one tells.
        return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)
