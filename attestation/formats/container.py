"""The body of hardware evidence as a live worker sends it: byte strings by role, and the parts.

    body  = JSON {role: b64, …, "parts": {name: "sha256:…"}}

Roles are the scheme's names for its pieces ("report", "quote", …), so that one piece can never be
taken for another by its place. Unsigned as a whole: every piece is verified for itself, and the
parts count only if a register in the evidence proves their measurement. Parse only.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.evidence import BODY_ITEMS_MAX, EVIDENCE_MAX
from attestation.measurement import parts_of
from attestation.members import Members
from wire.canonical import encode, parse_strict
from wire.errors import MalformedError
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PARTS: Final = "parts"
# Every role's bytes together can fill the body, and no more than the body; base64 adds a third.
ROLE_MAX: Final = EVIDENCE_MAX * 3 // 4
_DEPTH: Final = 2  # the object and its parts


@dataclass(frozen=True, slots=True)
class Container:
    """A parsed, unverified body.

    Attributes:
        roles: bytes by role; optional roles that were not sent are absent.
        parts: part name to "sha256:" tag, from which the measurement follows.
    """

    roles: Mapping[str, bytes]
    parts: Mapping[str, str]


def encode_container(roles: Mapping[str, bytes], parts: Mapping[str, str]) -> bytes:
    """Body bytes; what it returns parses.

    Args:
        roles: bytes by role, at least one, none empty.
        parts: part name to "sha256:" tag.

    Raises:
        ValueError: a role is called "parts".
        MalformedError: no role, an empty one, bad parts, or a body larger than EVIDENCE_MAX.
    """
    if PARTS in roles:
        raise ValueError('container: found a role called "parts", expected another name')
    if not roles:
        raise MalformedError("container: found no role, expected at least one")
    body = encode({**{role: b64u(data) for role, data in roles.items()}, PARTS: dict(parts)})
    parse_container(body, tuple(roles), ())
    return body


def parse_container(body: bytes, required: Sequence[str], optional: Sequence[str]) -> Container:
    """The roles and parts in an evidence body, unverified.

    Args:
        body: as received.
        required: roles that must be there.
        optional: further roles that may be there; anything else is refused.

    Raises:
        MalformedError: too large, not strict JSON, a role missing, unknown, empty or not base64url,
            or parts that are none.
    """
    members = Members(
        parse_strict(body, max_depth=_DEPTH, max_bytes=EVIDENCE_MAX, max_items=BODY_ITEMS_MAX),
        "container",
        required=(*required, PARTS),
        optional=optional,
    )
    roles = {}
    for role in (*required, *optional):
        if role not in members:
            continue
        roles[role] = members.blob(role, ROLE_MAX)
        if not roles[role]:
            # An empty piece would parse as "nothing wrong in it" somewhere; absence has one form.
            raise members.fail(role, "at least one byte")
    return Container(MappingProxyType(roles), MappingProxyType(parts_of(members.value(PARTS))))
