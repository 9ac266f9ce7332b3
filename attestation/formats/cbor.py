"""Strict CBOR, as vendors write it and as we do: one reading of every byte, or none.

A general codec keeps the last of two equal keys, reads lengths it was never given, turns tags into
objects of its choosing and nests until the stack ends. Each is a second meaning for signed bytes,
or a way to be stopped by them. This reader takes integers of 64 bits, byte and text strings,
arrays, maps with integer or text keys, true, false, null, and the tags its caller names; heads in
their shortest form, definite lengths, no key twice, nothing after the item. Key order is free:
vendors do not sort, and a signature covers the bytes as received.

Floats, bignums, other simple values and unnamed tags are refused, so no float passes for an
integer and no tag is opened unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, Union

from wire.errors import MalformedError

TAG_SIGN1: Final = 18

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_HEAD_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_INDEFINITE: Final = 31
_BREAK: Final = 0xFF
_SIMPLES: Final[dict[int, bool | None]] = {20: False, 21: True, 22: None}

CborKey: TypeAlias = int | str
CborValue: TypeAlias = Union[
    int, bytes, str, bool, "list[CborValue]", "dict[CborKey, CborValue]", "Tagged", None
]


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag that the dialect names, unopened."""

    tag: int
    value: CborValue


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one format may use of CBOR.

    Attributes:
        what: the format, for error sentences.
        size_max: bytes of input.
        depth_max: arrays, maps and tags inside each other; bounds the stack.
        items_max: data items in all; bounds time and memory, whatever the lengths claim.
        tags: tag numbers that may stand; any other is refused.
        simples: whether true, false and null may stand.
        indefinite_maps: whether maps may be of indefinite length: some vendors' encoders stream
            them. Strings in chunks and open arrays nobody needs.
    """

    what: str
    size_max: int
    depth_max: int
    items_max: int
    tags: frozenset[int] = frozenset()
    simples: bool = True
    indefinite_maps: bool = False


@dataclass(slots=True)
class Budget:
    """Items still allowed, shared by the pieces of one document that carries CBOR inside CBOR."""

    items: int


def decode(data: bytes, dialect: Dialect, budget: Budget | None = None) -> CborValue:
    """One item that fills `data` exactly.

    Args:
        data: the encoded item.
        dialect: what of CBOR may stand in it.
        budget: items left to a whole document, spent from here; None gives the dialect's own.

    Raises:
        MalformedError: it is not exactly one item of the dialect.
    """
    if len(data) > dialect.size_max:
        raise MalformedError(
            f"{dialect.what}: found {len(data)} bytes, expected at most {dialect.size_max}"
        )
    reader = _Reader(data, dialect, budget or Budget(dialect.items_max))
    value = reader.item(0)
    if reader.at != len(data):
        raise reader.refused(f"{len(data) - reader.at} bytes after the item", "none")
    return value


class _Reader:
    __slots__ = ("at", "budget", "data", "dialect")

    def __init__(self, data: bytes, dialect: Dialect, budget: Budget) -> None:
        self.data = data
        self.dialect = dialect
        self.budget = budget
        self.at = 0

    def refused(self, found: str, expected: str) -> MalformedError:
        return MalformedError(
            f"{self.dialect.what}: found {found} at {self.at}, expected {expected}"
        )

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left():
            raise self.refused(f"a length of {count}", f"at most the {self.left()} bytes left")
        self.at += count
        return self.data[self.at - count : self.at]

    def head(self) -> tuple[int, int | None]:
        """Major type and argument; None for an indefinite length."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        if info == _INDEFINITE:
            if major != _MAP or not self.dialect.indefinite_maps:
                raise self.refused("an indefinite length", "a definite one")
            return major, None
        if major == _SIMPLE:
            raise self.refused("a float or unknown simple value", "true, false or null")
        size = _HEAD_SIZES.get(info)
        if size is None:
            raise self.refused("a reserved length", "a definite one")
        argument = int.from_bytes(self.take(size), "big")
        if argument < (24 if size == 1 else 1 << 4 * size):
            raise self.refused("a long form of a short number", "the shortest form")
        return major, argument

    def item(self, depth: int) -> CborValue:
        if depth > self.dialect.depth_max:
            raise self.refused("deeper nesting", f"at most {self.dialect.depth_max}")
        self.budget.items -= 1
        if self.budget.items < 0:
            raise self.refused("more items", f"at most {self.dialect.items_max} in all")
        major, argument = self.head()
        if argument is None:
            return self.open_map(depth)
        if major == _UINT:
            return argument
        if major == _NINT:
            return -1 - argument
        if major == _BYTES:
            return self.take(argument)
        if major == _TEXT:
            return self.text(argument)
        if major == _ARRAY:
            if argument > self.left():  # each item takes a byte at least
                raise self.refused(f"an array of {argument}", f"at most {self.left()} items")
            return [self.item(depth + 1) for _ in range(argument)]
        if major == _MAP:
            return self.map(argument, depth)
        if major == _TAG:
            if argument not in self.dialect.tags:
                raise self.refused(f"tag {argument}", "only tags of the format")
            return Tagged(argument, self.item(depth + 1))
        if argument not in _SIMPLES or not self.dialect.simples:
            raise self.refused("a simple value", "one that the format has")
        return _SIMPLES[argument]

    def text(self, count: int) -> str:
        raw = self.take(count)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refused("bytes that are not UTF-8", "text") from None

    def map(self, count: int, depth: int) -> dict[CborKey, CborValue]:
        if count > self.left() // 2:  # each pair takes two bytes at least
            raise self.refused(f"a map of {count}", f"at most {self.left() // 2} pairs")
        found: dict[CborKey, CborValue] = {}
        for _ in range(count):
            self.pair(found, depth)
        return found

    def open_map(self, depth: int) -> dict[CborKey, CborValue]:
        found: dict[CborKey, CborValue] = {}
        while self.left() and self.data[self.at] != _BREAK:
            self.pair(found, depth)
        self.take(1)  # the break, or the end of data
        return found

    def pair(self, found: dict[CborKey, CborValue], depth: int) -> None:
        key = self.item(depth + 1)
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise self.refused("another map key", "an integer or text")
        if key in found:
            raise self.refused("a map key twice", "each key once")
        found[key] = self.item(depth + 1)
