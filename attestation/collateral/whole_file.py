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
    # The new name is as durable as the folder that holds it.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _too_long(path: Path, found: str, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"found {found} bytes, expected at most {limit}", str(path))
