"""The one place the SDK reads the wall clock; everything below it takes `now` as an argument."""

from __future__ import annotations

from datetime import UTC, datetime


def wall_clock() -> int:
    """Whole seconds since the epoch, UTC."""
    return int(datetime.now(tz=UTC).timestamp())


def utc_text(seconds: int) -> str:
    """A time for people; a policy may name one that no calendar reaches."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
