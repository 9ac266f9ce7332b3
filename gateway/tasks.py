"""Tasks that nobody awaits: kept until they end, and heard when they fail.

An event loop holds a task weakly and drops its error. Whatever the gateway starts and walks away
from is started here, with a word on what its failure means for what it was started for.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

#: Told of the error of a failed task.
Failed = Callable[[BaseException], None]


class Tasks:
    """The tasks of one owner, who ends them with `cancel` or `settle`."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], failed: Failed) -> None:
        """Run `work`; `failed` is told if it ends with an error, not if it is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(partial(self._ended, failed))

    async def cancel(self) -> None:
        """Cancel all and wait until they have ended, however they do."""
        for task in self._running:
            task.cancel()
        await self.settle()

    async def settle(self) -> None:
        """Wait until all have ended, however they do."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, failed: Failed, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            failed(error)
