"""A simulated GPU or NVSwitch: it signs SPDM reports with a key that its maker certified.

Made by `simulators.nvidia.Nvidia`. Every honest fact is an attribute.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .nvidia import Nvidia

COMPOSITE = "2.23.133.5.4.1"
TCB_INFO = "2.23.133.5.4.1.1"
CHIPS = {"HOPPER": "GH100", "BLACKWELL": "GB100", "LS10": "LS_10"}
_SHA384_OID = bytes.fromhex("0609608648016503040202")


@dataclass
class Authority:
    """A certificate and its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def name(common: str, serial: str | None = None) -> x509.Name:
    """A subject as NVIDIA's."""
    attributes = [
        x509.NameAttribute(NameOID.COMMON_NAME, common),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NVIDIA Corporation"),
    ]
    if serial is not None:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    return x509.Name(attributes)


@dataclass
class Device:
    """A GPU or switch. Attributes are the honest facts; tests change one.

    Attributes:
        vendor, architecture, brom: who made it.
        serial: of the leaf certificate.
        driver, vbios: versions reported.
        blocks: how many measurements; opaque: further fields of the report.
        states_fwid: whether the report names its firmware; fwid: the one it names.
        leaf_fwids: firmware in the leaf, None for the same.
        oid: the leaf's firmware extension, None for the family's.
        flags: DiceTcbInfo's operational flags, first bit first (Blackwell).
        common: the leaf's name, None for the family's.
        leaf: facts of the leaf certificate, as `Nvidia.issue` takes them.
        edit: changes the exchange before it is signed; sign_edit: the signature's bytes.
        tail: bytes after the signature.
        signing_key: another key than the leaf's.
    """

    vendor: Nvidia
    architecture: str
    brom: Authority
    serial: str
    driver: str
    vbios: str
    blocks: int
    opaque: dict[int, bytes]
    states_fwid: bool = True
    fwid: bytes = hashlib.sha384(b"firmware").digest()
    leaf_fwids: list[bytes] | None = None
    oid: str | None = None
    flags: int = 1
    common: str | None = None
    leaf: dict[str, Any] = field(default_factory=dict)
    edit: Callable[[bytes], bytes] = bytes
    sign_edit: Callable[[bytes], bytes] = bytes
    tail: bytes = b""
    signing_key: ec.EllipticCurvePrivateKey | None = None
    response_nonce: bytes = b"\x5a" * 32
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    def __post_init__(self) -> None:
        self.measurements = {
            index: hashlib.sha384(b"block %d" % index).digest()
            for index in range(1, self.blocks + 1)
        }

    @property
    def chip(self) -> str:
        return CHIPS[self.architecture]

    @property
    def fingerprint(self) -> str:
        """The GPU in a binding's `gpus`."""
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{hashlib.sha256(spki).hexdigest()}"

    def certificates(self) -> list[Authority]:
        """Leaf to root."""
        fwids = self.leaf_fwids if self.leaf_fwids is not None else [self.fwid]
        default = TCB_INFO if self.architecture == "BLACKWELL" else COMPOSITE
        oid = self.oid or default
        facts: dict[str, Any] = {
            "ca": False,
            "serial": self.serial,
            "key": self.key,
            "extensions": [_firmware(oid, fwids, self.flags)] if fwids else [],
            **self.leaf,
        }
        common = self.common or f"{self.chip} A01 GSP FMC LF"
        leaf = self.vendor.issue(common, facts.pop("issuer", self.brom), **facts)
        vendor = self.vendor
        return [leaf, self.brom, vendor.icas[self.chip], vendor.identity[self.chip], vendor.root]

    def chain(self) -> bytes:
        """PEM, leaf first."""
        return b"".join(one.pem for one in self.certificates())

    def exchange(self, nonce: bytes) -> bytes:
        """Request and response without the signature."""
        request = bytes((0x11, 0xE0, 1, 0xFF)) + nonce + b"\0"
        blocks = b"".join(
            bytes((index, 1, len(value) + 3, 0, 1, len(value), 0)) + value
            for index, value in self.measurements.items()
        )
        fields = {6: self._vbios(), **self.opaque}
        if self.driver:
            fields[3] = self.driver.encode() + b"\0"
        if self.states_fwid:
            fields[20] = self.fwid
        opaque = b"".join(_u16(kind) + _u16(len(value)) + value for kind, value in fields.items())
        head = bytes((0x11, 0x60, 0, 0, len(self.measurements)))
        return self.edit(
            request
            + head
            + len(blocks).to_bytes(3, "little")
            + blocks
            + self.response_nonce
            + _u16(len(opaque))
            + opaque
        )

    def report(self, nonce: bytes) -> bytes:
        """A signed report for this nonce."""
        exchange = self.exchange(nonce)
        key = self.signing_key or self.key
        r, s = decode_dss_signature(key.sign(exchange, ec.ECDSA(hashes.SHA384())))
        return exchange + self.sign_edit(r.to_bytes(48, "big") + s.to_bytes(48, "big")) + self.tail

    def entry(self, nonce: bytes, **stated: Any) -> dict[str, Any]:
        """The device in a list of several."""
        return {
            "arch": self.architecture,
            "certificate": base64.b64encode(self.chain()).decode(),
            "evidence": base64.b64encode(self.report(nonce)).decode(),
            "nonce": nonce.hex(),
            **stated,
        }

    def _vbios(self) -> bytes:
        if self.architecture == "LS10":
            return self.vbios.encode()
        parts = [int(part, 16) for part in self.vbios.split(".")]
        return bytes((parts[3], parts[2], parts[1], parts[0], parts[4], 0, 0, 0))


def listing(devices: Sequence[Device], nonce: bytes) -> bytes:
    """Evidence of several devices, as NVIDIA's tools write it."""
    return json.dumps([device.entry(nonce) for device in devices]).encode()


def text_entry(device: Device, nonce: bytes) -> dict[str, Any]:
    """The device as servers send it to NVIDIA's service: base64 of the report's hex text."""
    item = device.entry(nonce)
    text = base64.b64decode(item["evidence"]).hex().encode()
    return {
        "evidence": base64.b64encode(text).decode(),
        "certificate": item["certificate"],
    }


def raw_entry(device: Device, nonce: bytes) -> dict[str, Any]:
    """The device as NVIDIA's older collector returns it."""
    item = device.entry(nonce)
    return {
        "certChainBase64Encoded": item["certificate"],
        "attestationReportHexStr": base64.b64decode(item["evidence"]).hex(),
    }


def tlv(tag: int, body: bytes) -> bytes:
    """One DER value."""
    size = len(body)
    length = bytes((size,)) if size < 128 else bytes((0x82,)) + size.to_bytes(2, "big")
    return bytes((tag,)) + length + body


def _firmware(oid: str, fwids: Sequence[bytes], flags: int) -> x509.UnrecognizedExtension:
    values = [tlv(0x30, _SHA384_OID + tlv(0x04, fwid)) for fwid in fwids]
    if oid == COMPOSITE:
        body = tlv(0x02, b"\1") + tlv(0x30, tlv(0x04, b"key")) + b"".join(values)
    else:
        bits = sum(1 << (31 - at) for at in range(32) if flags >> at & 1)
        body = (
            tlv(0x80, b"NVIDIA")
            + tlv(0x81, b"GB100 A01 GSP")
            + tlv(0xA6, b"".join(values))
            + tlv(0x87, b"\0" + bits.to_bytes(4, "big"))
        )
    return x509.UnrecognizedExtension(ObjectIdentifier(oid), tlv(0x30, body))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")
