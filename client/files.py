"""Files a user names: read with a bound, and made only where there is none."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from attestation.collateral.whole_file import read_whole, write_whole
from wire.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_THINGS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def read_file(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a file, or of what a shell gives for one, of at most `limit` bytes.

    Raises:
        ConfigError: missing, unreadable, longer, or a device.
    """
    try:
        return read_whole(path, limit, pipes=True)
    except OSError as cause:
        hint = f"check the name, and that this user may read the {what} file"
        if cause.errno == errno.EFBIG:
            hint = f"this cannot be the {what} file: name another"
        raise ConfigError(f"{what} file {path}: {cause.strerror}", hint=hint) from cause


def make_file(path: Path, data: bytes, what: str, *, hint: str, replace: bool = False) -> None:
    """Write a file of mode 0600, whole or not at all.

    Args:
        path: where.
        data: all of it.
        what: the kind of file, for messages.
        hint: what to do where there is a file already.
        replace: take the place of a file that is there.

    Raises:
        ConfigError: as `check_free`, or it cannot be written.
    """
    check_free(path, what, hint=hint, replace=replace)
    try:
        if replace:
            write_whole(path, data)
        else:
            _make(path, data)
    except FileExistsError as cause:
        raise _taken(path, what, hint) from cause
    except OSError as cause:
        raise _unwritable(path, what, cause) from cause


def check_free(path: Path, what: str, *, hint: str, replace: bool = False) -> None:
    """A file may be made under this name.

    Nothing but a regular file is ever replaced: a file in the place of a device, a pipe or a link
    would be another thing to all others who use that name, `/dev/stdout` among them.

    Args:
        path, what, hint, replace: as for `make_file`.

    Raises:
        ConfigError: there is something already, with `replace` anything but a regular file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return  # of the file, or of its folder: that is told when it is made
    except OSError as cause:
        raise _unwritable(path, what, cause) from cause
    if not stat.S_ISREG(mode):
        found = next((name for is_one, name in _THINGS if is_one(mode)), "a device")
        raise ConfigError(
            f"{what} file {path}: found {found}, expected a new file", hint="name another file"
        )
    if not replace:
        raise _taken(path, what, hint)


def is_absent(path: Path) -> bool:
    """Whether nothing has this name; where that cannot be told, something may."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


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


def _taken(path: Path, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{what} file {path}: it exists, expected a new file", hint=hint)


def _unwritable(path: Path, what: str, cause: OSError) -> ConfigError:
    return ConfigError(
        f"{what} file {path}: cannot be written: {cause.strerror}",
        hint="name a file in a folder that this user may write and that has room",
    )


def _make(path: Path, data: bytes) -> None:
    # Taken before it is written: of two programs that make one file, one is told.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        write_whole(path, data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
