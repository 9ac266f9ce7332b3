"""One search for the collateral of one piece of evidence, and what it rests on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from attestation.collateral.decoded import Stamp
from attestation.collateral.entry import Entry
from attestation.collateral.fetcher import Fetcher
from attestation.collateral.resolve import Asks, Resolved
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey
from attestation.evidence import Evidence
from attestation.evidence_collateral import resolve_evidence
from attestation.examined import FOREVER

from .asker import Asker
from .found import Found

#: What nears its end, and what vendors did not give, is looked for again after so many seconds.
AGAIN_S = 30


@dataclass(frozen=True, slots=True)
class Readings:
    """A store that notes what each key's files were like before they were read first.

    What is fetched and kept meanwhile differs from that, and is looked at once more.

    Attributes:
        store: it.
        stamps: of every key looked at, whether anything is kept under it or not.
    """

    store: Store
    stamps: dict[CollateralKey, Stamp]

    def get(self, key: CollateralKey, now: int) -> Entry | None:
        """As `Store.get`."""
        if key not in self.stamps:
            self.stamps[key] = self.store.stamp(key)
        return self.store.get(key, now)

    def put(self, entry: Entry, now: int, *, answered: bool = False) -> None:
        """As `Store.put`."""
        self.store.put(entry, now, answered=answered)

    @contextmanager
    def exclusive(self, key: CollateralKey) -> Iterator[None]:
        """As `Store.exclusive`."""
        with self.store.exclusive(key):
            yield


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, and for whom.

    Attributes:
        item: the evidence.
        now: Unix seconds.
        age_s: greatest age of an entry.
        asker: on whose account; None for a worker that is admitted.
    """

    item: Evidence
    now: int
    age_s: int
    asker: Asker | None
    _stamps: dict[CollateralKey, Stamp] = field(default_factory=dict)

    def run(self, store: Store, vendors: Asks, fetcher: Fetcher | None) -> Resolved:
        """Look in the cache and, with a fetcher, ask; blocks.

        Raises:
            ConfigError: the cache cannot be used.
        """
        readings = Readings(store, self._stamps)
        return resolve_evidence(
            self.item, readings, vendors, fetcher, self.now, max_age_s=self.age_s
        )

    def result(self, resolved: Resolved, *, may_ask: bool) -> Found:
        """What came of it, and until when it counts if the cache does not change.

        Args:
            resolved: of the last run.
            may_ask: whether vendors can be asked for what is missing.
        """
        until = FOREVER
        if resolved.due is not None and resolved.expires is not None:
            until = min(resolved.expires, max(resolved.due, self.now + AGAIN_S))
        if resolved.missing and may_ask:
            until = min(until, self.now + AGAIN_S)
        stamps = MappingProxyType(dict(self._stamps))
        return Found(resolved.roles, stamps, self.age_s, self.now, until)
