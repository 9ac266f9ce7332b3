"""One target: where its inputs come from, what runs, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fuzz.seeds import Seed

LIMIT_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        name: as given on the command line.
        seeds: honest inputs, at least one.
        run: (roles, the seed's context); True counts as "still accepted as genuine".
        errors: what it may raise.
        words: tokens its format knows.
        limit_ms: processor time of one input.
    """

    name: str
    seeds: Callable[[], Sequence[Seed]]
    run: Callable[[Mapping[str, bytes], Any], bool]
    errors: tuple[type[Exception], ...]
    words: tuple[bytes, ...] = ()
    limit_ms: int = LIMIT_MS
