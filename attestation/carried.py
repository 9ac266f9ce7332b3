"""Collateral as it travels beside evidence: whoever carries it adds nothing to it.

    {kind: {role: base64url}}

Vendors sign what is in it and date it; a reader verifies both. Carrying it lets a client judge raw
evidence offline, without asking any vendor which platforms it talks to. When it was fetched, nobody
signs, so a greatest age since then (`Policy.collateral_max_age_s`) cannot be held against it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError
from wire.ids import b64u

from .evidence import EVIDENCE_ITEMS_MAX, KIND_MAX
from .members import Members

if TYPE_CHECKING:
    from .examined import CollateralSet

# A revocation answer for each certificate of sixteen GPUs, and their manifests.
ROLES_MAX: Final = 96
PIECE_MAX: Final = 1024 * 1024  # what the cache keeps of the largest kind, reference manifests
COLLATERAL_MAX: Final = 2 * 1024 * 1024  # in base64, all together


def collateral_json(collateral: CollateralSet) -> dict[str, dict[str, str]]:
    """The form collateral travels in; kinds without any are left out."""
    return {
        kind: {role: b64u(data) for role, data in roles.items()}
        for kind, roles in collateral.items()
        if roles
    }


def parse_collateral(obj: object) -> CollateralSet:
    """Inverse of `collateral_json`; nothing in it is verified.

    Raises:
        MalformedError: not of that form, or larger than COLLATERAL_MAX.
    """
    if not isinstance(obj, dict) or len(obj) > EVIDENCE_ITEMS_MAX:
        raise MalformedError(f"collateral: expected an object of ≤ {EVIDENCE_ITEMS_MAX} kinds")
    found = {}
    total = 0
    for kind, roles in obj.items():
        if not isinstance(roles, dict) or len(roles) > ROLES_MAX or len(kind) > KIND_MAX:
            raise MalformedError(f"collateral: expected an object of ≤ {ROLES_MAX} roles a kind")
        members = Members(roles, f"collateral.{kind[:KIND_MAX]}", optional=tuple(roles))
        total += sum(len(text) for text in roles.values() if isinstance(text, str))
        if total > COLLATERAL_MAX:
            raise MalformedError(f"collateral: expected at most {COLLATERAL_MAX} bytes in all")
        found[kind] = MappingProxyType({role: members.blob(role, PIECE_MAX) for role in roles})
    return MappingProxyType(found)
