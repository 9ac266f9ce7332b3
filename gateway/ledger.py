"""The evidence log as the gateway uses it: timed, and loud when it fails.

The log fails closed: after an error it takes nothing more, the gateway reports not ready, admits
nobody and completes no answer, since no receipt could be made durable.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestation.binding import Beacon
from evidence.beacon import BeaconProof, prove_beacon
from evidence.checkpoint import peek_checkpoint
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

    async def dated(self, index: int, beacon: Beacon | None) -> tuple[Logged, BeaconProof | None]:
        """An entry, and the proof of a beacon of ours, both under one head."""
        if beacon is None:
            return await self.log.entry(index), None
        first, entry = await self.log.entry(beacon.size - 1), await self.log.entry(index)
        path = self.log.inclusion(first.index, peek_checkpoint(entry.checkpoint).size)
        first = replace(first, checkpoint=entry.checkpoint, proof=path)
        return entry, prove_beacon(beacon, first, self.log.consistency)

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
