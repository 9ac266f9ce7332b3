"""A programmable issuer of signed tokens: real keys, real signatures, and any lie one asks for.

    issuer = Issuer("ES384")
    token = issuer.sign({"iss": "somebody", "exp": 2_000_000_000})
    keys = issuer.jwks()                       # what a verifier obtains out of band

Third parties can use it to test a verifier of JWTs: `compact` joins any header, any claims and any
signature, so that each negative test changes one fact of an honest token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from wire.ids import b64u

CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm, str, int]] = {
    "ES256": (ec.SECP256R1(), hashes.SHA256(), "P-256", 32),
    "ES384": (ec.SECP384R1(), hashes.SHA384(), "P-384", 48),
    "ES512": (ec.SECP521R1(), hashes.SHA512(), "P-521", 66),
}
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519PrivateKey


def segment(obj: object) -> str:
    """One part of a token: base64url of compact JSON."""
    return b64u(json.dumps(obj, separators=(",", ":")).encode())


def compact(header: object, claims: object, signature: bytes) -> str:
    """Any three parts joined, honest or not."""
    return f"{segment(header)}.{segment(claims)}.{b64u(signature)}"


def unsigned(claims: object, alg: str = "none") -> str:
    """A token that says itself that nobody signed it."""
    return compact({"alg": alg}, claims, b"")


class Issuer:
    """One key and what can be signed with it.

    Args:
        alg: "ES256", "ES384", "ES512", "EdDSA", or RSA's "RS256" … "PS512".
        kid: its name in the key set; None for a key without one.
        bits: RSA modulus length.

    Attributes:
        alg, kid: as given.
        key: the private key.
    """

    def __init__(self, alg: str = "ES384", kid: str | None = "key-1", bits: int = 2048) -> None:
        self.alg = alg
        self.kid = kid
        self.key: PrivateKey
        if alg in CURVES:
            self.key = ec.generate_private_key(CURVES[alg][0])
        elif alg == "EdDSA":
            self.key = Ed25519PrivateKey.generate()
        else:
            self.key = rsa.generate_private_key(65_537, bits)

    def header(self, **changes: Any) -> dict[str, Any]:
        """The honest header; a change to None removes a member."""
        header = {"alg": self.alg, "kid": self.kid, **changes}
        return {name: value for name, value in header.items() if value is not None}

    def sign(self, claims: object, **header: Any) -> str:
        """A token whose header may differ from the honest one in the given members."""
        head = f"{segment(self.header(**header))}.{segment(claims)}"
        return f"{head}.{b64u(self.raw_signature(head.encode()))}"

    def sign_text(self, header: str, claims: str) -> str:
        """A token over JSON texts as they stand, for what no serialiser would write."""
        head = f"{b64u(header.encode())}.{b64u(claims.encode())}"
        return f"{head}.{b64u(self.raw_signature(head.encode()))}"

    def hmac_with_public_key(self, claims: object) -> str:
        """HS256 keyed with the public key's PEM: what algorithm confusion presents."""
        head = f"{segment(self.header(alg='HS256'))}.{segment(claims)}"
        return f"{head}.{b64u(hmac.new(self.pem(), head.encode(), hashlib.sha256).digest())}"

    def raw_signature(self, data: bytes) -> bytes:
        """The signature as RFC 7518 spells it."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            _, digest, _, size = CURVES[self.alg]
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if isinstance(self.key, Ed25519PrivateKey):
            return self.key.sign(data)
        chosen = HASHES[self.alg[2:]]
        if self.alg.startswith("PS"):
            pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
            return self.key.sign(data, pss, chosen)
        return self.key.sign(data, padding.PKCS1v15(), chosen)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key; a change to None removes a member."""
        key = {**self._material(), "kid": self.kid, **changes}
        return {name: value for name, value in key.items() if value is not None}

    def jwks(self, *others: dict[str, Any], **changes: Any) -> bytes:
        """A key set of this key and the given others."""
        return json.dumps({"keys": [self.jwk(**changes), *others]}).encode()

    def pem(self) -> bytes:
        """The public key as PEM."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hex."""
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).hexdigest()

    def _material(self) -> dict[str, str]:
        public = self.key.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            numbers, (_, _, crv, size) = public.public_numbers(), CURVES[self.alg]
            x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
            return {"kty": "EC", "crv": crv, "x": b64u(x), "y": b64u(y)}
        if isinstance(public, rsa.RSAPublicKey):
            n = public.public_numbers().n.to_bytes((public.key_size + 7) // 8, "big")
            return {"kty": "RSA", "n": b64u(n), "e": "AQAB"}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64u(public.public_bytes_raw())}


class Authority:
    """A private certificate authority for the `x5c` of key sets and of hostile headers."""

    def __init__(self, name: str = "Simulated Attestation Service Intermediate") -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.certificate = self._build(self.name, self.key.public_key(), 0, 2**31, ca=True)

    def issue(self, issuer: Issuer, start: int, end: int) -> bytes:
        """DER of a certificate for an issuer's key, valid from `start` to `end`."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated Signing Key")])
        certificate = self._build(name, issuer.key.public_key(), start, end, ca=False)
        return certificate.public_bytes(Encoding.DER)

    def der(self) -> bytes:
        """DER of the authority's own certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    def _build(
        self, subject: x509.Name, key: Any, start: int, end: int, *, ca: bool
    ) -> x509.Certificate:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(epoch + timedelta(seconds=start))
            .not_valid_after(epoch + timedelta(seconds=end))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA384())
        )
