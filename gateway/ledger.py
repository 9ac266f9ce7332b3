"""The evidence log as the gateway uses it: timed, and loud when it fails.

The log fails closed: after an error it takes nothing more, the gateway reports not ready, admits
nobody and completes no answer, since no receipt could be made durable.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from evidence.entry import Logged
from evidence.sequencer import Log
from wire.errors import UnavailableError

from .journal import Event, Journal
from .metrics import Metric
from .telemetry import Telemetry


class Ledger:
    """Appends events and reads proofs."""

    def __init__(self, log: Log, telemetry: Telemetry, journal: Journal) -> None:
        """Use an open log; whoever opened it closes it."""
        self.log = log
        self._telemetry = telemetry
        self._journal = journal

    @property
    def available(self) -> bool:
        """Whether the log still takes entries."""
        return self.log.stopped is None

    async def append(self, event_type: str, body: Mapping[str, Any]) -> Logged:
        """Write one event; returns once it is durable.

        Raises:
            UnavailableError: the log has stopped.
        """
        started = time.monotonic()
        try:
            logged = await self.log.append(event_type, body)
        except UnavailableError as error:
            self._journal.write(Event.LOG_FAILED, level=logging.ERROR, error=error)
            raise
        self._telemetry.time(Metric.LOG_APPEND, time.monotonic() - started)
        return logged
