"""The median time of one call, as the benches of single calls report it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Median time of one call in ms, after one that is not counted."""
    work()
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent) * 1000
