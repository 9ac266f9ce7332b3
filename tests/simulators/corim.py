"""A programmable publisher of reference values: CoRIM manifests, signed for real.

    publisher = CorimPublisher()
    publisher.reference(environment("acme"), element("firmware", digests=[(1, digest)]))
    signed = publisher.signed()            # COSE_Sign1
    publisher.unsigned()                   # the manifest alone
    publisher.public_key                   # the key to verify with, as a JWK

Everything is honest until a fact is changed. Only `cryptography` and `cbor2` are needed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ES256: Final = -7
EDDSA: Final = -8
ES384: Final = -35
ES512: Final = -36
SIZES: Final = {ES256: 32, ES384: 48, ES512: 66}
HASHES: Final = {ES256: hashes.SHA256(), ES384: hashes.SHA384(), ES512: hashes.SHA512()}
CURVES: Final = {ES256: ec.SECP256R1(), ES384: ec.SECP384R1(), ES512: ec.SECP521R1()}
NAMES: Final = {ES256: "P-256", ES384: "P-384", ES512: "P-521"}

CCA_PLATFORM: Final = "tag:arm.com,2025:cca_platform#1.0.0"
CCA_REALM: Final = "tag:arm.com,2025:cca_realm#1.0.0"
PSA: Final = "tag:arm.com,2025:psa#1.0.0"


def digest(text: str) -> bytes:
    """A SHA-256 to stand for something measured."""
    return hashlib.sha256(text.encode()).digest()


def tagged(tag: int, value: Any) -> cbor2.CBORTag:
    """A tagged value."""
    return cbor2.CBORTag(tag, value)


def environment(identifier: Any = None, **members: Any) -> dict[int, Any]:
    """A module: its class id (32 tagged bytes unless given), and vendor, model, instance."""
    group = {0: tagged(560, digest("class")) if identifier is None else identifier}
    group |= {number: members[name] for number, name in ((1, "vendor"), (2, "model"), (3, "layer"))
              if name in members}  # fmt: skip
    found: dict[int, Any] = {0: group}
    return {**found, 1: members["instance"]} if "instance" in members else found


def element(key: Any = None, values: dict[int, Any] | None = None, **more: Any) -> dict[int, Any]:
    """A measurement: its key and its values by number."""
    found: dict[int, Any] = {} if key is None else {0: key}
    found[1] = values if values is not None else {2: [[1, digest("firmware")]]}
    return {**found, **({2: more["authority"]} if "authority" in more else {})}


def component(key: str = "cca.software-component", **changes: Any) -> dict[int, Any]:
    """A software component as Arm's profiles have it; `changes` by v<number>, None for absent."""
    values = {
        2: [[1, digest("component")]],
        11: "BL2",
        13: [tagged(560, digest("signer"))],
        **{int(name[1:]): value for name, value in changes.items()},
    }
    return {0: key, 1: {number: value for number, value in values.items() if value is not None}}


@dataclass
class CorimPublisher:
    """Who publishes manifests.

    Attributes:
        algorithm: COSE algorithm it signs with.
        key: its private key; made for the algorithm.
        triples: the module's triples by number.
        members: manifest members that differ; `...` leaves one out.
        headers: signed headers that differ; unprotected: unsigned ones.
        not_before, not_after: when the signature counts, None for no statement.
        wrapped: whether the module stands encoded in bytes, as most tools write it.
    """

    algorithm: int = ES256
    key: Any = None
    triples: dict[Any, Any] = field(default_factory=dict)
    members: dict[Any, Any] = field(default_factory=dict)
    headers: dict[Any, Any] = field(default_factory=dict)
    unprotected: dict[Any, Any] = field(default_factory=dict)
    not_before: int | None = None
    not_after: int | None = None
    wrapped: bool = True

    def __post_init__(self) -> None:
        if self.key is None and self.algorithm == EDDSA:
            self.key = ed25519.Ed25519PrivateKey.generate()
        elif self.key is None:
            self.key = ec.generate_private_key(CURVES[self.algorithm])

    @property
    def public_key(self) -> bytes:
        """The key to verify with, a JWK."""
        public = self.key.public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            members = {"kty": "OKP", "crv": "Ed25519", "x": _b64(public.public_bytes_raw())}
        else:
            size, numbers = SIZES[self.algorithm], public.public_numbers()
            members = {
                "kty": "EC",
                "crv": NAMES[self.algorithm],
                "x": _b64(numbers.x.to_bytes(size, "big")),
                "y": _b64(numbers.y.to_bytes(size, "big")),
            }
        return json.dumps(members).encode()

    def reference(self, where: Any, *measurements: Any) -> CorimPublisher:
        """Add a reference triple."""
        self.triples.setdefault(0, []).append([where, list(measurements)])
        return self

    def attest_key(self, where: Any, *keys: Any) -> CorimPublisher:
        """Add an attestation key triple."""
        self.triples.setdefault(3, []).append([where, list(keys)])
        return self

    def comid(self) -> bytes:
        """The module alone."""
        return cbor2.dumps(self._module())

    def unsigned(self) -> bytes:
        """The manifest."""
        module = self.comid() if self.wrapped else self._module()
        honest = {0: "release 1", 1: [tagged(506, module)]}
        members = {**honest, **self.members}
        kept = {name: value for name, value in members.items() if value is not ...}
        return cbor2.dumps(tagged(501, kept))

    def signed(self, payload: bytes | None = None, edit: Any = bytes) -> bytes:
        """The signed manifest; `edit` changes the signature's bytes."""
        raw = self.unsigned() if payload is None else payload
        meta: dict[int, Any] = {0: {0: "publisher"}}
        times = enumerate((self.not_before, self.not_after))
        window = {number: tagged(1, at) for number, at in times if at is not None}
        meta |= {1: window} if window else {}
        headers = {1: self.algorithm, 3: "application/rim+cbor", 8: cbor2.dumps(meta)}
        protected = cbor2.dumps(
            {k: v for k, v in {**headers, **self.headers}.items() if v is not ...}
        )
        data = cbor2.dumps(["Signature1", protected, b"", raw])
        fields = [protected, self.unprotected, raw, edit(self._sign(data))]
        return cbor2.dumps(tagged(18, fields))

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        size = SIZES.get(self.algorithm, 32)
        hashed = HASHES.get(self.algorithm, hashes.SHA256())
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashed)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def _module(self) -> dict[int, Any]:
        triples = self.triples or {0: [[environment(), [element("firmware")]]]}
        return {1: {0: bytes(16)}, 4: triples}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
