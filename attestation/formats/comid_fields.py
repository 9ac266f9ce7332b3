"""Typed readers of the values in a decoded CoMID: each gives the type asked for, or refuses.

Every reader takes the value and what it is, for the sentence of its `MalformedError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from wire.errors import MalformedError

from .cbor import CborValue, Tagged

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cbor import CborKey

LIST_MAX: Final = 1024  # triples of a CoMID, measurements of a triple, digests of a measurement

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier with the tag that says what it is; no tag for a plain one."""

    tag: int | None
    value: int | str | bytes

    def text(self) -> str:
        """`tag:value` with bytes in hex; distinct identifiers have distinct texts."""
        kind = "" if self.tag is None else f"{self.tag}:"
        if isinstance(self.value, bytes):
            return f"{kind}h'{self.value.hex()}'"
        return f"{kind}{self.value!r}"


def keys(value: CborValue) -> tuple[Identifier, ...]:
    """Keys, certificates or thumbprints, by kind and text; a lone one counts as a list."""
    return tuple(_key(item) for item in one_or_more(value))


def _key(value: CborValue) -> Identifier:
    """A key or thumbprint; structured kinds (COSE keys, thumbprints) are named, not opened."""
    if isinstance(value, Tagged) and not isinstance(value.value, int | str | bytes):
        return Identifier(value.tag, "")
    return identifier(value, "CoMID key")


def identifier(value: CborValue, what: str) -> Identifier:
    """A number, text or bytes, tagged or not."""
    inner = value.value if isinstance(value, Tagged) else value
    if isinstance(inner, bool) or not isinstance(inner, int | str | bytes):
        raise MalformedError(f"{what}: expected a number, text or bytes")
    return Identifier(value.tag if isinstance(value, Tagged) else None, inner)


def plain(value: CborValue, what: str) -> int | str:
    """A number or text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise MalformedError(f"{what}: expected a number or text")
    return value


def number(value: CborValue, what: str) -> int:
    """A number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedError(f"{what}: expected a number from 0")
    return value


def text(value: CborValue, what: str) -> str:
    """Text."""
    if not isinstance(value, str):
        raise MalformedError(f"{what}: expected text")
    return value


def octets(value: CborValue, what: str) -> bytes:
    """Bytes."""
    if not isinstance(value, bytes):
        raise MalformedError(f"{what}: expected bytes")
    return value


def array(value: CborValue, what: str) -> list[CborValue]:
    """An array of at most LIST_MAX."""
    if not isinstance(value, list) or len(value) > LIST_MAX:
        raise MalformedError(f"{what}: expected an array of at most {LIST_MAX}")
    return value


def one_or_more(value: CborValue) -> list[CborValue]:
    """A list, or a lone item as a list of one: earlier drafts allowed that."""
    return array(value, "CoMID list") if isinstance(value, list) else [value]


def optional(value: CborValue, read: Callable[[CborValue, str], _Read], what: str) -> _Read | None:
    """The value as `read` reads it; None if it is absent."""
    return None if value is None else read(value, what)


def table(value: CborValue, what: str) -> dict[CborKey, CborValue]:
    """A map."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what}: expected a map")
    return value
