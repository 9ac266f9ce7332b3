"""Time for the gateway's shell. Everything below it is handed `now`."""

import time
from collections.abc import Callable
from dataclasses import dataclass


def _wall() -> int:
    return time.time_ns() // 1_000_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall clock (whole Unix seconds, compared with times others wrote) and monotonic seconds."""

    wall: Callable[[], int] = _wall
    monotonic: Callable[[], float] = time.monotonic
