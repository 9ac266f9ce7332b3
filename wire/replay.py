"""The replay set of one HPKE key: which requests were already taken up under it.

It lives exactly as long as the key, so replay safety needs no clock: when the set goes, the key
goes, and nothing sealed to it opens again.
"""

from __future__ import annotations

from .errors import BusyError, ReplayError
from .limits import REPLAY_MAX


class ReplaySet:
    """Transcript hashes entered under one key.

    Args:
        limit: entries at which the key must be rotated; further requests are refused as busy, for
            forgetting an old entry would reopen it.
    """

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = REPLAY_MAX) -> None:
        self._seen: set[bytes] = set()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def full(self) -> bool:
        """Whether the key should be rotated now."""
        return len(self._seen) >= self._limit

    def enter(self, th: bytes) -> None:
        """Take `th` (32 bytes) up, once. Call after the commitment holds, before any processing.

        Raises:
            ReplayError: entered before.
            BusyError: the set is full.
        """
        if th in self._seen:
            raise ReplayError("this request was already taken up under this key")
        if self.full:
            raise BusyError("the replay set is full: the key must be rotated")
        self._seen.add(th)
