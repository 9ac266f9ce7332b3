"""The CBOR a COSE_Sign1 needs, and nothing else.

Types: integers of -2^64..2^64-1, byte strings, text strings, arrays, maps with integer or text
keys, tag 18. Floats, simple values (true, false, null), other tags, indefinite lengths are refused.
Exactly one encoding of a value is accepted (RFC 8949 §4.2.1): shortest heads, map keys in bytewise
order of their encodings, no duplicates, no trailing bytes. General codecs accept all of these, and
every second spelling of a signed header is a place to hide a second meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, Union

from wire.errors import MalformedError

DATA_MAX = 64 * 1024  # a statement is about 2 KiB
DEPTH_MAX = 6  # tag > array > map > map is what COSE with CWT claims uses
MAP_MAX = 16
ARRAY_MAX = 64
TAG_SIGN1 = 18

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_HEAD_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}

CborKey: TypeAlias = int | str
CborValue: TypeAlias = Union[
    int, bytes, str, "list[CborValue]", "dict[CborKey, CborValue]", "Tagged"
]


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagged value; only tag 18 (COSE_Sign1) exists here."""

    tag: int
    value: CborValue


def encode(value: CborValue) -> bytes:
    """Encode deterministically. A type outside the subset is a caller bug: `TypeError`."""
    if isinstance(value, bool) or not isinstance(value, int | bytes | str | list | dict | Tagged):
        msg = f"int, bytes, str, list, dict or Tagged expected, found {type(value).__name__}"
        raise TypeError(msg)
    if isinstance(value, int):
        return _head(_UINT, value) if value >= 0 else _head(_NINT, -1 - value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(_TEXT, len(raw)) + raw
    if isinstance(value, list):
        return _head(_ARRAY, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return _head(_MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
    if value.tag != TAG_SIGN1:
        msg = f"tag {TAG_SIGN1} expected, found {value.tag}"
        raise ValueError(msg)
    return _head(_TAG, value.tag) + encode(value.value)


def decode(data: bytes) -> CborValue:
    """Decode one item that fills `data` exactly; anything else raises `MalformedError`."""
    if len(data) > DATA_MAX:
        raise _malformed(f"at most {DATA_MAX} bytes expected, found {len(data)}")
    reader = _Reader(data)
    value = reader.item(0)
    if reader.at != len(data):
        raise _malformed(f"end of data expected, found {len(data) - reader.at} more bytes")
    return value


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in _HEAD_SIZES.items():
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    msg = "integer of at most 64 bits expected"
    raise ValueError(msg)


class _Reader:
    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise _malformed(f"{count} more bytes expected, found {len(self.data) - self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def head(self) -> tuple[int, int]:
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major > _TAG:
            raise _malformed("no float and no simple value expected")
        if info < 24:
            return major, info
        size = _HEAD_SIZES.get(info)
        if size is None:
            raise _malformed("definite length expected")
        argument = int.from_bytes(self.take(size), "big")
        if argument < (24 if size == 1 else 1 << 4 * size):
            raise _malformed("shortest integer encoding expected")
        return major, argument

    def item(self, depth: int) -> CborValue:
        if depth > DEPTH_MAX:
            raise _malformed(f"nesting of at most {DEPTH_MAX} expected")
        major, argument = self.head()
        if major == _UINT:
            return argument
        if major == _NINT:
            return -1 - argument
        if major == _BYTES:
            return self.take(argument)
        if major == _TEXT:
            try:
                return self.take(argument).decode("utf-8")
            except UnicodeDecodeError as error:
                raise _malformed("valid UTF-8 text expected") from error
        if major == _ARRAY:
            if argument > ARRAY_MAX:
                raise _malformed(f"array of at most {ARRAY_MAX} expected, found {argument}")
            return [self.item(depth + 1) for _ in range(argument)]
        if major == _MAP:
            return self.map(argument, depth)
        if argument != TAG_SIGN1:
            raise _malformed(f"tag {TAG_SIGN1} expected, found {argument}")
        return Tagged(argument, self.item(depth + 1))

    def map(self, count: int, depth: int) -> dict[CborKey, CborValue]:
        if count > MAP_MAX:
            raise _malformed(f"map of at most {MAP_MAX} expected, found {count}")
        found: dict[CborKey, CborValue] = {}
        previous = b""
        for _ in range(count):
            start = self.at
            key = self.item(depth + 1)
            if not isinstance(key, int | str):
                raise _malformed("integer or text map key expected")
            encoded = self.data[start : self.at]
            if encoded <= previous:
                raise _malformed("map keys in strictly ascending order expected")
            previous = encoded
            found[key] = self.item(depth + 1)
        return found


def _malformed(message: str) -> MalformedError:
    return MalformedError(f"CBOR: {message}", code="cbor_malformed")
