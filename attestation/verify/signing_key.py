"""The key that may verify a token: found in a key set obtained out of band, never in the token.

Functions, in order of use:
 1. `key_set`             the set among the collateral, parsed
 2. `find_key`            unknown_signing_key, duplicate_kid: by `kid`, in the key set only
 3. `load_key`            key_invalid: a point on its curve, a modulus of an accepted size
 4. `check_independent`   unknown_signing_key: not a key the token itself brought along
 5. `check_standing`      chain_invalid, certificate_not_valid_at_time, untrusted_root: where the
                          key set gives certificates for the key
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from attestation.examined import FOREVER
from attestation.formats.jwks import RSA_ALGORITHMS, parse_jwk, parse_keys
from wire.errors import AttestationError, MalformedError, refused

from .x509 import began, load_certificate, verify_chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate

    from attestation.anchors import Anchors
    from attestation.formats.jose import Token
    from attestation.formats.jwks import Jwk, KeySet

_refused: Final = partial(refused, about="token")
RSA_BITS: Final = range(2048, 8193)  # below: forgeable; above: only costs the verifier time
RSA_EXPONENT_MIN: Final = 65_537
RSA_EXPONENT_MAX: Final = 2**32  # an exponent as long as the modulus costs 100 ms a signature


_CURVES: Final[dict[str, tuple[type[ec.EllipticCurve], str]]] = {
    "P-256": (ec.SECP256R1, "ES256"),
    "P-384": (ec.SECP384R1, "ES384"),
    "P-521": (ec.SECP521R1, "ES512"),
}

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key ready to verify.

    Attributes:
        key: the key.
        algorithms: what it may verify.
        spki: DER of its SubjectPublicKeyInfo.
        x5c: its certificates as the key set states them, leaf first.
    """

    key: PublicKey
    algorithms: tuple[str, ...]
    spki: bytes
    x5c: tuple[bytes, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `spki`, hex."""
        return hashlib.sha256(self.spki).hexdigest()


def key_set(collateral: Mapping[str, bytes], roles: Sequence[str]) -> KeySet | None:
    """The key set among the collateral under one of `roles` (function 1).

    Raises:
        MalformedError: it does not parse, or there is one under each of two roles: which of them
            counts would be this code's choice, and a key taken out of the other would count still.
    """
    found = [role for role in roles if role in collateral]
    if len(found) > 1:
        raise MalformedError(f"keys: found {' and '.join(found)}, expected one of them")
    return parse_keys(collateral[found[0]]) if found else None


def find_key(token: Token, keys: KeySet | None) -> Jwk:
    """The one key the token names (function 2).

    A token without `kid` is verified with a single key only: whoever gave one key named it.
    """
    if keys is None or not keys.keys:
        raise _refused("unknown_signing_key", "found no key set, expected one from the issuer")
    if keys.single:
        key = keys.keys[0]
        if token.kid is not None and key.kid is not None and token.kid != key.kid:
            raise _refused("unknown_signing_key", "the token names another key than the one given")
        return key
    if token.kid is None:
        raise _refused("unknown_signing_key", "the token names no key of the set")
    found = [key for key in keys.keys if key.kid == token.kid]
    if not found:
        raise _refused(
            "unknown_signing_key", f"found none of {len(keys.keys)} keys with the token's kid"
        )
    if len(found) > 1:  # which of them verifies would be the set author's choice at any moment
        raise _refused("duplicate_kid", f"found {len(found)} keys with one kid, expected one")
    return found[0]


def load_key(jwk: Jwk) -> SigningKey:
    """The key behind a JWK (function 3)."""
    try:
        key = _load(jwk)
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("key_invalid", "the key does not load") from None
    if key is None:
        raise _refused("key_invalid", "found a key of an unknown kind")
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        if key.key_size not in RSA_BITS or not RSA_EXPONENT_MIN <= exponent < RSA_EXPONENT_MAX:
            raise _refused(
                "key_invalid",
                f"found an RSA key of {key.key_size} bits, expected {RSA_BITS.start} to "
                f"{RSA_BITS.stop - 1} and an exponent of 65537 or a little more",
            )
    algorithms = _algorithms(key) if jwk.kty == "PEM" else jwk.algorithms
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(key, algorithms, spki, jwk.x5c)


def check_independent(token: Token, key: SigningKey, anchors: Anchors) -> str:
    """The key was not taken from the token itself (function 4).

    A key set that holds what the token's own header offers was probably copied from there, and
    then any signer is accepted. Only a pin of exactly this key says otherwise.
    """
    if anchors.trusts(key.spki) or not token.carries_key:
        return "the token brings no key along" if not token.carries_key else "the key is pinned"
    carried = _carried_keys(token)
    if key.spki in carried:
        raise _refused(
            "unknown_signing_key",
            "found the key in the token's own header, expected another source",
        )
    if carried:
        raise _refused(
            "unknown_signing_key", "the token brings a key along that is not the issuer's"
        )
    return f"header members that name a key are ignored: {', '.join(token.carries_key)}"


def check_standing(key: SigningKey, anchors: Anchors, now: int) -> int:
    """The certificates that the key set gives for the key hold now (function 5).

    The key set itself is the anchor, so a chain may end where the set ends it; it is checked that
    far, or to a pinned root where one stands in it.

    Returns:
        Unix seconds at which the first of its certificates ends.
    """
    if not key.x5c:
        return FOREVER
    at = now or began(key.x5c)
    leaf = load_certificate(key.x5c[0])
    named = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if named != key.spki:
        raise _refused("chain_invalid", "the key set's certificate is for another key")
    if len(key.x5c) == 1:
        return _check_validity(leaf, at)
    # What stands above a pinned certificate vouches for nothing and is not read.
    end = next((at for at, der in enumerate(key.x5c) if at and anchors.trusts(der)), -1)
    root = key.x5c[end]
    return verify_chain(key.x5c[0], key.x5c[1:end], (root,), at)[1]


def _check_validity(certificate: Certificate, now: int) -> int:
    start = int(certificate.not_valid_before_utc.timestamp())
    end = int(certificate.not_valid_after_utc.timestamp())
    if not start <= now <= end:
        raise _refused(
            "certificate_not_valid_at_time",
            f"found the key's certificate valid {start} to {end}, expected it to hold {now}",
        )
    return end


def _load(jwk: Jwk) -> PublicKey | None:
    if jwk.kty == "PEM":
        found = load_pem_public_key(jwk.material[0])
        return found if isinstance(found, PublicKey) and _algorithms(found) else None
    if jwk.kty == "EC" and jwk.crv in _CURVES:
        x, y = (int.from_bytes(part, "big") for part in jwk.material)
        return ec.EllipticCurvePublicNumbers(x, y, _CURVES[jwk.crv][0]()).public_key()
    if jwk.kty == "OKP" and jwk.material:
        return Ed25519PublicKey.from_public_bytes(jwk.material[0])
    if jwk.kty == "RSA":
        n, e = (int.from_bytes(part, "big") for part in jwk.material)
        return rsa.RSAPublicNumbers(e, n).public_key()
    return None


def _algorithms(key: PublicKey) -> tuple[str, ...]:
    if isinstance(key, Ed25519PublicKey):
        return ("EdDSA",)
    if isinstance(key, rsa.RSAPublicKey):
        return RSA_ALGORITHMS
    return tuple(name for curve, name in _CURVES.values() if isinstance(key.curve, curve))


def _carried_keys(token: Token) -> set[bytes]:
    """SubjectPublicKeyInfo of the keys in the token's header, as far as they can be read."""
    carried = set()
    try:
        if "jwk" in token.header:
            carried.add(load_key(parse_jwk(token.header["jwk"])).spki)
        chain = token.header.get("x5c")
        if isinstance(chain, list) and chain and isinstance(chain[0], str):
            leaf = load_certificate(base64.b64decode(chain[0], validate=True))
            key = leaf.public_key()
            carried.add(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    except (MalformedError, AttestationError, ValueError):
        raise _refused(
            "unknown_signing_key", "the token brings a key along that cannot be read"
        ) from None
    return carried
