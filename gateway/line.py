"""The line in which requests without a credential wait.

A request costs nothing to send, and hundreds fit into one write over each of thousands of
connections. So a few are worked on at a time, the next of a connection takes its place behind all
others, and whoever has a credential waits in no line: before it, in each turn of the event loop,
are no more than these few.
"""

import asyncio

#: Worked on at once: each takes well under a millisecond of the event loop.
AT_ONCE = 8


class Line:
    """Strangers' requests, in the order in which they came."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        """Let `at_once` be worked on at a time."""
        self._free = at_once
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self._working: set[asyncio.Future[bool]] = set()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def ask(self) -> "asyncio.Future[bool]":
        """A place in the line: true when its turn has come, false if it was given up before."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            self._working.add(turn)
            turn.set_result(True)
        else:
            self._waiting[turn] = None
        return turn

    def give_up(self, turn: "asyncio.Future[bool]") -> None:
        """Nobody wants it any more; harmless once the turn has come."""
        if turn in self._waiting:
            del self._waiting[turn]
            if not turn.done():
                turn.set_result(False)

    def give_back(self, turn: "asyncio.Future[bool]") -> None:
        """The work is done, or will not be: who waits longest is next. Harmless when repeated."""
        self.give_up(turn)
        if turn not in self._working:
            return
        self._working.discard(turn)
        while self._waiting:
            after = next(iter(self._waiting))
            del self._waiting[after]
            if not after.done():
                self._working.add(after)
                after.set_result(True)
                return
        self._free += 1
