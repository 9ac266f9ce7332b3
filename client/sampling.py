"""Drawing candidates: uniform, without replacement, from the whole list, anew for every request.

A gateway that could predict or steer the draw could lead one tenant's requests to one worker; a
triple kept over several requests would mark their sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
_DRAW_BYTES = 8  # rejection below makes the draw uniform for any list shorter than 2^64


def shuffled(items: Sequence[Item], rng: Callable[[int], bytes]) -> list[Item]:
    """A uniformly random order of `items` (Fisher-Yates)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = below(last + 1, rng)
        order[last], order[other] = order[other], order[last]
    return order


def below(limit: int, rng: Callable[[int], bytes]) -> int:
    """A uniform integer in [0, limit); redraws instead of folding, so no value is favoured."""
    span = 1 << (8 * _DRAW_BYTES)
    ceiling = span - span % limit
    while True:
        value = int.from_bytes(rng(_DRAW_BYTES), "big")
        if value < ceiling:
            return value % limit
