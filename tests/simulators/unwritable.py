"""A folder that cannot be written for a while: held by a suspended process, or its disk full.

For tests of whatever keeps files: what it was given meanwhile must not be lost. Reading goes on,
but for `disk_fault`.

- `suspended(root)`: another process holds the lock of a collateral cache and does not let go;
- `disk_error(folder, number)`: the system answers with this `errno` to whoever opens a file in the
  folder for writing. By an audit hook of the interpreter, so nothing under test is replaced;
- `disk_fault(folder, number)`: the same to whoever opens one at all;
- `files_of_at_most(size)`: the system's own limit on files, for real (EFBIG).
"""

from __future__ import annotations

import fcntl
import os
import resource
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def suspended(root: Path) -> Iterator[None]:
    """Another process, stopped while it writes into a collateral cache."""
    folder = root / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_error(folder: Path, number: int) -> Iterator[None]:
    """A disk on which nothing in a folder can be opened for writing."""
    with _answering(folder, number, reading=False):
        yield


@contextmanager
def disk_fault(folder: Path, number: int) -> Iterator[None]:
    """A disk on which nothing in a folder can be opened, nor for reading."""
    with _answering(folder, number, reading=True):
        yield


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """This process may set the limit for itself, and lift it again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _answering(folder: Path, number: int, *, reading: bool) -> Iterator[None]:
    faults, name = _faults(), f"{folder}/"
    faults[name] = number, reading
    try:
        yield
    finally:
        del faults[name]


@cache
def _faults() -> dict[str, tuple[int, bool]]:
    """Folder to error, and whether reading fails; one hook, silent while this is empty."""
    found: dict[str, tuple[int, bool]] = {}

    def step(event: str, arguments: tuple[object, ...]) -> None:
        if not found or event != "open":
            return
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        for folder, (number, reading) in tuple(found.items()):
            if (writes or reading) and str(path).startswith(folder):
                raise OSError(number, os.strerror(number), str(path))

    sys.addaudithook(step)
    return found
