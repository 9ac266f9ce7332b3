"""A programmable NVIDIA: device certificates, GPUs and switches that sign SPDM reports, an OCSP
responder, and a signer of reference manifests. All keys and signatures are real.

For third parties too: it stands in for the hardware and for the vendor's services in tests of a
verifier. A policy accepts its evidence only if it pins the simulator's own roots, and its verdicts
then say "simulated".

    vendor = Nvidia(now)
    gpu = vendor.gpu()                          # or vendor.gpu("BLACKWELL"), vendor.switch()
    report, chain = gpu.report(nonce), gpu.chain()
    status = vendor.ocsp(gpu.brom, vendor.icas["GH100"])
    driver, firmware = vendor.manifest(gpu, "driver"), vendor.manifest(gpu, "vbios")

Every honest fact is an attribute: change one, and exactly that fact of the evidence changes. What
the honest structures look like was learnt from real samples; the tests run those too.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from attestation.anchors import Anchors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NOW = 1_800_000_000
DAY = 24 * 3600
COMPOSITE = "2.23.133.5.4.1"
TCB_INFO = "2.23.133.5.4.1.1"
CHIPS = {"HOPPER": "GH100", "BLACKWELL": "GB100", "LS10": "LS_10"}
ISO = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
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


class Nvidia:
    """The vendor.

    Attributes:
        root: device identity root; identity, icas: the CAs below it, by chip.
        rim_root, rim_ca, rim_signer: the manifests' own line.
        now: Unix seconds around which everything is valid.
    """

    def __init__(self, now: int = NOW) -> None:
        self.now = now
        self.root = self.issue("NVIDIA Device Identity CA")
        self.identity = {
            chip: self.issue(f"NVIDIA {chip} Identity", self.root) for chip in CHIPS.values()
        }
        self.icas = {
            chip: self.issue(f"NVIDIA {chip} Provisioner ICA 1", self.identity[chip])
            for chip in CHIPS.values()
        }
        self.rim_root = self.issue("NVIDIA CoRIM signing Root CA")
        self.rim_ca = self.issue("NVIDIA Reference Value CA", self.rim_root)
        self.rim_signer = self.issue("HCC RIM L4 Signer", self.rim_ca, ca=False)
        self._made = 0

    @property
    def anchors(self) -> Anchors:
        """Pins of both roots, as a policy with roots of its own has them."""
        ders = (self.root.der, self.rim_root.der)
        return Anchors(frozenset(hashlib.sha256(der).digest() for der in ders), simulated=True)

    def issue(
        self,
        common: str,
        issuer: Authority | None = None,
        *,
        ca: bool = True,
        serial: str | None = None,
        start: int = -DAY,
        end: int = 365 * DAY,
        key: Any = None,
        algorithm: hashes.HashAlgorithm | None = None,
        cert_sign: bool | None = None,
        eku: ObjectIdentifier | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Authority:
        """A certificate with these facts, self-signed where no issuer is given."""
        key = key or ec.generate_private_key(ec.SECP384R1())
        subject = name(common, serial)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(int(serial, 16) if serial else x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(self.now + start, UTC))
            .not_valid_after(datetime.fromtimestamp(self.now + end, UTC))
            .add_extension(_usage(ca if cert_sign is None else cert_sign), critical=True)
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        signer = issuer.key if issuer else key
        return Authority(key, builder.sign(signer, algorithm or hashes.SHA384()))

    def gpu(self, architecture: str = "HOPPER", **facts: Any) -> Device:
        """A new GPU with its own chip, boot ROM and keys."""
        return self._device(
            architecture,
            {
                "driver": "580.159.03",
                "vbios": "96.00.74.00.20",
                "blocks": 64,
                "opaque": {
                    14: b"\x06\x0f\0\0",
                    15: b"862\0\0\0\0\0\0",
                    17: b"1010\0",
                    18: b"0205\0",
                    11: b"\x55",
                    21: b"\x55",
                    34: b"\1\0",
                    36: b"\1\0",
                },
                **facts,
            },
        )

    def switch(self, **facts: Any) -> Device:
        """A new NVSwitch."""
        standard = {"driver": "", "vbios": "96.10.55.00.01", "blocks": 31, "states_fwid": False}
        return self._device("LS10", {**standard, "opaque": {22: bytes(8), 23: b"\xec\0"}, **facts})

    def _device(self, architecture: str, facts: dict[str, Any]) -> Device:
        self._made += 1
        chip = CHIPS[architecture]
        serial = f"41{self._made:016X}"
        common = f"{chip} A01 GSP BROM"
        brom = self.issue(common, self.icas[chip], serial=facts.pop("chip_serial", serial))
        return Device(self, architecture, brom, serial=f"53{self._made:038X}", **facts)

    def ocsp(
        self,
        subject: Authority,
        issuer: Authority,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        reason: x509.ReasonFlags | None = None,
        start: int = -3600,
        end: int | None = DAY,
        nonce: bytes | None = None,
        signer: Authority | None = None,
        delegated: Authority | None = None,
        by_name: bool = False,
        algorithm: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """A response, DER: signed by the issuer, or by `signer`, or by a `delegated` responder."""
        who = delegated or signer or issuer
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            subject.certificate,
            issuer.certificate,
            algorithm or hashes.SHA384(),
            status,
            datetime.fromtimestamp(self.now + start, UTC),
            None if end is None else datetime.fromtimestamp(self.now + end, UTC),
            datetime.fromtimestamp(self.now + start, UTC) if revoked else None,
            reason if revoked else None,
        )
        encoding = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
        builder = builder.responder_id(encoding, who.certificate)
        if delegated is not None:
            builder = builder.certificates([delegated.certificate])
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.sign(who.key, hashes.SHA384()).public_bytes(Encoding.DER)

    def responder(self, issuer: Authority, **facts: Any) -> Authority:
        """A delegated OCSP responder of an issuer."""
        facts = {"ca": False, "eku": ExtendedKeyUsageOID.OCSP_SIGNING, **facts}
        return self.issue("NVIDIA OCSP Responder", issuer, **facts)

    def revocation(self, device: Device, nonce: bytes | None = None) -> list[bytes]:
        """Good responses for every certificate of a device that has one."""
        chip = device.chip
        line = (device.brom, self.icas[chip], self.identity[chip], self.root)
        return [
            self.ocsp(subject, issuer, nonce=nonce) for subject, issuer in itertools.pairwise(line)
        ]

    def rim_revocation(self) -> list[bytes]:
        """Good responses for the manifests' signers."""
        return [
            self.ocsp(self.rim_signer, self.rim_ca),
            self.ocsp(self.rim_ca, self.rim_root),
        ]

    def manifest(
        self,
        device: Device,
        what: str,
        *,
        edit: Callable[[str], str] = str,
        sign: Mapping[str, Any] | None = None,
        signer: Authority | None = None,
        chain: Sequence[Authority] | None = None,
        **facts: Any,
    ) -> bytes:
        """A signed manifest of the device's driver or firmware, made from its measurements.

        Args:
            device: whose measurements are golden: the first half of them are the firmware's.
            what: "driver" or "vbios".
            edit: changes the XML before it is signed.
            sign: other parameters of the XML signature.
            signer: another one than the vendor's.
            chain: certificates presented, the signer's first.
            facts: product, version, values (index from 0 to alternatives in hex), inactive.
        """
        from lxml import etree  # the only user of XML here
        from signxml import XMLSigner, methods

        half = len(device.measurements) // 2
        indices = range(half) if what == "vbios" else range(half, len(device.measurements))
        values: dict[int, list[str]] = {
            index: [device.measurements[index + 1].hex()] for index in indices
        }
        values |= facts.get("values", {})
        default = device.vbios if what == "vbios" else device.driver
        text = _manifest_text(
            facts.get("product", device.chip),
            facts.get("version", default),
            values,
            facts.get("inactive", ()),
        )
        who = signer or self.rim_signer
        line = chain or (who, self.rim_ca, self.rim_root)
        parameters: dict[str, Any] = {
            "method": methods.enveloped,
            "signature_algorithm": "ecdsa-sha384",
            "digest_algorithm": "sha384",
            "c14n_algorithm": "http://www.w3.org/2006/12/xml-c14n11",
            **(sign or {}),
        }
        signed = XMLSigner(**parameters).sign(
            etree.fromstring(edit(text).encode()),
            key=who.key,
            cert=[one.pem.decode() for one in line],
        )
        return bytes(etree.tostring(signed))


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


def _manifest_text(
    product: str, version: str, values: Mapping[int, Sequence[str]], inactive: Sequence[int]
) -> str:
    resources = "".join(
        f'<ns0:Resource type="Measurement" index="{index}" '
        f'active="{index not in inactive}" alternatives="{len(hexes)}" '
        + "".join(f'ns2:Hash{number}="{text}" ' for number, text in enumerate(hexes))
        + f'name="Measurement_{index}" size="48"/>'
        for index, hexes in values.items()
    )
    return (
        f'<SoftwareIdentity xmlns="{ISO}" xmlns:ns0="{ISO}" xmlns:ns2="{SHA384}" name="{product}">'
        f'<ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>'
        f'<ns0:Meta colloquialVersion="{version}" product="{product}" edition="GPU"/>'
        f"<ns0:Payload>{resources}</ns0:Payload></SoftwareIdentity>"
    )


def _usage(cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")
