"""The vendors' statements about what workers present: found in the cache, or fetched.

Reading and fetching block, so they happen on threads, of their own: a vendor that does not answer
must not take those that write the log. What was found for one piece of evidence is
remembered for a moment: a fleet judged again every minute reads no file a thousand times, and a
revocation still arrives within `MEMORY_S`.

No entry counts longer after it was fetched than the policy in force says
(`collateral_max_age_s`). That binds this gateway: whoever reads the collateral that it carries to
them sees the vendors' dates alone.
"""

import asyncio
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from attestation.collateral.fetcher import Fetcher
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.resolve import Resolved
from attestation.collateral.services import Services, parse_services
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence import Evidence
from attestation.evidence_collateral import collateral_anchors, resolve_evidence
from attestation.examined import NO_BYTES, CollateralSet
from attestation.policy import Policy
from attestation.schemes import SCHEMES
from wire.errors import ConfigError

from .clock import Clock
from .config import GatewayConfig

#: Longest use of what was read, in seconds.
MEMORY_S = 30
#: Vendors' services asked at once.
THREADS = 4
#: Pieces of evidence remembered.
MEMORY_MAX = 4096


@dataclass(slots=True)
class CollateralSource:
    """Finds collateral for evidence.

    Args:
        store: the cache on disk.
        vendors: how to ask and what to check.
        fetcher: the network; None works from the cache and imported bundles alone.
        max_age_s: greatest age of an entry, of the policy in force when it is asked for.
        missing: told the reason code of what could not be had.
    """

    store: Store
    vendors: Callable[[], Vendors]
    fetcher: Fetcher | None
    clock: Clock
    max_age_s: Callable[[], int]
    missing: Callable[[str], None]
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="collateral")
    )
    _own_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="refresh")
    )
    _memory: dict[bytes, tuple[int, Mapping[str, bytes]]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        config: GatewayConfig,
        policy: Callable[[], Policy],
        rng: Callable[[int], bytes],
        clock: Clock,
        missing: Callable[[str], None],
    ) -> "CollateralSource":
        """The source that the configuration describes.

        Args:
            config: where the cache and the services are.
            policy: the policy in force; its roots and its greatest age count.
            rng: random bytes.
            clock: tells the time.
            missing: told the reason code of what could not be had.

        Raises:
            ConfigError: the services file cannot be read or names what is no service.
        """
        services = _services(config.collateral_services_file)
        return cls(
            Store(config.path("collateral_dir", "collateral")),
            lambda: Vendors(services, rng, collateral_anchors(policy())),
            HttpFetcher(services) if config.collateral_fetch else None,
            clock,
            lambda: policy().collateral_max_age_s,
            missing,
        )

    def close(self) -> None:
        """Close the connections to the vendors; what is being fetched is not waited for."""
        for threads in (self._threads, self._own_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        if isinstance(self.fetcher, HttpFetcher):
            self.fetcher.close()

    async def collect(self, evidence: Sequence[Evidence]) -> CollateralSet:
        """Kind to role to bytes; what cannot be had is not there, and appraisal says so."""
        return await self._all(evidence, self._threads)

    async def refresh(self, evidence: Sequence[Evidence]) -> CollateralSet:
        """The same for workers that are admitted, on threads that no stranger can keep busy."""
        return await self._all(evidence, self._own_threads)

    async def _all(
        self, evidence: Sequence[Evidence], threads: ThreadPoolExecutor
    ) -> CollateralSet:
        known = [item for item in evidence if item.kind in SCHEMES]
        return {item.kind: await self._of(item, threads) for item in known}

    async def _of(self, item: Evidence, threads: ThreadPoolExecutor) -> Mapping[str, bytes]:
        now, age = self.clock.wall(), self.max_age_s()
        # The age is part of the name: a policy that shortens it is not answered from memory.
        digest = sha256(f"{age} {item.kind}\0".encode() + item.body).digest()
        until, roles = self._memory.get(digest, (0, {}))
        if now < until:
            return roles
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(threads, self._find, item, now, age)
        if found is None:
            self.missing("collateral_unavailable")
            return NO_BYTES
        for reason in found.missing:
            self.missing(reason.code)
        # What is missing may have come when the worker tries again.
        until, roles = now if found.missing else now + MEMORY_S, found.roles
        until = until if found.expires is None else min(until, found.expires)
        if len(self._memory) >= MEMORY_MAX:
            self._memory.clear()
        self._memory[digest] = (until, roles)
        return roles

    def _find(self, item: Evidence, now: int, max_age_s: int) -> Resolved | None:
        """What can be had; None when the cache cannot be used."""
        try:
            return resolve_evidence(
                item, self.store, self.vendors(), self.fetcher, now, max_age_s=max_age_s
            )
        except ConfigError:
            return None


def _services(path: Path | None) -> Services:
    if path is None:
        return Services()
    try:
        return parse_services(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            f"collateral_services_file: cannot read {path}: {error.strerror}"
        ) from error
    except ValueError as error:  # not TOML, or not text
        raise ConfigError(
            f"collateral_services_file: {path}: expected TOML, found something else",
            hint="docs/operate/cli.md, `anchorhold collateral fetch`, lists its members",
        ) from error
