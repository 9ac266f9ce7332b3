"""The worker's clock: wall time read once at start, then only monotonic time.

The host owns the wall clock of the machine. Reading it once and counting from there means that a
host that sets the clock back later cannot revive an expired request or stretch a key's life; a
wrong time at start can only make requests look expired (denial, which the host has anyway).
"""

import time
from collections.abc import Callable


class Clock:
    """Seconds and milliseconds since the epoch, counted from one reading of the wall clock."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Read both clocks once.

        Args:
            wall_ns: nanoseconds since the epoch; read here and never again.
            monotonic_ns: nanoseconds that never go back.
        """
        self._monotonic_ns = monotonic_ns
        self._offset_ns = wall_ns() - monotonic_ns()

    def ms(self) -> int:
        """Milliseconds since the epoch."""
        return (self._offset_ns + self._monotonic_ns()) // 1_000_000

    def s(self) -> int:
        """Whole seconds since the epoch."""
        return self.ms() // 1000

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        return self._monotonic_ns() / 1e9
