"""Where a value lacks what is expected of it: objects member by member, arrays whole.

Only the members that are expected count, so others may be there too. Types are compared exactly:
false is not 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Same: TypeAlias = "Callable[[object, object], bool]"  # of an expected value and what was found
ABSENT: Final = "(absent)"
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){4,}")  # shorter ones may be words


def equal(expected: object, found: object) -> bool:
    """Whether two values are one, where hex counts in any case."""
    return type(expected) is type(found) and (
        expected == found or _plain(expected) == _plain(found)
    )


def differences(
    expected: object, found: object, path: str, same: Same = equal
) -> list[tuple[str, tuple[Any, Any]]]:
    """Where `found` lacks what `expected` has: path to what was found and expected.

    Args:
        expected: the value stated.
        found: the one that is there.
        path: of both.
        same: tells of two values that are neither objects nor arrays whether they are one.
    """
    if isinstance(expected, dict):
        if not hasattr(found, "get"):
            return [(path or "claims", (found, expected))]
        return [
            entry
            for key, value in expected.items()
            for entry in differences(
                value, found.get(key, ABSENT), f"{path}.{key}".lstrip("."), same
            )
        ]
    if isinstance(expected, list):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return [(path, (found, expected))]
        return [
            entry
            for place, (value, other) in enumerate(zip(expected, found, strict=True))
            for entry in differences(value, other, f"{path}[{place}]", same)
        ]
    return [] if same(expected, found) else [(path, (found, expected))]


def _plain(value: object) -> object:
    """A value, and for bytes in hex one of their spellings."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return value.lower()
    return value
