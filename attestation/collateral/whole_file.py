"""Files whole: read with a bound, and replaced so that nobody ever finds a part.

Read: one that somebody names may be a pipe that nobody writes to, a device without an end, or far
too long; whoever waits for its end waits for ever. Replaced: written beside, made durable, renamed
over. Here because nothing below this package touches the disk; whatever stands above uses it.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

NEW: Final = ".new-"  # names of files half written begin with it


def read_whole(path: Path, limit: int, *, pipes: bool = False) -> bytes:
    """All of a plain file of at most `limit` bytes.

    Args:
        path: the file's name.
        limit: bytes.
        pipes: take a pipe, too, which is what a shell gives for `<(command)`. One that nobody
            writes to reads as empty; for as long as somebody may write, this waits.

    Raises:
        OSError: missing, unreadable, longer (EFBIG), or no such file; `strerror` says it in words.
    """
    try:
        # Opened at once, even where it is a pipe that nobody writes to.
        with open(path, "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            pipe = stat.S_ISFIFO(found.st_mode)
            if not (stat.S_ISREG(found.st_mode) or (pipe and pipes)):
                what = "pipe" if pipe else "device"
                raise OSError(errno.EINVAL, f"found a {what}, expected a file", str(path))
            if found.st_size > limit:
                raise _too_long(path, f"{found.st_size}", limit)
            os.set_blocking(file.fileno(), True)
            raw = file.read(limit + 1)
    except ValueError:
        raise OSError(errno.EINVAL, "found no name that a file can have", str(path)) from None
    if len(raw) > limit:
        raise _too_long(path, f"more than {limit}", limit)
    return raw


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, replacing one that is there; durable when this returns.

    A failure leaves the file that was there, or the new one, and nothing beside it.

    Raises:
        OSError: the folder is not there, cannot be written, or has no room.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=NEW)  # makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, changed: int | None = None) -> None:
    """Write a file of mode 0600 where none is, its content durable when this returns.

    Whoever moves it where it counts makes its name durable (`move_over`).

    Args:
        path: its name.
        data: its content.
        changed: the Unix second that it is to bear as that of its last change; None for now.

    Raises:
        OSError: there is one, or it cannot be written; a part may be left.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        if changed is not None:
            os.utime(file.fileno(), (changed, changed))
        os.fsync(file.fileno())


def move_over(source: Path, target: Path) -> None:
    """Move a file over another of the same file system; durable when this returns.

    Raises:
        OSError: it cannot be moved.
    """
    source.replace(target)
    sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a new one is only as durable as the folder that holds it.

    Raises:
        OSError: it cannot be opened, or not be written.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _too_long(path: Path, found: str, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"found {found} bytes, expected at most {limit}", str(path))
