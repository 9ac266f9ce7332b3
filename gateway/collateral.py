"""The vendors' statements about what workers present: found in the cache, or fetched.

Reading and fetching block, so they happen on threads. What was found for one piece of evidence is
remembered for a moment: a fleet judged again every minute reads no file a thousand times, and a
revocation still arrives within `MEMORY_S`.
"""

import asyncio
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from attestation.anchors import Anchors
from attestation.collateral.fetcher import Fetcher
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.services import Services, parse_services
from attestation.collateral.store import Store
from attestation.collateral.vendors import VENDOR_ROOTS, Vendors
from attestation.evidence import Evidence
from attestation.evidence_collateral import resolve_evidence
from attestation.examined import CollateralSet
from attestation.policy import Policy
from attestation.rules.hardware import HardwareRule
from attestation.schemes import SCHEMES
from wire.errors import ConfigError

from .clock import Clock
from .config import GatewayConfig

#: Longest use of what was read, in seconds.
MEMORY_S = 30
#: Pieces of evidence remembered.
MEMORY_MAX = 4096


@dataclass(slots=True)
class CollateralSource:
    """Finds collateral for evidence.

    Args:
        store: the cache on disk.
        vendors: how to ask and what to check.
        fetcher: the network; None works from the cache and imported bundles alone.
    """

    store: Store
    vendors: Vendors
    fetcher: Fetcher | None
    clock: Clock
    _memory: dict[bytes, tuple[int, Mapping[str, bytes]]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, config: GatewayConfig, policy: Policy, rng: Callable[[int], bytes], clock: Clock
    ) -> "CollateralSource":
        """The source that the configuration describes.

        Raises:
            ConfigError: the services file cannot be read or names what is no service.
        """
        services = _services(config.collateral_services_file)
        own = [rule for rule in policy.accept if isinstance(rule, HardwareRule)]
        pins = VENDOR_ROOTS.pins.union(*(rule.anchors.pins for rule in own))
        return cls(
            Store(config.path("collateral_dir", "collateral")),
            Vendors(services, rng, Anchors(pins)),
            HttpFetcher(services) if config.collateral_fetch else None,
            clock,
        )

    def close(self) -> None:
        """Close the connections to the vendors."""
        if isinstance(self.fetcher, HttpFetcher):
            self.fetcher.close()

    async def collect(self, evidence: Sequence[Evidence]) -> CollateralSet:
        """Kind to role to bytes; what cannot be had is not there, and appraisal says so."""
        return {item.kind: await self._of(item) for item in evidence if item.kind in SCHEMES}

    async def _of(self, item: Evidence) -> Mapping[str, bytes]:
        now = self.clock.wall()
        digest = sha256(item.kind.encode() + b"\0" + item.body).digest()
        until, roles = self._memory.get(digest, (0, {}))
        if now < until:
            return roles
        until, roles = await asyncio.to_thread(self._find, item, now)
        if len(self._memory) >= MEMORY_MAX:
            self._memory.clear()
        self._memory[digest] = (until, roles)
        return roles

    def _find(self, item: Evidence, now: int) -> tuple[int, Mapping[str, bytes]]:
        try:
            found = resolve_evidence(item, self.store, self.vendors, self.fetcher, now)
        except ConfigError:
            return now, {}  # appraisal then says what is missing
        end = now + MEMORY_S
        return (end if found.expires is None else min(end, found.expires)), found.roles


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
