"""How a stranger's value is shown in a message: short, printable, on one line.

For protocol values and settings only. A prompt, an answer or a secret is never shown, however
short: a message says how long it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN_MAX: Final = 48  # enough to recognise a value; a message is a line, not a copy
LISTED_MAX: Final = 3  # accepted values named before the rest is counted
SHORT_TAG: Final = 23  # "sha256:" and 16 hex digits
NUMBER_BITS_MAX: Final = 64  # a longer number is no setting, and may be too long to print


def shown(value: str | bytes | None, limit: int = SHOWN_MAX) -> str:
    """`value` in quotes, cut to `limit` characters, everything but printable ASCII as `?`.

    Args:
        value: text, bytes (read as Latin-1), or None for what was not there.
        limit: most characters between the quotes.
    """
    if value is None:
        return "none"
    return f"'{cut(value.decode('latin-1') if isinstance(value, bytes) else value, limit)}'"


def listed(values: Iterable[str], most: int = LISTED_MAX, limit: int = SHORT_TAG) -> str:
    """The first of `values` in order, each cut to `limit`, and how many more there are."""
    every = sorted(values)
    text = ", ".join(cut(item, limit) for item in every[:most])
    more = len(every) - most
    return f"{text} and {more} more" if more > 0 else text or "none"


def cut(text: str, limit: int = SHOWN_MAX) -> str:
    """`text` without the quotes of `shown`."""
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:limit])
    return f"{kept}…" if len(text) > limit else kept


def json_kind(value: object) -> str:
    """The JSON name of a parsed value's type."""
    names: dict[type, str] = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        type(None): "null",
    }
    return names.get(type(value), "an object")


def json_value(value: object) -> str:
    """A parsed number or boolean as JSON spells it; of anything else only its type.

    A text found where a number belongs may be anybody's words, so it is never repeated.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if isinstance(value, int) and value.bit_length() > NUMBER_BITS_MAX:
            return "a number of more than 64 bits"
        return repr(value)
    return json_kind(value)
