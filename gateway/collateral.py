"""The vendors' statements about what workers present: found in the cache, or fetched.

Reading and fetching block, so they happen on threads, of their own: a vendor that does not answer
must not take those that write the log. A worker whose pieces are all in the cache waits for nobody
who fetches; those that fetch take turns, and what they may ask for is bounded (`questions`).
Evidence of kinds that the policy in force judges is looked up, and no other: it counts for nothing.

What was found for one piece of evidence is remembered for a moment (`found_memory`), and for an
admitted worker as long as it stays; both count only while the cache has what it had (`found`).

No entry counts longer after it was fetched than the policy in force says
(`collateral_max_age_s`). That binds this gateway: whoever reads the collateral that it carries to
them sees the vendors' dates alone.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from attestation.collateral.fetcher import Fetcher
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import Resolved
from attestation.collateral.services import Services, services_of
from attestation.collateral.store import Store
from attestation.collateral.unkept import Unkept
from attestation.collateral.vendors import Vendors
from attestation.collateral.whole_file import read_whole
from attestation.evidence import Evidence
from attestation.evidence_collateral import collateral_anchors, judged_kinds
from attestation.policy import Policy
from attestation.schemes import SCHEMES
from attestation.toml_table import SETTINGS_MAX
from wire.errors import ConfigError, UnavailableError

from .asker import Asker
from .attributes import Attr
from .clock import Clock
from .config import GatewayConfig
from .digest import digest_of
from .found import NOTHING, Collected, Found
from .found_memory import FoundMemory
from .journal import Event, Journal
from .metrics import Metric
from .questions import Held, Questions, Watcher
from .search import Search
from .telemetry import Telemetry
from .turns import Turns

#: Readers of the cache; each takes milliseconds.
READERS = 2
#: Readers of the cache for workers that are admitted: strangers keep none of them busy.
OWN_READERS = 2
#: Workers whose pieces are fetched at once, of those not admitted and of those admitted.
THREADS = 8
OWN_THREADS = 4
#: At most one line a vendor in that many seconds on questions that were not put.
SAID_EVERY_S = 60.0


@dataclass(slots=True)
class CollateralSource:
    """Finds collateral for evidence.

    Args:
        store: the cache on disk.
        vendors: how to ask and what to check.
        fetcher: the network; None works from the cache and imported bundles alone.
        max_age_s: greatest age of an entry, of the policy in force when it is asked for.
        judged: of the kinds shown together, those that this policy judges.
        missing: told the reason code of what could not be had.
        questions: what may be asked now.
    """

    store: Store
    vendors: Callable[[], Vendors]
    fetcher: Fetcher | None
    clock: Clock
    max_age_s: Callable[[], int]
    judged: Callable[[Sequence[str]], Collection[str]]
    missing: Callable[[str], None]
    questions: Questions
    _readers: ThreadPoolExecutor = field(default_factory=lambda: _pool(READERS, "collateral-read"))
    _threads: ThreadPoolExecutor = field(default_factory=lambda: _pool(THREADS, "collateral"))
    _own_readers: ThreadPoolExecutor = field(default_factory=lambda: _pool(OWN_READERS, "reread"))
    _own_threads: ThreadPoolExecutor = field(default_factory=lambda: _pool(OWN_THREADS, "refresh"))
    _turns: Turns = field(default_factory=lambda: Turns(THREADS))
    _memory: FoundMemory = field(default_factory=FoundMemory)

    @classmethod
    def open(
        cls,
        config: GatewayConfig,
        policy: Callable[[], Policy],
        rng: Callable[[int], bytes],
        clock: Clock,
        telemetry: Telemetry,
        journal: Journal,
    ) -> "CollateralSource":
        """The source that the configuration describes.

        Args:
            config: where the cache and the services are.
            policy: the policy in force; its roots and its greatest age count.
            rng: random bytes.
            clock: tells the time.
            telemetry, journal: told what is asked, and what cannot be had.

        Raises:
            ConfigError: the services file cannot be read or names what is no service.
        """
        services = _services(config.collateral_services_file)

        def missing(code: str) -> None:
            journal.write(Event.COLLATERAL_MISSING, {Attr.REASON: code}, level=logging.WARNING)

        return cls(
            Store(
                _folder(config.path("collateral_dir", "collateral")),
                unkept=Unkept(
                    journal.on_disk(Event.COLLATERAL_UNWRITTEN, Event.COLLATERAL_WRITTEN)
                ),
            ),
            lambda: Vendors(services, rng, collateral_anchors(policy())),
            HttpFetcher(services) if config.collateral_fetch else None,
            clock,
            lambda: policy().collateral_max_age_s,
            lambda kinds: judged_kinds(policy(), kinds),
            missing,
            Questions(
                clock.monotonic,
                config.collateral_retry_s,
                config.collateral_unknown_per_minute,
                _watcher(telemetry, journal, clock.monotonic),
            ),
        )

    @property
    def _pools(self) -> tuple[ThreadPoolExecutor, ...]:
        return self._readers, self._threads, self._own_readers, self._own_threads

    def close(self) -> None:
        """Close the connections to the vendors; what is being fetched is not waited for."""
        for threads in self._pools:
            threads.shutdown(wait=False, cancel_futures=True)
        if isinstance(self.fetcher, HttpFetcher):
            self.fetcher.close()

    async def collect(self, evidence: Sequence[Evidence], asker: Asker) -> Collected:
        """What can be had of what counts; what cannot is not there, and appraisal says so.

        Args:
            evidence: as a worker presents it.
            asker: on whose account what was never had here is asked for.
        """
        judged = self.judged([item.kind for item in evidence])
        return Collected(
            {
                item.kind: (item.kind in judged and await self._shown(item, asker)) or NOTHING
                for item in evidence
                if item.kind in SCHEMES
            }
        )

    async def refresh(self, evidence: Sequence[Evidence], held: Collected) -> Collected:
        """The same for workers that are admitted, on threads that no stranger can keep busy.

        What nears its end is renewed here, and here alone.

        Args:
            evidence: as above.
            held: what was found for it before; the same is returned when that still counts.

        Raises:
            UnavailableError: the cache cannot be used: what counts now cannot be told.
        """
        return await self._again(evidence, held, self._own_threads, self.fetcher)

    async def reread(self, evidence: Sequence[Evidence], held: Collected) -> Collected:
        """What the cache has for a worker that is admitted; nobody is asked or waited for.

        Args, Raises:
            as for `refresh`.
        """
        return await self._again(evidence, held, self._own_readers, None)

    async def stale(self, held: Sequence[Collected]) -> list[bool]:
        """Which of these are to be looked for again: one look at each file for all of them."""
        now, age = self.clock.wall(), self.max_age_s()
        loop = asyncio.get_running_loop()
        # Of kinds that are not judged nothing is looked for, however old it is.
        counting = [
            [one.pieces[kind] for kind in self.judged(list(one.pieces)) if kind in one.pieces]
            for one in held
        ]

        def look() -> list[bool]:
            self.store.settle(now)
            stamp_of = cache(self.store.stamp)
            return [
                not all(piece.in_time(now, age) and piece.unchanged(stamp_of) for piece in pieces)
                for pieces in counting
            ]

        return await loop.run_in_executor(self._own_readers, look)

    async def _shown(self, item: Evidence, asker: Asker) -> Found | None:
        """For whoever asks to be admitted; None when the cache cannot be used."""
        now, age = self.clock.wall(), self.max_age_s()
        # The age is part of the name: a policy that shortens it is not answered from memory.
        digest = digest_of((str(age).encode(), item.kind.encode(), item.body))
        remembered = self._memory.get(digest, now)
        if remembered is not None and await self._unchanged(remembered, self._readers):
            return remembered
        search = Search(item, now, age, asker)
        found = await self._run(self._readers, search, None)
        if found is not None and found.missing and self.fetcher is not None:
            found = await self._turns.run(
                asker, lambda: self._run(self._threads, search, self.fetcher)
            )
        if found is None:
            self.missing("collateral_unavailable")
            return None
        self._say(found)
        result = search.result(found, may_ask=self.fetcher is not None)
        # What is missing may have come when the worker tries again.
        if not found.missing:
            self._memory.keep(digest, result)
        return result

    async def _again(
        self,
        evidence: Sequence[Evidence],
        held: Collected,
        threads: ThreadPoolExecutor,
        fetcher: Fetcher | None,
    ) -> Collected:
        before = held.pieces
        judged = self.judged([item.kind for item in evidence])
        found = {
            item.kind: await self._admitted(item, before.get(item.kind), threads, fetcher)
            if item.kind in judged
            else before.get(item.kind, NOTHING)
            for item in evidence
            if item.kind in SCHEMES
        }
        if all(before.get(kind) is piece for kind, piece in found.items()):
            return held
        return Collected(found)

    async def _admitted(
        self,
        item: Evidence,
        held: Found | None,
        threads: ThreadPoolExecutor,
        fetcher: Fetcher | None,
    ) -> Found:
        """For an admitted worker; raises like `refresh`."""
        now, age = self.clock.wall(), self.max_age_s()
        if held is not None and held.in_time(now, age) and await self._unchanged(held, threads):
            return held
        search = Search(item, now, age, None)
        found = await self._run(threads, search, fetcher)
        if found is None:
            self.missing("collateral_unavailable")
            raise UnavailableError("collateral: the cache cannot be used")
        self._say(found)
        return search.result(found, may_ask=self.fetcher is not None)

    async def _unchanged(self, found: Found, threads: ThreadPoolExecutor) -> bool:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, found.unchanged, self.store.stamp)

    def _say(self, found: Resolved) -> None:
        for reason in found.missing:
            self.missing(reason.code)

    async def _run(
        self, threads: ThreadPoolExecutor, search: Search, fetcher: Fetcher | None
    ) -> Resolved | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, self._find, search, fetcher)

    def _find(self, search: Search, fetcher: Fetcher | None) -> Resolved | None:
        """What can be had; None when the cache cannot be used."""
        try:
            return search.run(
                self.store, self.questions.of(self.vendors(), self.store, search.asker), fetcher
            )
        except ConfigError:
            return None
        except Exception as error:
            self.questions.watcher.failed(error)
            return None


def _pool(threads: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name)


def _watcher(telemetry: Telemetry, journal: Journal, monotonic: Callable[[], float]) -> Watcher:
    """Counts questions, and writes down when a vendor falls silent or strangers are held back."""
    said: dict[str, float] = {}

    def asked(source: str) -> None:
        telemetry.count(Metric.COLLATERAL_FETCHES, 1, {Attr.SOURCE: source})

    def held(source: str, why: Held) -> None:
        attributes = {Attr.SOURCE: source, Attr.CAUSE: why.value}
        telemetry.count(Metric.COLLATERAL_HELD, 1, attributes)
        now = monotonic()
        if why is Held.ALLOWANCE and now - said.get(source, now - SAID_EVERY_S) >= SAID_EVERY_S:
            said[source] = now
            journal.write(Event.COLLATERAL_HELD, attributes, level=logging.WARNING)

    def silent(source: str, is_silent: bool) -> None:
        event = Event.VENDOR_SILENT if is_silent else Event.VENDOR_ANSWERS
        level = logging.WARNING if is_silent else logging.INFO
        journal.write(event, {Attr.SOURCE: source}, level=level)

    def failed(error: BaseException) -> None:
        journal.write(Event.INTERNAL, level=logging.ERROR, error=error)

    return Watcher(asked, held, silent, failed)


def _folder(path: Path) -> Path:
    """The folder of the cache: one that is none would be missed with each worker, one by one."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        found = "no folder" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(
            f"collateral_dir: {path}: found {found}, expected a folder, or room to make one"
        ) from error
    return path


def _services(path: Path | None) -> Services:
    if path is None:
        return Services()
    try:
        return services_of(read_whole(path, SETTINGS_MAX))
    except OSError as error:
        raise ConfigError(
            f"collateral_services_file: cannot read {path}: {error.strerror}", hint=_SERVICES_HINT
        ) from error
    except ConfigError as error:
        raise ConfigError(
            f"collateral_services_file: {path}: {error.message}", hint=error.hint or _SERVICES_HINT
        ) from error


_SERVICES_HINT = "docs/operate/cli.md, `anchorhold collateral fetch`, lists its members"
