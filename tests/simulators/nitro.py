"""A programmable AWS Nitro: its certificate hierarchy and its enclaves, with real signatures.

For anybody who verifies Nitro attestation documents and wants to see what their verifier refuses:
everything is honest until a fact is changed, and one changed fact is one thing to refuse.

    aws = NitroVendor(now=1_790_000_000)           # root, region, zone, instance
    enclave = NitroEnclave(aws)
    enclave.nonce = b"fresh"
    document = enclave.document()                  # COSE_Sign1 bytes, as /dev/nsm gives them
    aws.anchors                                    # pins the fake root, marked as simulated

    enclave.pcrs[0] = bytes(48)                    # a debug enclave
    enclave.members["nonce"] = 7                   # a payload member of another type
    enclave.headers[1] = -7                        # another algorithm in the signed header
    aws.facts["zone"]["ca"] = False                # an issuer that is no CA: before certificates

Registers work as the Nitro Secure Module's do: 0 to 15 are locked from the start, `extend` hashes
SHA-384(old ‖ data), and a document lists locked registers only.

Only `cryptography` and `cbor2` are needed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestation.anchors import Anchors

if TYPE_CHECKING:
    from collections.abc import Callable

DAY: Final = 24 * 3600
LEVELS: Final = ("root", "region", "zone", "instance", "enclave")
LIFETIMES: Final = {
    "root": (-1000 * DAY, 9000 * DAY),
    "region": (-5 * DAY, 15 * DAY),
    "zone": (-DAY, 4 * DAY),
    "instance": (-3600, DAY),
    "enclave": (-60, 3 * 3600),
}
SIZE: Final = 48
LOCKED: Final = 16  # registers the hypervisor locks before the enclave starts
REGISTERS: Final = 32
ES384: Final = -35
SIGN1: Final = 18


class NitroVendor:
    """The hierarchy above an enclave: root, region, zone, instance.

    Attributes:
        now: Unix seconds everything is valid around.
        keys: private key by level; replace one to sign with another.
        facts: by level, what its certificate says otherwise than the real ones: `start`, `end`
            (seconds from now), `ca`, `path_length`, `cert_sign`, `digital_signature`, `subject`,
            `issuer`, `hash`, `signer` (another private key). Set before the first use of `chain`.
    """

    def __init__(self, now: int, name: str = "aws.nitro-enclaves") -> None:
        self.now = now
        self.name = name
        self.keys: dict[str, Any] = {level: _key() for level in LEVELS}
        self.facts: dict[str, dict[str, Any]] = {level: {} for level in LEVELS}

    @cached_property
    def chain(self) -> dict[str, bytes]:
        """Certificate by level, DER."""
        return {level: self._certificate(level) for level in LEVELS}

    @property
    def root(self) -> bytes:
        """The root certificate, DER."""
        return self.chain["root"]

    @property
    def bundle(self) -> list[bytes]:
        """What a document's `cabundle` holds: root first, the enclave's issuer last."""
        return [self.chain[level] for level in LEVELS[:-1]]

    @property
    def anchors(self) -> Anchors:
        """The fake root, pinned as a policy pins a simulator's."""
        return Anchors(frozenset({hashlib.sha256(self.root).digest()}), simulated=True)

    def _certificate(self, level: str) -> bytes:
        place = LEVELS.index(level)
        above = LEVELS[max(place - 1, 0)]
        start, end = LIFETIMES[level]
        honest: dict[str, Any] = {
            "start": start,
            "end": end,
            "ca": level != "enclave",
            "path_length": None if level in ("root", "enclave") else 3 - place,
            "cert_sign": level != "enclave",
            "digital_signature": level in ("root", "enclave"),
            "subject": f"{level}.{self.name}",
            "issuer": f"{above}.{self.name}",
            "hash": hashes.SHA384(),
            "signer": self.keys[above],
        }
        facts = {**honest, **self.facts[level]}
        usage = x509.KeyUsage(
            digital_signature=facts["digital_signature"],
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=facts["cert_sign"],
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(facts["subject"]))
            .issuer_name(_name(facts["issuer"]))
            .public_key(self.keys[level].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(self.now + facts["start"], UTC))
            .not_valid_after(datetime.fromtimestamp(self.now + facts["end"], UTC))
            .add_extension(x509.BasicConstraints(facts["ca"], facts["path_length"]), critical=True)
            .add_extension(usage, critical=True)
        )
        return builder.sign(facts["signer"], facts["hash"]).public_bytes(Encoding.DER)


