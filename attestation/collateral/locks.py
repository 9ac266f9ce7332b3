"""The locks of a cache folder, and how long anybody waits for one.

A lock is a file that a process holds with `flock`; the system lets go of it when that process ends,
in whatever way. One that is suspended, or waits for a disk that is gone, holds it on, and whoever
waited without a limit would hang with it. Threads of one process wait for each other without asking
the system, and longer: they do go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from wire.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_S: Final = 10.0  # for another process; a write takes milliseconds, a vendor's answer seconds
THREADS_SHARE: Final = 3  # times as long for threads of this process, which may be waiting so
AGAIN_S: Final = 30.0  # what was not let go is tried, and not waited for, for as long
TRY_EVERY_S: Final = 0.01


class Locks:
    """Named locks, shared by threads and processes.

    Args:
        folder: of the lock files; it must be there when one is taken.
        wait_s: seconds to wait for another process.
        monotonic: seconds.
        pause: sleeps.
    """

    def __init__(
        self,
        folder: Path,
        wait_s: float = WAIT_S,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._pause = pause
        self._threads: dict[str, threading.Lock] = {}
        self._stuck: dict[str, float] = {}

    @contextlib.contextmanager
    def held(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Inside, other threads of this process are kept out, and where it says so all processes.

        Args:
            name: of the lock.
            wait: for others; or try once, which says nothing of who holds it.

        Yields:
            Whether other processes are kept out; False where one of them did not let go in time.

        Raises:
            UnavailableError: a thread of this process did not let go in time.
            OSError: the folder cannot be written.
        """
        own = self._threads.setdefault(name, threading.Lock())
        if not own.acquire(timeout=self._wait_s * THREADS_SHARE if wait else 0):
            raise UnavailableError(
                "collateral cache: another thread was not done in time: what it keeps is "
                "being written or fetched",
                hint="try again: a vendor answers slowly, or the disk does",
            )
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self._folder / f"{name}.lock", flags, 0o600)
            try:
                yield self._taken(name, lock, wait=wait)
            finally:
                os.close(lock)
        finally:
            own.release()

    def _taken(self, name: str, lock: int, *, wait: bool) -> bool:
        now = self._monotonic()
        # A node needs tens of pieces: one process that holds on must not cost each of them a wait.
        waits = wait and now >= self._stuck.get(name, now)
        deadline = now + self._wait_s if waits else now
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = self._monotonic()
                if now >= deadline:
                    if wait:
                        self._stuck[name] = now + AGAIN_S
                    return False
                self._pause(TRY_EVERY_S)
            else:
                self._stuck.pop(name, None)
                return True
