"""Settings as a person writes them, in TOML: bytes to a table.

Pure, and bounded: the standard parser takes time that grows with the square of a key's parts, nests
as deep as its own stack, and reads integers up to a length that raises something else.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

from wire.errors import MalformedError
from wire.excerpt import cut

#: Every file of settings is a page or two of text; anything larger is another file.
SETTINGS_MAX: Final = 64 * 1024
#: Bounds the parts of one dotted key, and so the parser's time; the longest setting is a path.
LINE_MAX: Final = 4096
_FAULT_MAX: Final = 120  # the parser's sentence may repeat a key of any length


def parse_settings(raw: bytes) -> dict[str, Any]:
    """The table that TOML text holds.

    Raises:
        MalformedError: longer than `SETTINGS_MAX`, no UTF-8, or no TOML.
    """
    if len(raw) > SETTINGS_MAX:
        raise MalformedError(f"found {len(raw)} bytes, expected at most {SETTINGS_MAX}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("found bytes that are no text, expected TOML settings") from None
    longest = max(map(len, text.split("\n")))
    if longest > LINE_MAX:
        raise MalformedError(
            f"found a line of {longest} characters, expected TOML settings in lines of at most "
            f"{LINE_MAX}"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fault = cut(str(error), _FAULT_MAX)
        raise MalformedError(
            f"found text that is not TOML ({fault}), expected TOML settings"
        ) from None
    except (ValueError, RecursionError):
        raise MalformedError(
            "found a number too long or values nested too deep, expected TOML settings"
        ) from None
