"""Public keys of token issuers: a JWK or a set of them (RFC 7517), or one PEM public key.

A key set is a trust anchor: it is obtained out of band (the vendor's own endpoint, or a file the
operator wrote), never from a token or from who presents it. Keys of kinds this module does not know
are kept with no algorithm, so that a set with one of them still serves the others.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.ids import unb64u

from .jose import KID_MAX

JWKS_MAX: Final = 196_608  # 32 keys with two certificates each take 80 KiB
KEYS_MAX: Final = 256
X5C_MAX: Final = 6
CERT_MAX: Final = 8_192
PEM_MAX: Final = 4_096  # one RSA key of 8192 bits takes 1.5 KiB
RSA_MAX: Final = 1_024  # bytes of modulus; larger ones only cost the verifier time

_EC: Final = {"P-256": ("ES256", 32), "P-384": ("ES384", 48), "P-521": ("ES512", 66)}
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_PEM: Final = b"-----BEGIN PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class Jwk:
    """One public key as a set states it; its point or modulus is not checked yet.

    Attributes:
        kid: its name in the set, or None.
        kty: "EC", "OKP", "RSA" or "PEM"; anything else has no algorithm.
        crv: curve name, or "".
        algorithms: what it may verify: the key decides, never a token. Empty: nothing.
        material: public members: (x, y), (x,) or (n, e); for "PEM" the text.
        x5c: its certificates in DER, leaf first, as the set states them.
    """

    kid: str | None
    kty: str
    crv: str
    algorithms: tuple[str, ...]
    material: tuple[bytes, ...]
    x5c: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of one issuer.

    Attributes:
        keys: in the set's order.
        single: the source is one key, not a set: the operator named it, so a token need not.
    """

    keys: tuple[Jwk, ...]
    single: bool


def parse_keys(raw: bytes) -> KeySet:
    """The keys in `raw`: {"keys": [...]}, one JWK, or one PEM public key.

    Raises:
        MalformedError: none of these; a private or symmetric key among them; too many, too large.
    """
    if len(raw) > JWKS_MAX:
        raise MalformedError(f"key set: found {len(raw)} bytes, expected ≤ {JWKS_MAX}")
    if raw.lstrip().startswith(_PEM):
        if len(raw) > PEM_MAX:
            raise MalformedError(f"key: found {len(raw)} bytes of PEM, expected ≤ {PEM_MAX}")
        pem = Jwk(None, "PEM", "", (), (bytes(raw),))
        return KeySet((pem,), single=True)
    obj = parse_strict(raw, max_bytes=JWKS_MAX)
    if not isinstance(obj, dict):
        raise MalformedError("key set: expected an object")
    if "keys" not in obj:
        return KeySet((parse_jwk(obj),), single=True)
    keys = obj["keys"]
    if not isinstance(keys, list) or len(keys) > KEYS_MAX:
        raise MalformedError(f"key set: expected an array of at most {KEYS_MAX} keys")
    return KeySet(tuple(parse_jwk(key) for key in keys), single=False)


def parse_jwk(obj: object) -> Jwk:
    """One key.

    Raises:
        MalformedError: not a JWK, or a private or symmetric one.
    """
    if not isinstance(obj, dict):
        raise MalformedError("key: expected an object")
    kty = obj.get("kty")
    if not isinstance(kty, str):
        raise MalformedError("key.kty: expected a string")
    # A secret that was published verifies what anybody signs; a symmetric one is a public key
    # mistaken for a secret waiting to happen.
    if kty == "oct" or any(name in obj for name in _PRIVATE):
        raise MalformedError("key: found a private or symmetric key, expected a public one")
    crv, algorithms, material = _material(kty, obj)
    if not _may_verify(obj):
        algorithms = ()
    stated = obj.get("alg")
    if stated is not None:
        algorithms = tuple(name for name in algorithms if name == stated)
    return Jwk(_kid(obj), kty, crv, algorithms, material, _x5c(obj))


def _material(kty: str, obj: dict[str, Any]) -> tuple[str, tuple[str, ...], tuple[bytes, ...]]:
    crv = obj.get("crv", "")
    if not isinstance(crv, str):
        raise MalformedError("key.crv: expected a string")
    if kty == "EC" and crv in _EC:
        algorithm, size = _EC[crv]
        return crv, (algorithm,), (_bytes(obj, "x", size), _bytes(obj, "y", size))
    if kty == "OKP" and crv == "Ed25519":
        return crv, ("EdDSA",), (_bytes(obj, "x", 32),)
    if kty == "RSA":
        return "", RSA_ALGORITHMS, (_bytes(obj, "n", None), _bytes(obj, "e", None))
    return crv, (), ()


def _bytes(obj: dict[str, Any], name: str, size: int | None) -> bytes:
    value = obj.get(name)
    if not isinstance(value, str) or len(value) > RSA_MAX * 4 // 3 + 4:
        raise MalformedError(f"key.{name}: expected base64url of at most {RSA_MAX} bytes")
    return unb64u(value, size)


def _may_verify(obj: dict[str, Any]) -> bool:
    operations = obj.get("key_ops")
    return obj.get("use", "sig") == "sig" and (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    )


def _kid(obj: dict[str, Any]) -> str | None:
    kid = obj.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= KID_MAX):
        raise MalformedError(f"key.kid: expected 1 to {KID_MAX} characters")
    return kid


def _x5c(obj: dict[str, Any]) -> tuple[bytes, ...]:
    found = obj.get("x5c", [])
    if not isinstance(found, list) or len(found) > X5C_MAX:
        raise MalformedError(f"key.x5c: expected at most {X5C_MAX} certificates")
    certificates = []
    for text in found:
        if not isinstance(text, str) or len(text) > CERT_MAX * 4 // 3 + 4:
            raise MalformedError(f"key.x5c: expected base64 of at most {CERT_MAX} bytes each")
        try:
            certificates.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise MalformedError("key.x5c: expected base64 with padding") from None
    return tuple(certificates)
