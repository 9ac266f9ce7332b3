"""The rule for `software` evidence: a development root vouches, nothing is proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attestation.evidence import SOFTWARE
from attestation.members import Members
from wire.errors import MalformedError, PolicyError
from wire.ids import unb64u

from .demands import ROOTS_MAX, measurements, posture

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class SoftwareRule:
    """Accepts `software` evidence.

    Attributes:
        roots: Ed25519 public keys, 32 bytes each.
        measurements: accepted measurements, "sha256:" tags.
        posture: control name to the weakest state accepted.
    """

    roots: tuple[bytes, ...]
    measurements: frozenset[str]
    posture: Mapping[str, str]
    kind: str = SOFTWARE


def parse(item: object) -> SoftwareRule:
    """The rule in an `accept` item.

    Raises:
        PolicyError: anything unknown, missing or of another type.
    """
    members = Members(
        item,
        "policy.accept",
        required=("kind", "roots", "measurements"),
        optional=("posture",),
        error=PolicyError,
    )
    roots = []
    for root in members.array("roots", ROOTS_MAX, 1):
        try:
            roots.append(unb64u(root, 32))
        except MalformedError:
            raise members.fail("roots", "Ed25519 public keys of 32 bytes in base64url") from None
    return SoftwareRule(tuple(roots), measurements(members), posture(members))
