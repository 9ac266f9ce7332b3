"""The one place the SDK reads the wall clock; everything below it takes `now` as an argument."""

from __future__ import annotations

from datetime import UTC, datetime


def wall_clock() -> int:
    """Whole seconds since the epoch, UTC."""
    return int(datetime.now(tz=UTC).timestamp())
