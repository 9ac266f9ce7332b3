"""From the engine's thread to the event loop, with one wake-up for all events of a step.

Waking a sleeping loop costs a system call and, on a machine with few cores, the interpreter lock
of the thread that computes: a batch of 32 answers must not pay it 32 times a step.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from .engine.events import TokenEvent
from .engine.stream import OnEvent

Receive = Callable[[TokenEvent], None]


class Handover:
    """Passes events on, in order. One for a worker."""

    def __init__(self) -> None:
        """Begin with nothing waiting."""
        self._waiting: deque[tuple[Receive, TokenEvent]] = deque()
        self._woken = False

    def to(self, receive: Receive) -> OnEvent:
        """Return a listener for the engine; `receive` is then called on the running loop."""
        loop = asyncio.get_running_loop()

        def on_event(event: TokenEvent) -> None:
            self._waiting.append((receive, event))
            if not self._woken:
                self._woken = True
                loop.call_soon_threadsafe(self._deliver, loop)

        return on_event

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> None:
        # Before looking: an event that arrives after the last look must wake the loop again.
        self._woken = False
        while self._waiting:
            receive, event = self._waiting.popleft()
            loop.call_soon(receive, event)
