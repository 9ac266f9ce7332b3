"""The key directory: which workers there are, signed, logged, and never older than ten minutes.

A snapshot is made when workers or their keys change and at least every few minutes. It is an entry
of the evidence log before anybody can fetch it, so two tenants cannot be shown different lists
without an auditor seeing both.
"""

import asyncio
import logging
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.binding import Beacon
from evidence.directory import (
    WorkerEntry,
    build_snapshot,
    directory_document,
    sign_snapshot,
    snapshot_event,
)
from evidence.events import DIRECTORY_SNAPSHOT
from wire.errors import AnchorholdError

from .attributes import Attr
from .clock import Clock
from .config import GatewayConfig
from .journal import Event, Journal
from .ledger import Ledger
from .metrics import Metric
from .registry import Registry
from .telemetry import SpanName, Telemetry

#: Changes that come together (a fleet restarting) become one snapshot.
GATHER_S = 0.02
#: After a failed log the gateway is not ready; trying again soon costs nothing.
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A published one: its signed payload, the index of its log entry, and when it ends."""

    payload: bytes
    signature: dict[str, str]
    index: int
    expires: int


class Directory:
    """Builds and keeps the current document.

    Attributes:
        deny: binding hashes to publish as denied.
        beacon: the log prefix that ends in the newest snapshot, for bindings to name; None before
            the first one.
    """

    def __init__(
        self,
        config: GatewayConfig,
        key: Ed25519PrivateKey,
        registry: Registry,
        ledger: Ledger,
        telemetry: Telemetry,
        journal: Journal,
        clock: Clock,
    ) -> None:
        """Prepare; nothing is published yet."""
        self._config = config
        self._key = key
        self._registry = registry
        self._ledger = ledger
        self._telemetry = telemetry
        self._journal = journal
        self._clock = clock
        self._changed = asyncio.Event()
        self.deny: frozenset[bytes] = frozenset()
        self.document: bytes | None = None
        self.beacon: Beacon | None = None
        self._published: _Snapshot | None = None
        self._proved_at = 0

    def changed(self) -> None:
        """The list no longer says what is so: publish a new one soon."""
        self._changed.set()

    async def current(self) -> bytes | None:
        """The document to serve; None when there is none that has not expired.

        Its log part is brought up to the log's present head: a client that has seen a later head,
        in a receipt or in another process, refuses an earlier one as a rollback.
        """
        published, size = self._published, self._ledger.log.size
        if published is None or self._clock.wall() >= published.expires:
            return None
        if self.document is not None and self._proved_at == size:
            return self.document
        entry = await self._ledger.log.entry(published.index)
        document = directory_document(published.payload, [published.signature], entry)
        if published is self._published:  # a newer snapshot may have come while we waited
            self.document, self._proved_at = document, size
        return document

    async def run(self, pause: float) -> None:
        """Publish for ever: on change, and before the last one is too old.

        Args:
            pause: what the first `attempt` returned.
        """
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass
            pause = await self.attempt()

    async def attempt(self) -> float:
        """Publish if the log allows it; returns the seconds after which to do it again."""
        self._changed.clear()
        try:
            await self.publish()
        except AnchorholdError:
            # The ledger's failure is in the journal; not being ready shows in /readyz.
            return RETRY_S
        return self._pause()

    async def publish(self) -> None:
        """Make, log and publish one snapshot.

        Raises:
            UnavailableError: the log took no entry; the old document stays.
        """
        now = self._clock.wall()
        span = self._telemetry.start(SpanName.DIRECTORY)
        try:
            workers = [
                WorkerEntry(
                    kids=tuple(sorted(epoch.kids)),
                    bh=epoch.bh,
                    leaf=epoch.verdict.index,
                    models=tuple(model.name for model in epoch.appraised.binding.models),
                )
                for epoch in self._registry.offered(now)
            ]
            expires = now + self._config.directory_life_s
            payload = build_snapshot(
                aud=self._config.aud,
                # The log only grows, and every snapshot is in it: its size numbers them for good.
                seq=self._ledger.log.size,
                issued=now,
                expires=expires,
                workers=workers,
                deny=sorted(self.deny),
            )
            logged = await self._ledger.append(DIRECTORY_SNAPSHOT, snapshot_event(payload))
            signature = sign_snapshot(payload, self._config.directory_kid, self._key)
            self._published = _Snapshot(payload, signature, logged.index, expires)
            self.document = None
            log, size = self._ledger.log, logged.index + 1
            self.beacon = Beacon(log.origin, size, log.root(size))
            span.set(Attr.WORKERS, len(workers))
            span.set(Attr.LOG_INDEX, logged.index)
        finally:
            span.end()
        self._telemetry.count(Metric.DIRECTORY_SNAPSHOTS)
        self._journal.write(
            Event.DIRECTORY_PUBLISHED,
            {Attr.WORKERS: len(workers), Attr.LOG_INDEX: logged.index},
            level=logging.INFO,
        )

    def _pause(self) -> float:
        """Until the next snapshot is due: the refresh interval, or the end of a listed key."""
        now = self._clock.wall()
        ends = [epoch.offered_until - now for epoch in self._registry.offered(now)]
        return max(0.2, min([self._config.directory_refresh_s, *ends]))
