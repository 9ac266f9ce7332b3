"""Everything a running gateway consists of, put together once.

`Gateway.open` reads files and may fail with a sentence for the operator; `start` and `stop` run in
the event loop. The HTTP application is given a `Gateway` and keeps no state of its own.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.collateral.whole_file import read_whole
from attestation.policy import Policy
from attestation.signed_policy import DOCUMENT_MAX, load_policy
from evidence.sequencer import Log
from tenancy.key_table import KeyTable, load_table
from tenancy.queue import Caps, Queue
from wire.errors import AnchorholdError, ConfigError

from .admission import Admission
from .appraiser import Appraiser
from .attributes import Attr
from .auth import Authenticator
from .candidates import Candidates
from .clock import Clock
from .collateral import CollateralSource
from .config import GatewayConfig
from .deny_list import load_deny_list
from .directory import Directory
from .dispatch import Dispatcher
from .journal import Event, Journal
from .ledger import Ledger
from .metrics import Metric
from .policy_memory import PolicyMemory
from .reappraisal import AGAIN_S, Reappraisal
from .registry import Registry
from .roster import Roster
from .signing_keys import ensure_signing_key, load_signing_key
from .spool import Spool
from .tasks import Tasks
from .telemetry import Telemetry
from .watched import CHECK_EVERY_S, Watched
from .workers import Workers

#: How often leases and deadlines are looked at. Leases are 10 s: a quarter second late is nothing.
TICK_S = 0.25


@dataclass(slots=True)
class Gateway:
    """The parts of one gateway. Made by `Gateway.open`.

    Attributes:
        failed: set when a part that must run for ever has ended. Revocations or fresh directories
            would stop unnoticed: whoever runs the gateway ends it then.
    """

    config: GatewayConfig
    clock: Clock
    telemetry: Telemetry
    journal: Journal
    ledger: Ledger
    spool: Spool
    registry: Registry
    dispatcher: Dispatcher
    roster: Roster
    directory: Directory
    workers: Workers
    authenticator: Authenticator
    keys: Watched[KeyTable]
    deny: Watched[frozenset[bytes]]
    policies: Watched[Policy]
    memory: PolicyMemory
    collateral: CollateralSource
    reappraisal: Reappraisal
    result_key: Ed25519PrivateKey
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: Tasks = field(default_factory=Tasks)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _reread_due: asyncio.Event = field(default_factory=asyncio.Event)
    _renewal_due: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def open(
        cls,
        config: GatewayConfig,
        *,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> "Gateway":
        """Read the files of `config` and build all parts; blocking, before the event loop.

        Raises:
            ConfigError, PolicyError: a file is missing or not what it should be.
            RollbackError, ForkError: the evidence log is not the one we wrote.
        """
        clock = clock or Clock()
        telemetry = telemetry or Telemetry.from_config(config)
        journal = Journal(telemetry)
        told = journal.on_disk(Event.POLICY_UNREMEMBERED, Event.POLICY_REMEMBERED)
        memory = PolicyMemory(config.state_dir / "policy.seen", told)
        policies = Watched(
            config.admission_policy_file, lambda: _load_policy(config, memory, clock.wall())
        )
        policy = policies.value
        appraiser = Appraiser(policy)
        table = config.path("key_table_file", "keys.json")
        keys = Watched(table, lambda: load_table(table, config.pepper_file))
        deny = Watched(config.deny_file or table, lambda: load_deny_list(config.deny_file))
        directory_key = load_signing_key(config.path("directory_key_file", "directory.key"))
        caps = Caps(config.tenant_requests_max, config.tenant_bytes_max, config.queue_requests_max)
        spool = Spool(
            config.path("spool_dir", "spool"),
            config.spool_memory_bytes,
            config.request_bytes_max,
            config.spool_bytes_max,
            caps,
        )
        swept = spool.open()
        if swept:
            journal.write(Event.SPOOL_SWEPT, {Attr.COUNT: swept})
        ledger = Ledger(_open_log(config), telemetry, journal)
        registry = Registry()
        dispatcher = Dispatcher(
            Candidates(registry, clock, clock.monotonic() + config.settle_s),
            Queue(caps),
            clock,
            journal,
            response_max=config.response_buffer_bytes,
        )
        directory = Directory(config, directory_key, registry, ledger, telemetry, journal, clock)
        directory.deny = deny.value | policy.deny.bh
        collateral = CollateralSource.open(
            config,
            lambda: appraiser.policy,
            rng,
            clock,
            telemetry,
            journal,
        )
        admission = Admission(
            appraiser,
            collateral.collect,
            lambda bh: bh in deny.value,
            ledger,
            telemetry,
            clock,
            rng,
        )
        roster = Roster(
            name=config.aud,
            lease_s=config.lease_s,
            hello_deadline_s=config.hello_deadline_s,
            admission=admission,
            dispatcher=dispatcher,
            registry=registry,
            ledger=ledger,
            telemetry=telemetry,
            journal=journal,
            clock=clock,
            changed=directory.changed,
            beacon=lambda: directory.beacon,
        )
        workers = Workers(roster, config.path("worker_socket", "worker.sock"), rng)
        telemetry.gauge(Metric.LEASES, lambda: len(roster))
        telemetry.gauge(Metric.QUEUE_DEPTH, lambda: dispatcher.waiting)
        telemetry.gauge(Metric.SPOOL_BYTES, lambda: spool.held)
        return cls(
            config=config,
            clock=clock,
            telemetry=telemetry,
            journal=journal,
            ledger=ledger,
            spool=spool,
            registry=registry,
            dispatcher=dispatcher,
            roster=roster,
            directory=directory,
            workers=workers,
            authenticator=Authenticator(keys),
            keys=keys,
            deny=deny,
            policies=policies,
            memory=memory,
            collateral=collateral,
            result_key=ensure_signing_key(config.path("result_key_file", "result.key")),
            reappraisal=Reappraisal(
                appraiser,
                collateral.refresh,
                collateral.reread,
                collateral.stale,
                registry,
                roster,
                ledger,
                telemetry,
                journal,
                clock,
            ),
        )

    @property
    def ready(self) -> bool:
        """Whether a request could be answered: a worker is here and receipts can be logged."""
        return len(self.roster) > 0 and self.ledger.available and not self.failed.is_set()

    async def start(self) -> None:
        """Listen for workers and keep time.

        Raises:
            ConfigError: the worker socket cannot be used.
        """
        # The first snapshot comes before the first worker: it is the beacon of the worker's keys.
        pause = await self.directory.attempt()
        await self.workers.open()
        for work in (
            self.directory.run(pause),
            self._tick(),
            self._watch(),
            self._reappraise(),
            self._reread_cache(),
            self._renew(),
        ):
            self._tasks.start(work, self._fail)
        self.journal.write(Event.STARTED)

    async def stop(self) -> None:
        """End everything in flight and release the files; the log is closed whatever fails."""
        await self._tasks.cancel()
        await self.reappraisal.close()
        try:
            await self.workers.close()
            await self.dispatcher.close()
        finally:
            self.collateral.close()
            await asyncio.to_thread(self.ledger.log.close)
        self.journal.write(Event.STOPPED)
        await asyncio.to_thread(self.telemetry.close)

    def _fail(self, error: BaseException) -> None:
        self.journal.write(Event.FAILED, level=logging.ERROR, error=error)
        self.failed.set()

    async def _tick(self) -> None:
        """Leases, keys and deadlines end. A failure here is written down and does not end time."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.roster.end_expired()
                self.registry.forget(self.registry.expired(self.clock.wall()))
                self.roster.end_unknown()
                self.dispatcher.check_waiting()
            except Exception as error:
                self.journal.write(Event.INTERNAL, level=logging.ERROR, error=error)

    async def _reappraise(self) -> None:
        """Admitted workers are judged again, soon after a change and now and then without one.

        With what is at hand: no vendor can delay what a new policy demands, or the end of one.
        """
        while True:
            # Not `wait_for`: before Python 3.12 it may lose a cancellation that comes at its end.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.reappraisal.pause_s(self.config.reappraise_s)):
                    await self._changed.wait()
            self._changed.clear()
            await self.reappraisal.check()
            self._reread_due.set()
            self._renewal_due.set()

    async def _reread_cache(self) -> None:
        """After that with what the cache has, and again when what was left in service must be."""
        while True:
            wait_s = self.reappraisal.reread_due_s
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s is None else max(AGAIN_S, wait_s)):
                    await self._reread_due.wait()
            self._reread_due.clear()
            await self.reappraisal.reread()

    async def _renew(self) -> None:
        """Beside that with the vendors' newest word, however long that takes."""
        while True:
            await self._renewal_due.wait()
            self._renewal_due.clear()
            await self.reappraisal.renew()

    async def _watch(self) -> None:
        """Key table, policy and deny list take effect while we run."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Look at these files, and put in force what changed."""
        if await self._reread(self.keys, Event.KEYS_UNREADABLE):
            self.journal.write(Event.KEYS_RELOADED)
        if await self._reread(self.policies, Event.POLICY_UNREADABLE):
            self._new_policy(self.policies.value)
        if self.memory.waits:
            await asyncio.to_thread(self.memory.settle)
        if self.config.deny_file is not None and await self._reread(
            self.deny, Event.DENY_UNREADABLE
        ):
            self.directory.deny = self.deny.value | self.policies.value.deny.bh
            self.roster.end_denied(lambda bh: bh in self.deny.value)
            self.directory.changed()

    def _new_policy(self, policy: Policy) -> None:
        """Put a changed policy in force: what is admitted must meet it too."""
        self.reappraisal.appraiser.policy = policy
        self.directory.deny = self.deny.value | policy.deny.bh
        self.directory.changed()
        self.journal.write(Event.POLICY_RELOADED)
        self._changed.set()

    async def _reread(
        self,
        watched: "Watched[KeyTable] | Watched[frozenset[bytes]] | Watched[Policy]",
        event: Event,
    ) -> bool:
        try:
            return await watched.changed()
        except AnchorholdError as error:
            self.journal.write(event, level=logging.ERROR, error=error)
            return False


