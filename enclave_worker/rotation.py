"""When the next key epoch is made, and which log entry shows that it was not made before.

A binding names the newest published head of the gateway's log: nobody could know its root earlier,
so evidence over the binding is younger than that head. So the first epoch waits for the first
connection, and later ones are made while a gateway is connected. The worker has no log key and
believes nothing here: a beacon no verifier can prove makes its keys worthless, not unsafe.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from attestation.binding import Beacon, parse_beacon
from wire.errors import MalformedError, UnavailableError

from .clock import Clock
from .epochs import Epoch, Keyring
from .journal import Event, emit
from .port import LauncherPort

# Refusals that other keys can mend: the log was replaced, or was silent for long.
BEACON_REASONS = frozenset({"beacon_missing", "beacon_stale", "beacon_unverified"})


class FirstEpochError(Exception):
    """The first epoch could not be attested: there is nothing to serve with."""


class Rotation:
    """Makes epochs, one at a time."""

    def __init__(self, keyring: Keyring, clock: Clock, port: LauncherPort) -> None:
        """Prepare; the launcher behind `port` attests."""
        self._ring = keyring
        self._clock = clock
        self._port = port
        self._beacon: Beacon | None = None
        self._attested = False
        self._making = asyncio.Lock()

    def heard(self, document: Mapping[str, Any], where: str) -> None:
        """Keep the beacon of a CHALLENGE or LEASE for the epochs to come.

        Raises:
            MalformedError: no member `beacon`, or one of another form.
        """
        if "beacon" not in document:
            raise MalformedError(f"{where}: found no beacon, expected one or null")
        self._beacon = parse_beacon(document["beacon"], f"{where}.beacon")

    async def offered(self) -> list[Epoch]:
        """The epochs to introduce on a new connection, oldest first: one is made if none is left.

        Raises:
            FirstEpochError: there never was one, and the attester failed.
            UnavailableError: all have ended, and the attester failed.
        """
        async with self._making:
            offered = self._ring.offered(self._clock.s())
            return offered or [await self._make()]

    async def due(self) -> Epoch | None:
        """The next epoch, if it is time to make it.

        Raises:
            UnavailableError: the attester failed; the present keys go on.
        """
        async with self._making:
            if self._clock.s() < self._ring.rotate_at():
                return None
            return await self._make()

    def refused(self, reasons: Iterable[str]) -> None:
        """A gateway admits none of our epochs: wipe them where their beacon is the reason."""
        if BEACON_REASONS.intersection(reasons):
            emit(Event.EPOCH_DROPPED, count=self._ring.drop_all())

    async def _make(self) -> Epoch:
        """Make, attest and install one epoch."""
        epoch = self._ring.prepare(self._clock.s(), self._beacon)
        try:
            evidence = await self._port.attest(epoch.binding)
        except UnavailableError as error:
            epoch.wipe()
            if not self._attested:
                raise FirstEpochError from error
            raise
        except BaseException:
            epoch.wipe()
            raise
        self._attested = True
        self._ring.install(epoch, evidence)
        emit(Event.EPOCH, number=epoch.number)
        return epoch
