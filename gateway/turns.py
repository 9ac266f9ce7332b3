"""Turns at something scarce (threads that ask vendors, processors that verify), shared fairly.

Who asks waits. A process that takes every turn it can get leaves some free, and of those that wait
the one with the fewest under way is next: a thousand links of one process delay another's by one
turn, not by a thousand.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from .asker import Asker

T = TypeVar("T")


@dataclass(slots=True)
class Turns:
    """Places, at least two; one process never has the last of them.

    Args:
        places: things done at once.
    """

    places: int
    _running: "Counter[int]" = field(default_factory=Counter)
    _waiting: "list[tuple[Asker, asyncio.Future[None]]]" = field(default_factory=list)

    async def run(self, asker: Asker, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do `work` when its turn comes.

        Once begun it keeps its place until it has ended, also where nobody waits for it any more:
        a thread goes on when its link is gone, and whoever comes and goes must not get more places.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = (asker, ready)
        self._waiting.append(mine)
        self._next()
        try:
            await ready
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            elif not ready.cancelled():  # its turn had come
                self._leave(asker)
            raise
        task = asyncio.get_running_loop().create_task(work())
        task.add_done_callback(partial(self._ended, asker))
        return await asyncio.shield(task)

    def _ended(self, asker: Asker, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled():
            task.exception()  # whoever waits hears it; nobody else needs to
        self._leave(asker)

    def _leave(self, asker: Asker) -> None:
        self._running -= Counter((asker.peer,))  # which drops what is none
        self._next()

    def _next(self) -> None:
        self._waiting = [item for item in self._waiting if not item[1].done()]
        while self._waiting:
            free = self.places - self._running.total()
            # The first of those with the fewest; in the order they came.
            mine = min(self._waiting, key=lambda item: self._running[item[0].peer])
            held = self._running[mine[0].peer]
            if free < 1 or (free == 1 and held > 0):
                return
            self._waiting.remove(mine)
            self._running[mine[0].peer] += 1
            mine[1].set_result(None)
