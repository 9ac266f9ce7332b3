"""An index's JSON. What nothing reads may be anything JSON allows; what is read, is read strictly.

One sample's number that is too long must not cost the other samples their verdict, and what stands
in a note is nobody's business. So the whole is read as JSON, and each part that counts is checked
when it is taken: `check`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NoReturn

from wire.canonical import DIGITS_MAX
from wire.errors import MalformedError

DEPTH_MAX: Final = 24


class Repeated(dict[str, Any]):
    """An object that has a key twice: two readers would take different values."""


@dataclass(frozen=True, slots=True)
class LongNumber:
    """A number of more digits than is read."""


def read_document(raw: bytes, limit: int) -> Any:
    """The JSON in `raw`, parts of which are still to be checked.

    Args:
        raw: received bytes.
        limit: most bytes of it.

    Raises:
        MalformedError: too long, not UTF-8, not JSON, or nested hundreds of times.
    """
    if len(raw) > limit:
        raise MalformedError(f"JSON: at most {limit} bytes, found {len(raw)}")
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_int,
            parse_float=_float,
        )
    except UnicodeDecodeError as cause:
        raise MalformedError("JSON: not valid UTF-8") from cause
    except json.JSONDecodeError as cause:
        raise MalformedError(f"JSON: not well formed near byte {cause.pos}") from None
    except RecursionError:
        raise MalformedError("JSON: nested too deep") from None


def check(value: object, where: str) -> None:
    """What is taken from a document says the same to every reader.

    Raises:
        MalformedError: a repeated key, a number or a text that is not read, or deep nesting.
    """
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        for item in level:
            _check_one(item, where)
        if not any(isinstance(item, dict | list) for item in level):
            return
        level = [inner for item in level for inner in _inner(item)]
    raise MalformedError(f"{where}: nested deeper than {DEPTH_MAX}")


def _check_one(item: object, where: str) -> None:
    if isinstance(item, Repeated):
        raise MalformedError(f"{where}: an object repeats a key")
    if isinstance(item, LongNumber):
        raise MalformedError(f"{where}: a number has more than {DIGITS_MAX} digits")
    if isinstance(item, float) and not math.isfinite(item):
        raise MalformedError(f"{where}: a number is too large")
    if isinstance(item, str) and not item.isascii():
        try:
            item.encode()
        except UnicodeEncodeError:
            raise MalformedError(f"{where}: a text has half a character") from None


def _inner(item: object) -> Any:
    if isinstance(item, dict):
        return chain(item, item.values())
    return item if isinstance(item, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(found)


def _constant(name: str) -> NoReturn:
    raise MalformedError(f"JSON: {name} is not a number")


def _int(literal: str) -> int | LongNumber:
    return int(literal) if len(literal) <= DIGITS_MAX else LongNumber()


def _float(literal: str) -> float | LongNumber:
    # Twenty-four characters spell every float; more of them say what no reader of floats sees.
    return float(literal) if len(literal) <= DIGITS_MAX else LongNumber()