@dataclass
class NitroEnclave:
    """One enclave and its Secure Module.

    Attributes:
        vendor: who certifies it.
        pcrs: register values by number.
        locked: numbers of the registers that cannot change; a document lists these.
        nonce, user_data, public_key: what the enclave asks to have signed; None for null.
        timestamp_ms: when the document is made; the vendor's now.
        module_id, digest: as in the payload.
        tagged: whether the document carries COSE's tag 18.
        members: payload members that differ; `...` leaves one out.
        headers: signed headers that differ; unprotected: unsigned ones.
        signer: another private key to sign with.
        encode: how the payload is encoded; payload_edit, signature_edit: change bytes after.
    """

    vendor: NitroVendor
    pcrs: dict[int, bytes] = field(default_factory=dict)
    locked: set[int] = field(default_factory=lambda: set(range(LOCKED)))
    nonce: bytes | None = None
    user_data: bytes | None = None
    public_key: bytes | None = None
    timestamp_ms: int = 0
    module_id: str = "i-0123456789abcdef0-enc0123456789abcdef"
    digest: str = "SHA384"
    tagged: bool = False
    members: dict[Any, Any] = field(default_factory=dict)
    headers: dict[Any, Any] = field(default_factory=dict)
    unprotected: dict[Any, Any] = field(default_factory=dict)
    signer: Any = None
    encode: Callable[[Any], bytes] = cbor2.dumps
    payload_edit: Callable[[bytes], bytes] = bytes
    signature_edit: Callable[[bytes], bytes] = bytes

    def __post_init__(self) -> None:
        given = dict(self.pcrs)
        self.pcrs = {number: bytes(SIZE) for number in range(REGISTERS)}
        for number, what in enumerate(("image", "kernel", "application", "role", "instance")):
            self.pcrs[number] = hashlib.sha384(what.encode()).digest()
        self.pcrs[8] = hashlib.sha384(b"signer").digest()
        self.pcrs |= given
        self.timestamp_ms = self.timestamp_ms or self.vendor.now * 1000

    def extend(self, number: int, data: bytes) -> bytes:
        """ExtendPCR; returns the new value.

        Raises:
            PermissionError: the register is locked.
        """
        if number in self.locked:
            raise PermissionError(f"PCR {number} is locked")
        self.pcrs[number] = hashlib.sha384(self.pcrs[number] + data).digest()
        return self.pcrs[number]

    def lock(self, number: int) -> None:
        """LockPCR: until the enclave ends."""
        self.locked.add(number)

    def payload(self) -> dict[Any, Any]:
        """The payload's members, in the order the real ones have them."""
        honest = {
            "module_id": self.module_id,
            "digest": self.digest,
            "timestamp": self.timestamp_ms,
            "pcrs": {number: self.pcrs[number] for number in sorted(self.locked)},
            "certificate": self.vendor.chain["enclave"],
            "cabundle": self.vendor.bundle,
            "public_key": self.public_key,
            "user_data": self.user_data,
            "nonce": self.nonce,
        }
        members = {**honest, **self.members}
        return {name: value for name, value in members.items() if value is not ...}

    def document(self) -> bytes:
        """An attestation document for the present state."""
        payload = self.payload_edit(self.encode(self.payload()))
        protected = cbor2.dumps({1: ES384, **self.headers})
        signature = self.signature_edit(self.sign(protected, payload))
        return self.envelope(protected, payload, signature)

    def sign(self, protected: bytes, payload: bytes) -> bytes:
        """r ‖ s over COSE's Sig_structure."""
        key = self.signer or self.vendor.keys["enclave"]
        data = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(SIZE, "big") + s.to_bytes(SIZE, "big")

    def envelope(self, protected: bytes, payload: bytes, signature: bytes) -> bytes:
        """The COSE_Sign1 around given parts."""
        fields = [protected, self.unprotected, payload, signature]
        return cbor2.dumps(cbor2.CBORTag(SIGN1, fields) if self.tagged else fields)


def streamed(value: dict[Any, Any]) -> bytes:
    """The map in indefinite length, as some releases of the real encoder write the payload."""
    pairs = b"".join(cbor2.dumps(key) + cbor2.dumps(item) for key, item in value.items())
    return b"\xbf" + pairs + b"\xff"


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, text),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Amazon"),
        ]
    )
