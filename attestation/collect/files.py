"""The few file operations that kernel interfaces are made of, as one thing that can be replaced.

configfs and sysfs react to each call, so what matters is which system call happens when: one
`write` here is one open, one write, one close, and one `read` reads one open file to its end. Tests
put a faithful model of the kernel in this place (`simulators.configfs_tsm`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Files(Protocol):
    """What a collector does to files.

    Every failure is an `OSError` with the kernel's errno and the file's path.
    """

    def mkdir(self, path: Path) -> None:
        """Make one folder."""

    def rmdir(self, path: Path) -> None:
        """Remove one folder."""

    def read(self, path: Path, limit: int) -> bytes:
        """The whole content, read through one descriptor; EFBIG if it is longer than `limit`."""

    def write(self, path: Path, data: bytes) -> int:
        """Open, write once, close; the number of bytes the kernel took."""

    def exists(self, path: Path) -> bool:
        """Whether something has this name."""


class OsFiles:
    """The operating system's."""

    def mkdir(self, path: Path) -> None:
        """Make one folder."""
        path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        """Remove one folder."""
        path.rmdir()

    def read(self, path: Path, limit: int) -> bytes:
        """The whole content, read through one descriptor; EFBIG if it is longer than `limit`."""
        with _opened(path, os.O_RDONLY) as fd:
            found = b""
            while chunk := os.read(fd, limit + 1 - len(found)):
                found += chunk
                if len(found) > limit:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return found

    def write(self, path: Path, data: bytes) -> int:
        """Open, write once, close; the number of bytes the kernel took."""
        # No O_CREAT and no O_TRUNC: these files are the kernel's, a missing one must stay missing.
        with _opened(path, os.O_WRONLY) as fd:
            return os.write(fd, data)

    def exists(self, path: Path) -> bool:
        """Whether something has this name."""
        return path.exists()


@contextlib.contextmanager
def _opened(path: Path, mode: int) -> Iterator[int]:
    """The file's descriptor; what fails on it says the file's name, as what fails to open does."""
    fd = os.open(path, mode | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        yield fd
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(fd)
