"""The worker's main loop: one gateway connection after another, until STOP.

The first keys are made on the first connection, since they name the newest head of that gateway's
log. Later ones rotate while a gateway is connected: the next epoch is attested before the present
one ends and announced at once. Old keys are wiped after their grace, connected or not.
"""

import asyncio
import contextlib

from wire.errors import AnchorholdError, UnavailableError

from .bench import Bench
from .gateway_link import GatewayLink, Refused
from .journal import Event, emit, report
from .port import LauncherPort
from .rotation import Rotation

# Between connections: long enough not to spin, short enough for a gateway that restarts.
RECONNECT_S = 0.2
# After a refusal: the gateway's policy or clock must change first.
REFUSED_PAUSE_S = 5.0
# Rotation looks at the clock this often; also how late a full replay set is noticed.
ROTATION_CHECK_S = 0.5
# After an attester that failed; the present keys go on meanwhile.
ATTEST_PAUSE_S = 5.0
# How long running requests may finish after STOP.
DRAIN_S = 5.0


class Server:
    """Serves one worker's boot."""

    def __init__(self, bench: Bench, port: LauncherPort, posture: bytes) -> None:
        """Prepare.

        Args:
            bench: what sessions share.
            port: the launcher.
            posture: signed posture container, shown to gateways and clients.
        """
        self._bench = bench
        self._port = port
        self._posture = posture
        self._rotation = Rotation(bench.keyring, bench.clock, port)
        self._link: GatewayLink | None = None

    async def run(self) -> None:
        """Serve until the launcher says STOP or goes away.

        Raises:
            FirstEpochError: it could not be attested: there is nothing to serve with.
        """
        self._port.attach()
        try:
            self._port.status("ready")
            await self._until_stopped()
        finally:
            self._port.detach()
            self._bench.keyring.close()

    async def _until_stopped(self) -> None:
        jobs = [asyncio.create_task(self._connect()), asyncio.create_task(self._keep_keys())]
        stop = asyncio.create_task(self._port.stopping.wait())
        done, _ = await asyncio.wait({*jobs, stop}, return_when=asyncio.FIRST_COMPLETED)
        emit(Event.STOPPING)
        if self._link is not None and stop in done:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._link.drain()
        for job in (*jobs, stop):
            job.cancel()
        for outcome in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _connect(self) -> None:
        """Hold a connection to the gateway; ask the launcher for a new one whenever it ends."""
        while True:
            sock = await self._port.connection()
            emit(Event.CONNECTED)
            self._port.status("connected")
            self._link = GatewayLink(sock, self._bench, self._port, self._posture, self._rotation)
            pause = RECONNECT_S
            try:
                await self._link.run()
            except Refused as error:
                emit(Event.REFUSED)
                self._port.status("refused", reasons=error.reasons)
                self._rotation.refused(error.reasons)
                pause = REFUSED_PAUSE_S
            except (ConnectionError, TimeoutError):
                pass
            except (AnchorholdError, KeyError) as error:
                # A gateway that does not speak the protocol: said, and tried again.
                report(error)
                pause = REFUSED_PAUSE_S
            finally:
                self._link = None
            emit(Event.DISCONNECTED)
            if pause == RECONNECT_S:
                self._port.status("disconnected")
            await asyncio.sleep(pause)

    async def _keep_keys(self) -> None:
        """Rotate epochs and wipe old ones, for ever."""
        ring, clock = self._bench.keyring, self._bench.clock
        while True:
            await asyncio.sleep(ROTATION_CHECK_S)
            dropped = ring.drop_ended(clock.s())
            if dropped:
                emit(Event.EPOCH_DROPPED, count=dropped)
            if self._link is None or not self._link.admitted:
                continue  # keys made now would name an old head; the next connection makes them
            try:
                epoch = await self._rotation.due()
            except UnavailableError as error:
                report(error)
                await asyncio.sleep(ATTEST_PAUSE_S)
                continue
            if epoch is not None and self._link is not None:
                with contextlib.suppress(ConnectionError):
                    await self._link.announce(epoch)
