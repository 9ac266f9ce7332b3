"""Files a user names: read with a bound, and made only where there is none."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from attestation.collateral.whole_file import write_whole
from wire.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read_file(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a file, or of what a shell gives for one, of at most `limit` bytes.

    Raises:
        ConfigError: missing, unreadable, longer, or a device.
    """
    hint = f"check the name, and that this user may read the {what} file"
    try:
        # What is opened may be a pipe that nobody writes to: it reads as empty, and holds nobody.
        with open(path, "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
                raise ConfigError(f"{what} file {path}: found a device, expected a file", hint=hint)
            if found.st_size > limit:
                raise _too_long(path, f"{found.st_size}", limit, what)
            os.set_blocking(file.fileno(), True)
            raw = file.read(limit + 1)
    except OSError as cause:
        raise ConfigError(f"{what} file {path}: {cause.strerror}", hint=hint) from cause
    except ValueError as cause:
        raise ConfigError(f"{what} file: found a zero byte in its name", hint=hint) from cause
    if len(raw) > limit:
        raise _too_long(path, f"more than {limit}", limit, what)
    return raw


def make_file(path: Path, data: bytes, what: str, *, hint: str, replace: bool = False) -> None:
    """Write a file of mode 0600, whole or not at all.

    Args:
        path: where.
        data: all of it.
        what: the kind of file, for messages.
        hint: what to do where there is a file already.
        replace: take the place of a file that is there.

    Raises:
        ConfigError: there is something already, or it cannot be written.
    """
    try:
        if replace:
            write_whole(path, data)
        else:
            _make(path, data)
    except FileExistsError as cause:
        raise ConfigError(f"{what} file {path}: it exists, expected a new file", hint=hint) from (
            cause
        )
    except OSError as cause:
        raise ConfigError(
            f"{what} file {path}: cannot be written: {cause.strerror}",
            hint="name a file in a folder that this user may write and that has room",
        ) from cause


def existing_folder(path: Path, what: str, hint: str) -> Path:
    """A folder that is there and can be read.

    Raises:
        ConfigError: it is not, or cannot.
    """
    try:
        os.scandir(path).close()
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or "found a zero byte in its name"
        raise ConfigError(f"{what} {path}: {reason}, expected a folder", hint=hint) from cause
    return path


def _make(path: Path, data: bytes) -> None:
    # Taken before it is written: of two programs that make one file, one is told.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        write_whole(path, data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _too_long(path: Path, found: str, limit: int, what: str) -> ConfigError:
    return ConfigError(
        f"{what} file {path}: found {found} bytes, expected at most {limit}",
        hint=f"this cannot be the {what} file: name another",
    )
