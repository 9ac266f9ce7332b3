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

import hashlib
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from attestation.anchors import Anchors

from .nvidia_device import CHIPS, Authority, Device, name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NOW = 1_800_000_000
DAY = 24 * 3600


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
        subject: x509.Name | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Authority:
        """A certificate with these facts, self-signed where no issuer is given."""
        key = key or ec.generate_private_key(ec.SECP384R1())
        subject = subject or name(common, serial)
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
        own_hash = isinstance(signer, ed25519.Ed25519PrivateKey)
        chosen = None if own_hash else algorithm or hashes.SHA384()
        return Authority(key, builder.sign(signer, chosen))

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
        from .nvidia_manifest import golden, signed  # only manifests need an XML library

        who = signer or self.rim_signer
        line = chain or (who, self.rim_ca, self.rim_root)
        return signed(golden(device, what, facts), who, line, edit, sign or {})


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
