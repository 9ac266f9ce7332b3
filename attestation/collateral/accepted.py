"""The highest numbers that this process has itself accepted: what it knows without the disk.

The folder's memory is what counts. While it cannot be read, a statement that has just been fetched
counts if it is no older than what is known here; where nothing is known, it counts for nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .unkept import COUNT_MAX, NAMED

if TYPE_CHECKING:
    from attestation.collateral_key import CollateralKey


@dataclass(slots=True)
class Accepted:
    """Numbers by key. Used by several threads.

    Args:
        count_max: of keys that evidence names: of these there is no end, and the oldest are
            forgotten. All others are a closed list.
    """

    count_max: int = COUNT_MAX
    _listed: dict[CollateralKey, int | None] = field(default_factory=dict)
    _named: OrderedDict[CollateralKey, int | None] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, key: CollateralKey, number: int | None) -> None:
        """An entry with this number was accepted; None for one of a kind that has no numbers."""
        numbers = self._of(key)
        with self._lock:
            before = numbers.pop(key, None)
            # A thread may come late with what another has overtaken.
            known = [found for found in (before, number) if found is not None]
            numbers[key] = max(known, default=None)
            while len(self._named) > self.count_max:
                self._named.popitem(last=False)

    def has(self, key: CollateralKey) -> bool:
        """Whether anything is known of a key."""
        return key in self._of(key)

    def number(self, key: CollateralKey) -> int | None:
        """The highest number accepted under a key; None where none was."""
        return self._of(key).get(key)

    def _of(self, key: CollateralKey) -> dict[CollateralKey, int | None]:
        return self._named if key.kind in NAMED else self._listed
