"""A file that may change while the gateway runs: read again when its stamp changes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

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
        self.value = load()

    async def changed(self) -> bool:
        """Look at the file; True when a new value was read.

        Raises:
            AnchorholdError: the file changed and cannot be read. It is not tried again until it
                changes once more.
        """
        stamp = await asyncio.to_thread(self._look)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self.value = await asyncio.to_thread(self._load)
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)
