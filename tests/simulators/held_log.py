"""A log on a disk that takes its time, or that does not take every entry.

    held = up.gateway.ledger.log = HeldLog(up.gateway.ledger.log, WORKER_SESSION)
    await held.reached.wait()   # the entry is durable, and whoever wrote it does not know yet
    held.gate.set()

The log below is a real one; everything else about it is as it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from evidence.sequencer import Log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evidence.entry import Logged
    from wire.errors import AnchorholdError


class HeldLog(Log):
    """Holds back the answer to each append of one type of event, or fails it.

    Args:
        log: whose file and state it shares.
        kind: the type of event.
        error: raised instead, from then on.

    Attributes:
        reached: set when such an event is durable.
        gate: set it to let the answers out.
    """

    def __init__(self, log: Log, kind: str, error: AnchorholdError | None = None) -> None:
        self.__dict__ = log.__dict__
        self._kind = kind
        self._error = error
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def append(self, event_type: str, body: Mapping[str, Any]) -> Logged:
        if event_type != self._kind:
            return await super().append(event_type, body)
        if self._error is not None:
            raise self._error
        logged = await super().append(event_type, body)
        self.reached.set()
        await self.gate.wait()
        return logged
