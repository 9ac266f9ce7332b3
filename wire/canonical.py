"""JSON in two strengths: `evj1`, which has one spelling, and strict JSON as received.

`evj1` is RFC 8785 without floats, for documents this project makes and hashes. Strict JSON is for
documents that are hashed as received bytes: it is never re-serialised, and everything about which
two parsers could disagree is refused.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from .errors import MalformedError
from .limits import JSON_DEPTH_MAX, JSON_MAX

INT_MAX = 2**53 - 1  # beyond it a reader with doubles sees another number
DIGITS_MAX = 24  # longest number literal's integer part; stops quadratic big-integer parsing
# Where no digits stand in such a row behind what a number may follow, which in hex is a quotation
# mark, no number can be too long: the parser's own numbers do, several times as fast as a call for
# each. A sign counts as a digit. Looked for as bytes: an expression takes ten times as long, and
# all other threads wait for it.
_NUMBERS: Final = bytes.maketrans(b"0123456789:[-\t\n\r ", b"0" * 10 + b"," * 7)
_LONG: Final = b"," + b"0" * DIGITS_MAX
# No document has more items than these: a container's first follows its bracket, others a comma.
_ITEM_MARKS: Final = b",[{"


def encode(obj: object) -> bytes:
    """The one `evj1` spelling of `obj`: sorted keys, no spaces, UTF-8, no floats.

    Raises:
        MalformedError: a float, a key that is not printable ASCII, an integer beyond ±(2^53−1),
            a lone surrogate, or nesting deeper than 8.
    """
    _check_evj1(obj, JSON_DEPTH_MAX)
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def parse_evj1(
    data: bytes, limit: int = JSON_MAX, *, max_items: int | None = None
) -> dict[str, Any]:
    """The object spelled by `data`, which must be its one `evj1` spelling.

    Args:
        data: received bytes.
        limit: largest accepted size in bytes.
        max_items: as `parse_strict` has it.

    Raises:
        MalformedError: not an object, too long, or any other spelling.
    """
    obj = parse_strict(data, max_bytes=limit, max_items=max_items)
    if not isinstance(obj, dict):
        raise MalformedError(f"evj1: expected an object, found {_kind(obj)}")
    if encode(obj) != bytes(data):
        raise MalformedError("evj1: not the canonical spelling")
    return obj


def parse_strict(
    data: bytes,
    *,
    max_depth: int = JSON_DEPTH_MAX,
    max_bytes: int = JSON_MAX,
    max_items: int | None = None,
) -> Any:
    """JSON as received, refusing everything two parsers could read differently.

    Refused: more than `max_bytes`, invalid UTF-8, a byte order mark, duplicate keys, NaN and
    infinities (also spelled `1e999`), absurdly long numbers, lone surrogates, containers nested
    deeper than `max_depth` (a scalar has depth 0). With `max_items`, also more than that many
    commas and opening brackets, those in texts among them: for documents of a few long texts from
    whoever may connect, of which a mebibyte of small items costs a hundred times as much.

    Raises:
        MalformedError: any of these.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"JSON: at most {max_bytes} bytes, found {len(data)}")
    raw = bytes(data)
    if max_items is not None:  # before it is parsed
        items = len(raw) - len(raw.translate(None, _ITEM_MARKS))
        if items > max_items:
            raise MalformedError(f"JSON: at most {max_items} items, found {items}")
    try:
        text = raw.decode("utf-8")
        # Without escapes every quotation mark begins or ends a text, so that counting them tells
        # whether a key is repeated; a call for each object takes three times as long.
        counted = "\\" not in text
        long = _LONG in (b"," + raw).translate(_NUMBERS)
        obj = _DECODERS[counted, long].decode(text)
    except UnicodeDecodeError as cause:
        raise MalformedError(
            f"JSON: not valid UTF-8 near byte {cause.start}, expected UTF-8 text"
        ) from cause
    except json.JSONDecodeError as cause:
        raise MalformedError(f"JSON: not well formed near byte {cause.pos}") from None
    except RecursionError:
        raise MalformedError(f"JSON: nested deeper than {max_depth}") from None
    # Only an escape can spell a surrogate: as bytes it is no UTF-8.
    texts = _check_received(obj, max_depth, surrogates=not counted)
    if counted and 2 * texts != text.count('"'):
        raise _repeated()
    return obj


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _repeated()
    return found


def _repeated() -> MalformedError:
    return MalformedError("JSON: an object repeats a key")


def _constant(name: str) -> NoReturn:
    raise MalformedError(f"JSON: {name} is not a number")


def _int(literal: str) -> int:
    if len(literal) > DIGITS_MAX:
        raise MalformedError(f"JSON: an integer has more than {DIGITS_MAX} digits")
    return int(literal)


# By whether keys are counted afterwards, and whether a number may be too long.
_DECODERS: Final = {
    (counted, long): json.JSONDecoder(
        object_pairs_hook=None if counted else _object,
        parse_constant=_constant,
        parse_int=_int if long else None,
    )
    for counted in (False, True)
    for long in (False, True)
}


def _kind(obj: object) -> str:
    return type(obj).__name__


def _check_received(obj: Any, max_depth: int, *, surrogates: bool) -> int:
    """Depth, numbers and texts of a parsed value, without recursion; how many texts it has."""
    level, depth, found = [obj], 0, 0
    while True:
        below: list[Any] = []
        strings: list[str] = []
        nested = False
        for item in level:
            kind = type(item)
            if kind is str:
                strings.append(item)
            elif kind is dict:
                nested = True
                strings += item
                below += item.values()
            elif kind is list:
                nested = True
                below += item
            elif kind is float and not math.isfinite(item):
                raise MalformedError("JSON: a number is too large")
        found += len(strings)
        if surrogates:
            _check_text("".join(strings))
        if not nested:
            return found
        if depth == max_depth:
            raise MalformedError(f"JSON: nested deeper than {max_depth}")
        level, depth = below, depth + 1


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("JSON: a string holds a lone surrogate") from None


def _check_evj1(obj: object, max_depth: int) -> None:
    """The types, keys and depth that `evj1` can spell, without recursion."""
    level: list[object] = [obj]
    depth = 0
    while level:
        below: list[object] = []
        nested = False
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    _check_key(key)
                nested = True
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                nested = True
                below.extend(item)
            elif isinstance(item, str):
                _check_text(item)
            else:
                _check_scalar(item)
        depth += nested
        if depth > max_depth:
            raise MalformedError(f"JSON: nested deeper than {max_depth}")
        level = below


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise MalformedError(f"JSON: a key is {_kind(key)}, expected a string")
    if not (key and key.isascii() and key.isprintable()):
        # ASCII keys sort alike by code point (Python) and by UTF-16 unit (RFC 8785).
        raise MalformedError("evj1: a key is not printable ASCII")


def _check_scalar(item: object) -> None:
    if item is None or isinstance(item, bool):
        return
    if not isinstance(item, int):
        raise MalformedError(f"evj1: {_kind(item)} is not allowed")
    if abs(item) > INT_MAX:
        raise MalformedError("evj1: an integer is beyond 2^53-1")
