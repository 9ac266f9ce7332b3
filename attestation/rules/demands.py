"""Members that rules of several kinds share: posture demands, measurements, roots."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.formats import pem
from attestation.members import Members
from attestation.posture import CONTROLS, FIELDS_MAX, STATES
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError, PolicyError
from wire.excerpt import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOTS_MAX: Final = 16
ROOT_PEM_MAX: Final = 8192
MEASUREMENTS_MAX: Final = 256

# Why a rule for workers names images; kinds put what was found before it.
IMAGE_NEEDED: Final = (
    "of the images that you built or read: any other image could claim a worker that is listed"
)


def measurements(members: Members) -> frozenset[str]:
    """The accepted worker measurements, "sha256:" tags; at least one."""
    return frozenset(members.digests("measurements", MEASUREMENTS_MAX, 1))


def roots(members: Members) -> tuple[bytes, ...]:
    """The policy's own trust anchors, DER."""
    return tuple(_root(members, root) for root in members.array("roots", ROOTS_MAX, 1))


def fingerprints(certificates: tuple[bytes, ...]) -> frozenset[bytes]:
    """SHA-256 of each certificate's DER."""
    return frozenset(hashlib.sha256(der).digest() for der in certificates)


def posture(members: Members) -> Mapping[str, str]:
    """Control name to the weakest state accepted; empty when the rule demands none."""
    obj = members.value("posture") if "posture" in members else {}
    if not isinstance(obj, dict) or len(obj) > FIELDS_MAX:
        raise members.fail("posture", f"an object of at most {FIELDS_MAX} controls")
    demands = Members(obj, "policy.accept.posture", optional=tuple(obj), error=PolicyError)
    for name, state in obj.items():
        if name not in CONTROLS:  # no worker would ever meet it
            raise PolicyError(
                f"policy.accept.posture: found {shown(name)}, expected only {', '.join(CONTROLS)}"
            )
        if state not in STATES[:2]:  # demanding "refused" would demand nothing
            raise demands.fail(name, " or ".join(STATES[:2]))
    return MappingProxyType(dict(obj))


def _root(members: Members, root: object) -> bytes:
    if isinstance(root, str) and len(root) <= ROOT_PEM_MAX:
        try:
            der = pem.certificate(root.encode("ascii"), "root")
            load_certificate(der)
        except (UnicodeEncodeError, MalformedError, AttestationError):
            pass
        else:
            return der
    raise members.fail("roots", "PEM texts of one certificate each")
