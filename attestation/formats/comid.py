"""CoMID: a module's reference values and keys, as CoRIM carries them. Parse only.

    {1: {0: tag id}, 4: {0: [reference triple, …], 1: [endorsed …], 2: [identity key …],
                         3: [attest key …], other triples}}
    triple = [environment, measurement | [measurement, …]]     key triple = [environment, [key, …]]

The draft grew by renumbering and by loosening: a lone measurement may stand for a list of one, a
mask beside a raw value or in it. Both are read. What is not read is named in `unread`, so that an
import knows what it did not understand; nothing in `unread` ever becomes a reference value.

Spec: draft-ietf-rats-corim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from wire.errors import MalformedError
from wire.excerpt import cut

from .comid_fields import (
    Identifier,
    array,
    identifier,
    keys,
    number,
    one_or_more,
    optional,
    table,
    text,
)
from .comid_measurement import Measurement, parse_measurement

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cbor import CborValue

TAG_OID: Final = 111
TAG_UEID: Final = 550
TAG_PKIX_KEY: Final = 554

_REFERENCE, _ENDORSED, _IDENTITY, _ATTEST = range(4)

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Environment:
    """Which module a statement is about; at least one member is set."""

    class_id: Identifier | None
    vendor: str | None
    model: str | None
    layer: int | None
    index: int | None
    instance: Identifier | None
    group: Identifier | None

    def text(self) -> str:
        """Members that are set, in fixed order, as one line."""
        named = {
            "class": self.class_id,
            "vendor": self.vendor,
            "model": self.model,
            "layer": self.layer,
            "index": self.index,
            "instance": self.instance,
            "group": self.group,
        }
        return " ".join(
            f"{name}={value.text() if isinstance(value, Identifier) else repr(value)}"
            for name, value in named.items()
            if value is not None
        )


@dataclass(frozen=True, slots=True)
class ValueTriple:
    """What one module should measure to."""

    environment: Environment
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class KeyTriple:
    """Keys that belong to one module.

    Attributes:
        environment: which module.
        keys: its keys.
        conditional: whether they count under a condition, which is not read.
    """

    environment: Environment
    keys: tuple[Identifier, ...]
    conditional: bool


@dataclass(frozen=True, slots=True)
class Comid:
    """A parsed CoMID.

    Attributes:
        tag_id: its name.
        reference: reference values.
        endorsed: what an endorser adds to a module that matches.
        identity_keys, attest_keys: keys by module.
        unread: kinds of triples and members that are not read.
    """

    tag_id: Identifier
    reference: tuple[ValueTriple, ...]
    endorsed: tuple[ValueTriple, ...]
    identity_keys: tuple[KeyTriple, ...]
    attest_keys: tuple[KeyTriple, ...]
    unread: tuple[str, ...]


def parse_comid(value: CborValue) -> Comid:
    """A CoMID from its decoded map.

    Raises:
        MalformedError: not a CoMID.
    """
    fields = table(value, "CoMID")
    tag = table(fields.get(1), "CoMID tag identity")
    triples = table(fields.get(4), "CoMID triples")
    if not triples:
        raise MalformedError("CoMID triples: found none, expected at least one kind")
    unread = [f"member {cut(str(key))}" for key in fields if key not in range(5)]
    unread += [f"triples {cut(str(key))}" for key in triples if key not in range(4)]
    return Comid(
        identifier(tag.get(0), "CoMID tag id"),
        _each(triples.get(_REFERENCE), _value_triple),
        _each(triples.get(_ENDORSED), _value_triple),
        _each(triples.get(_IDENTITY), _key_triple),
        _each(triples.get(_ATTEST), _key_triple),
        tuple(unread),
    )


def _each(value: CborValue, parse: Callable[[CborValue], _Read]) -> tuple[_Read, ...]:
    return () if value is None else tuple(parse(item) for item in array(value, "CoMID triples"))


def _value_triple(value: CborValue) -> ValueTriple:
    fields = array(value, "CoMID triple")
    if len(fields) != 2:
        raise MalformedError(f"CoMID triple: found {len(fields)} items, expected 2")
    return ValueTriple(
        _environment(fields[0]), tuple(parse_measurement(item) for item in one_or_more(fields[1]))
    )


def _key_triple(value: CborValue) -> KeyTriple:
    fields = array(value, "CoMID key triple")
    if len(fields) not in (2, 3):
        raise MalformedError(f"CoMID key triple: found {len(fields)} items, expected 2 or 3")
    return KeyTriple(_environment(fields[0]), keys(fields[1]), len(fields) == 3)


def _environment(value: CborValue) -> Environment:
    fields = table(value, "CoMID environment")
    if not fields or fields.keys() - {0, 1, 2}:
        raise MalformedError("CoMID environment: expected a class, an instance or a group")
    group = table(fields.get(0, {}), "CoMID class")
    if group.keys() - set(range(5)) or (0 in fields and not group):
        raise MalformedError("CoMID class: expected an id, vendor, model, layer or index")
    return Environment(
        optional(group.get(0), identifier, "CoMID class id"),
        optional(group.get(1), text, "CoMID vendor"),
        optional(group.get(2), text, "CoMID model"),
        optional(group.get(3), number, "CoMID layer"),
        optional(group.get(4), number, "CoMID index"),
        optional(fields.get(1), identifier, "CoMID instance"),
        optional(fields.get(2), identifier, "CoMID group"),
    )
