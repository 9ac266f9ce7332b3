"""COSE_Sign1 (RFC 9052) with Ed25519: written with algorithm -19 (RFC 9864), -8 accepted on import.

The algorithm is read from the protected header only and from a fixed list: a message cannot choose
`none`, a MAC, or an algorithm an attacker moved to where no signature covers it. Detached payloads,
`crit` and counter-signatures do not exist here. Signatures are checked over received bytes; nothing
is re-encoded to be verified. Refusals are `MalformedError` with code `cose_malformed`,
`cose_algorithm` or `cose_signature`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation.formats.cbor import TAG_SIGN1, Tagged
from wire.errors import MalformedError

from .cbor import decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from attestation.formats.cbor import CborKey, CborValue

HEADER_ALG: Final = 1
HEADER_CRIT: Final = 2
HEADER_CONTENT_TYPE: Final = 3
HEADER_KID: Final = 4
HEADER_CWT_CLAIMS: Final = 15
CWT_ISS: Final = 1
CWT_SUB: Final = 2
ALG_ED25519: Final = -19
ALG_EDDSA: Final = -8
ALLOWED_ALGS: Final = (ALG_ED25519, ALG_EDDSA)
SIGNATURE_LEN: Final = 64


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed, *unverified* COSE_Sign1. `protected_raw` is what the signature covers."""

    protected_raw: bytes
    protected: Mapping[CborKey, CborValue]
    unprotected: Mapping[CborKey, CborValue]
    payload: bytes
    signature: bytes

    def to_be_signed(self, external_aad: bytes = b"") -> bytes:
        """The Sig_structure bytes (RFC 9052 §4.4)."""
        return _to_be_signed(self.protected_raw, self.payload, external_aad)


def sign1(
    private: Ed25519PrivateKey, protected: Mapping[CborKey, CborValue], payload: bytes
) -> bytes:
    """Sign `payload`; the algorithm joins the protected header, the unprotected one is empty."""
    header = encode({**protected, HEADER_ALG: ALG_ED25519})
    signature = private.sign(_to_be_signed(header, payload, b""))
    return encode(Tagged(TAG_SIGN1, [header, {}, payload, signature]))


def parse_sign1(data: bytes) -> Sign1:
    """Parse a tagged COSE_Sign1 with an attached payload."""
    value = decode(data)
    if not isinstance(value, Tagged) or not isinstance(value.value, list) or len(value.value) != 4:
        raise _malformed("tag 18 around an array of four expected")
    protected_raw, unprotected, payload, signature = value.value
    if not (
        isinstance(protected_raw, bytes)
        and isinstance(unprotected, dict)
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
    ):
        raise _malformed("bytes, map, attached payload bytes and signature bytes expected")
    protected = decode(protected_raw) if protected_raw else {}
    if not isinstance(protected, dict):
        raise _malformed("map in the protected header expected")
    if set(protected) & set(unprotected):
        raise _malformed("each header label in one place expected")
    return Sign1(protected_raw, protected, unprotected, payload, signature)


def verify_sign1(message: Sign1, public: bytes, external_aad: bytes = b"") -> bytes:
    """Verify with a raw 32-byte Ed25519 key and return the payload.

    Steps: 1 the algorithm stands in the protected header and on the list. 2 nothing critical is
    unknown. 3 the signature holds over the received bytes.
    """
    # 1
    algorithm = message.protected.get(HEADER_ALG)
    if HEADER_ALG in message.unprotected or algorithm not in ALLOWED_ALGS:
        text = f"protected algorithm of {ALLOWED_ALGS} expected"
        raise MalformedError(f"COSE: {text}", code="cose_algorithm")
    # 2: we understand no critical header, so any `crit` asks for something we would not do
    if HEADER_CRIT in message.protected or HEADER_CRIT in message.unprotected:
        raise _malformed("no critical header expected")
    # 3
    try:
        if len(message.signature) != SIGNATURE_LEN:
            raise InvalidSignature
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(message.signature, message.to_be_signed(external_aad))
    except (InvalidSignature, ValueError) as error:
        raise MalformedError("COSE: signature does not verify", code="cose_signature") from error
    return message.payload


def _to_be_signed(protected_raw: bytes, payload: bytes, external_aad: bytes) -> bytes:
    # an empty protected map may arrive as h'a0' but enters the structure as h'' (RFC 9052 §4.4)
    body = b"" if protected_raw == b"\xa0" else protected_raw
    return encode(["Signature1", body, external_aad, payload])


def _malformed(message: str) -> MalformedError:
    return MalformedError(f"COSE: {message}", code="cose_malformed")
