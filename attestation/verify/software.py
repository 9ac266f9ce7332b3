"""Who signed a software statement? One of the given development roots, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation.formats.software import LABEL
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.formats.software import SoftwareStatement


def verify_statement(statement: SoftwareStatement, roots: Sequence[bytes]) -> bytes:
    """The root (32-byte Ed25519 public key) whose signature the statement carries.

    Raises:
        AttestationError: none of `roots` signed it (`signature_invalid`).
    """
    for root in roots:
        try:
            Ed25519PublicKey.from_public_bytes(root).verify(statement.sig, LABEL + statement.raw)
        except (InvalidSignature, ValueError):
            continue
        return root
    raise AttestationError(
        f"software: found no valid signature, expected one by any of {len(roots)} accepted roots",
        reasons=("signature_invalid",),
    )
