"""Measurements of a CoMID: what a module should measure to. Parse only.

    measurement = {0?: key, 1: {0: version, 1: svn, 2: digests, 4: raw value, 5: mask, 11: name,
                                13: keys, 14: registers}, 2?: [authority, …]}

A mask may stand beside a raw value (earlier drafts) or in it. Members that are not read are named
in `unread`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError

from .cbor import CborValue, Tagged
from .comid_fields import (
    Identifier,
    array,
    identifier,
    keys,
    number,
    octets,
    optional,
    plain,
    table,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .cbor import CborKey

TAG_SVN: Final = 552
TAG_MIN_SVN: Final = 553
TAG_BYTES: Final = 560
TAG_MASKED: Final = 563

_AUTHORIZED_BY: Final = 2


@dataclass(frozen=True, slots=True)
class Digest:
    """One digest: algorithm number of the Named Information registry or name, and the value."""

    algorithm: int | str
    value: bytes


@dataclass(frozen=True, slots=True)
class Svn:
    """A security version: exactly this, or at least this."""

    number: int
    minimum: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a module should measure to.

    Attributes:
        key: the measured element; None where the environment names it.
        version, scheme: version text and how versions compare.
        svn: security version.
        digests: alternatives in different algorithms.
        registers: digests by register number or name.
        raw, mask: a raw value and which of its bits count; `raw_tag` how it was given.
        name: name of the component.
        keys: keys or signers in it.
        authorized_by: how many keys the measurement names as its authority, None for no member.
        unread: value members that are not read, by number.
        members: every value member present, by number.
    """

    key: Identifier | None
    version: str | None
    scheme: int | str | None
    svn: Svn | None
    digests: tuple[Digest, ...] | None
    registers: Mapping[CborKey, tuple[Digest, ...]]
    raw: bytes | None
    raw_tag: int | None
    mask: bytes | None
    name: str | None
    keys: tuple[Identifier, ...] | None
    authorized_by: int | None
    unread: tuple[CborKey, ...]
    members: frozenset[CborKey]


def parse_measurement(value: CborValue) -> Measurement:
    fields = table(value, "CoMID measurement")
    values = table(fields.get(1), "CoMID measurement values")
    if fields.keys() - {0, 1, _AUTHORIZED_BY} or not values:
        raise MalformedError("CoMID measurement: expected a key, values and an authority")
    version = table(values.get(0, {}), "CoMID version")
    raw, raw_tag, mask = _raw(values)
    return Measurement(
        optional(fields.get(0), _element, "CoMID measurement key"),
        optional(version.get(0), text, "CoMID version"),
        optional(version.get(1), plain, "CoMID version scheme"),
        optional(values.get(1), _svn, "CoMID svn"),
        optional(values.get(2), digests, "CoMID digests"),
        _registers(values.get(14, {})),
        raw,
        raw_tag,
        mask,
        optional(values.get(11), text, "CoMID name"),
        None if 13 not in values else keys(values[13]),
        None if _AUTHORIZED_BY not in fields else len(keys(fields[_AUTHORIZED_BY])),
        tuple(key for key in values if key not in (0, 1, 2, 4, 5, 11, 13, 14)),
        frozenset(values),
    )


def _raw(values: Mapping[CborKey, CborValue]) -> tuple[bytes | None, int | None, bytes | None]:
    found, beside = values.get(4), optional(values.get(5), octets, "CoMID mask")
    if found is None:
        return None, None, beside
    if not isinstance(found, Tagged):
        return octets(found, "CoMID raw value"), None, beside
    if found.tag == TAG_MASKED:
        pair = array(found.value, "CoMID masked raw value")
        if len(pair) != 2 or beside is not None:
            raise MalformedError("CoMID masked raw value: expected a value and one mask")
        return octets(pair[0], "CoMID raw value"), TAG_MASKED, octets(pair[1], "CoMID mask")
    if found.tag != TAG_BYTES:
        raise MalformedError(f"CoMID raw value: found tag {found.tag}, expected {TAG_BYTES}")
    return octets(found.value, "CoMID raw value"), TAG_BYTES, beside


def digests(value: CborValue, what: str) -> tuple[Digest, ...]:
    """An array of [algorithm, value]."""
    found = []
    for item in array(value, what):
        pair = array(item, what)
        if len(pair) != 2:
            raise MalformedError(f"{what}: found {len(pair)} items, expected algorithm and value")
        found.append(Digest(plain(pair[0], what), octets(pair[1], what)))
    return tuple(found)


def _registers(value: CborValue) -> Mapping[CborKey, tuple[Digest, ...]]:
    fields = table(value, "CoMID registers")
    return MappingProxyType({key: digests(item, "CoMID register") for key, item in fields.items()})


def _svn(value: CborValue, what: str) -> Svn:
    if isinstance(value, Tagged):
        if value.tag not in (TAG_SVN, TAG_MIN_SVN):
            raise MalformedError(f"{what}: found tag {value.tag}, expected {TAG_SVN}")
        return Svn(number(value.value, what), value.tag == TAG_MIN_SVN)
    return Svn(number(value, what), minimum=False)


def _element(value: CborValue, what: str) -> Identifier:
    """A measured element; structured ones are named by their tag only."""
    if isinstance(value, Tagged) and isinstance(value.value, dict):
        return Identifier(value.tag, "")
    return identifier(value, what)
