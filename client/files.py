"""Reading files a user names: bounded, with an error that says which and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wire.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


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