def _load_policy(config: GatewayConfig, memory: PolicyMemory, now: int) -> Policy:
    path = config.admission_policy_file
    try:
        policy = load_policy(read_whole(path, DOCUMENT_MAX), config.policy_keys())
    except OSError as error:
        raise ConfigError(f"admission_policy_file: cannot read {path}: {error.strerror}") from error
    if policy.aud != config.aud:
        raise ConfigError(
            f"admission_policy_file: a policy for {config.aud!r} expected, found {policy.aud!r}"
        )
    if config.directory_refresh_s >= policy.beacon_max_age_s:
        raise ConfigError(
            f"directory_refresh_s: less than the policy's beacon_max_age_s"
            f" ({policy.beacon_max_age_s} s) expected, found {config.directory_refresh_s}",
            hint="a worker's new keys name the last snapshot, which must not be too old by then",
        )
    if now < policy.not_before:
        # In force it would refuse every worker; remembered, it would keep the present one out.
        raise ConfigError(
            f"admission_policy_file: a policy that is in force expected, found one whose not_before"
            f" is {policy.not_before - now} s from now",
            hint="keep the present one in place until then",
        )
    memory.admit(policy)
    return policy


def _open_log(config: GatewayConfig) -> Log:
    path = config.path("log_file", "log.db")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"log_file: cannot create its folder: {error.strerror}") from error
    key = load_signing_key(config.path("log_key_file", "log.key"))
    return Log.open(path, config.origin, key, anchor=config.log_anchor_file)
