"""Our attestation result as a signed token: made with our key, verified as any other `ear-jwt`.

The private key is the caller's, as are the time and the claims; nothing is read or kept here.

Spec: docs/spec/evidence.md §8.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWS

from wire.canonical import encode
from wire.ids import b64u

from .anchors import NONE
from .examined import Expected, Question
from .formats.jose import KID_MAX
from .schemes.ear import examine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from .examined import Examined

ALGORITHM: Final = "EdDSA"
TYPE: Final = "eat+jwt"


def sign_result(claims: Mapping[str, Any], key: Ed25519PrivateKey, kid: str) -> str:
    """The compact token for an attestation result.

    Args:
        claims: as `attestation.ear.ear_claims` made them.
        key: the verifier's result key; it signs nothing else.
        kid: its name in the key set that relying parties hold.

    Raises:
        ValueError: the kid is empty or too long.
        MalformedError: the claims are no canonical JSON.
    """
    if not 0 < len(kid) <= KID_MAX:
        raise ValueError(f"kid: expected 1 to {KID_MAX} characters")
    header = {"typ": TYPE, "kid": kid}
    return PyJWS(algorithms=[ALGORITHM]).encode(encode(dict(claims)), key, ALGORITHM, header)


def result_key_set(keys: Mapping[str, Ed25519PublicKey]) -> bytes:
    """The JSON Web Key Set of result keys by kid, to be handed to relying parties out of band."""
    entries = [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": ALGORITHM,
            "use": "sig",
            "kid": kid,
            "x": b64u(key.public_bytes(Encoding.Raw, PublicFormat.Raw)),
        }
        for kid, key in sorted(keys.items())
    ]
    return json.dumps({"keys": entries}, separators=(",", ":")).encode()


def verify_result(token: str, key_set: bytes, now: int, nonce: bytes | None = None) -> Examined:
    """A relying party's examination of a result token; its judgement is the `ear-jwt` rule's.

    Args:
        token: compact token as received.
        key_set: the verifier's keys, obtained out of band.
        now: Unix seconds.
        nonce: what the relying party asked to be echoed, or None.
    """
    return examine(
        Question(
            evidence={"token": token.encode("utf-8", "replace")},
            anchors=NONE,
            now=now,
            collateral={"jwks": key_set},
            expected=Expected(nonce=nonce),
        )
    )
