"""Files a user names: read with a bound, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from wire.errors import ConfigError


def read_file(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a file of at most `limit` bytes.

    Raises:
        ConfigError: missing, unreadable or longer.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as cause:
        raise ConfigError(
            f"{what} file {path}: {cause.strerror}",
            hint=f"name a {what} file that is there and that this user may read",
        ) from cause
    if len(raw) > limit:
        raise ConfigError(
            f"{what} file {path}: found more than {limit} bytes, expected at most that",
            hint=f"this is no {what} file: name another",
        )
    return raw


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, replacing one that is there; durable when this returns.

    A reader sees the old file or the new one, never a part, and a failure leaves nothing behind.

    Raises:
        OSError: the folder cannot be written, or has no room.
    """
    # mkstemp makes the file 0600
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
