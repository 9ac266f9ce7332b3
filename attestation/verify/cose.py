"""The signature of a COSE_Sign1, under one key and the algorithms its caller names.

The message says which algorithm it used; the caller says which it may be. Each algorithm fixes
curve, hash and signature length, so that a message cannot choose a weaker pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.formats.cose import Sign1

ES256: Final = -7
EDDSA: Final = -8
ES384: Final = -35
ES512: Final = -36


@dataclass(frozen=True, slots=True)
class _Ecdsa:
    """One ECDSA algorithm: curve name, hash, bytes of r and of s."""

    curve: str
    digest: hashes.HashAlgorithm
    size: int


_ECDSA: Final[Mapping[int, _Ecdsa]] = {
    ES256: _Ecdsa("secp256r1", hashes.SHA256(), 32),
    ES384: _Ecdsa("secp384r1", hashes.SHA384(), 48),
    ES512: _Ecdsa("secp521r1", hashes.SHA512(), 66),
}


def verify_sign1(message: Sign1, key: object, algorithms: tuple[int, ...]) -> str:
    """`key` signed the message.

    Args:
        message: as parsed.
        key: the signer's public key, whose origin the caller has proved.
        algorithms: COSE algorithm numbers that may be used.

    Raises:
        AttestationError: `signature_invalid`.
    """
    if message.algorithm not in algorithms:
        raise _refused(f"found algorithm {message.algorithm}, expected one of {algorithms}")
    data = message.signed_bytes()
    try:
        if message.algorithm == EDDSA and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(message.signature, data)
            return "EdDSA"
        rules = _ECDSA.get(message.algorithm)
        if rules is None or not isinstance(key, ec.EllipticCurvePublicKey):
            raise _refused("the key is of another type than the algorithm")
        if key.curve.name != rules.curve:
            raise _refused(f"found a key on {key.curve.name}, expected {rules.curve}")
        if len(message.signature) != 2 * rules.size:
            raise _refused(f"found {len(message.signature)} bytes, expected {2 * rules.size}")
        r = int.from_bytes(message.signature[: rules.size], "big")
        s = int.from_bytes(message.signature[rules.size :], "big")
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(rules.digest))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        raise _refused("not signed by the key") from None
    return f"ECDSA, {rules.curve}, {rules.digest.name}"


def _refused(detail: str) -> AttestationError:
    return AttestationError(f"COSE signature: {detail}", reasons=("signature_invalid",))
