"""Reproducible draws: the same seed gives the same inputs on every machine and version."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_Item = TypeVar("_Item")
_MASK = 2**64 - 1


class Draws:
    """SplitMix64: fast, seedable, and no part of any cryptography here.

    Args:
        seed: any number.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, end: int) -> int:
        """A number from 0 to end - 1; 0 where end is not positive."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ (mixed >> 31)) % end if end > 0 else 0

    def pick(self, items: Sequence[_Item]) -> _Item:
        """One of them."""
        return items[self.below(len(items))]

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.below(one_in) == 0

    def octets(self, count: int) -> bytes:
        """So many bytes."""
        words = -(-count // 8)
        return b"".join(self.below(_MASK).to_bytes(8, "little") for _ in range(words))[:count]

    def short(self, end: int) -> int:
        """A length up to end, most often a small one."""
        return self.below(min(end, 1 << self.below(12)) + 1)
