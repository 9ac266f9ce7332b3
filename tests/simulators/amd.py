"""A programmable AMD: roots, endorsement keys, revocation lists and signed SEV-SNP reports.

Real cryptography under roots of its own, for verifiers to be tested with facts that no genuine
platform would show. Nothing here is secret and nothing here is trusted: a test pins the root.

    amd = Amd("Genoa", now=1_780_000_000)
    chip = amd.chip()                                   # a VCEK for one chip and firmware
    evidence = chip.evidence(report_data=bytes(64))     # {"report": …, "endorsement_cert": …}
    collateral = amd.collateral()                       # {"ca": …, "root": …}
    amd.anchors                                         # its root, pinned as a simulator's
    amd.question(evidence)                              # all of it, for a scheme's `examine`

To lie in one fact, name it: `chip.evidence(vmpl=3)`, `amd.chip(certified=(4, 0, 8, 115))`,
`amd.leaf(..., salt=32)`. A fact is a field of `Facts`, in a report, or an argument of
`Amd.certificate`, in a certificate. Everything is signed after the lie, so that only the lie is
wrong. `chip.sign(raw)` signs 672 bytes of the caller's making.

Sources: AMD 56860 (report), 57230 (certificates).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from attestation.anchors import Anchors
from attestation.examined import Expected, Question

from .snp_report import Facts, signature, tcb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DAY = 24 * 3600
NOW = 1_780_000_000
ARC = "1.3.6.1.4.1.3704.1."
ARK_SERIAL, ASK_SERIAL, ASVK_SERIAL, LEAF_SERIAL = 0x20000, 0x20002, 0x20101, 7
CSP = "CN=cloud.example"
CPUS = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}
# Component levels as KDS orders them: (fmc,) boot loader, TEE, SNP, microcode.
LEVELS = {"Milan": (4, 0, 24, 219), "Genoa": (10, 0, 23, 84), "Turin": (1, 1, 1, 4, 81)}
_SPL = {4: ("3.1", "3.2", "3.3", "3.8"), 5: ("3.9", "3.1", "3.2", "3.3", "3.8")}


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """AMD's CA keys have 4096 bits, whose making takes a second: one a name and process."""
    del name
    return rsa.generate_private_key(65537, 4096)


class Amd:
    """One product's certification authority.

    Args:
        product: "Milan", "Genoa" or "Turin".
        now: Unix seconds that everything is valid at.
        owner: another name gives other keys under the same certificate names: a look-alike.
    """

    def __init__(self, product: str = "Genoa", now: int = NOW, owner: str = "amd") -> None:
        self.product, self.now, self.owner = product, now, owner
        self.root_key, self.ask_key, self.asvk_key = (
            rsa_key(f"{owner} {role}") for role in ("ark", "ask", "asvk")
        )
        ark, ask, asvk = f"ARK-{product}", f"SEV-{product}", f"SEV-VLEK-{product}"
        self.root = self.authority(ark, self.root_key, serial=ARK_SERIAL)
        self.ask = self.authority(ask, self.ask_key, serial=ASK_SERIAL)
        self.asvk = self.authority(asvk, self.asvk_key, serial=ASVK_SERIAL)

    @property
    def root_pin(self) -> bytes:
        """SHA-256 of the root, for a verifier to pin."""
        return hashlib.sha256(self.root).digest()

    def collateral(self, signer: str = "vcek", **more: bytes) -> dict[str, bytes]:
        """Role to bytes, as from AMD's service."""
        return {"ca": self.ask if signer == "vcek" else self.asvk, "root": self.root, **more}

    @property
    def anchors(self) -> Anchors:
        """What a test trusts: this root, and as a simulator's."""
        return Anchors(frozenset({self.root_pin}), simulated=True)

    def question(
        self,
        evidence: Mapping[str, bytes],
        collateral: Mapping[str, bytes] | None = None,
        expected: Expected | None = None,
        now: int | None = None,
    ) -> Question:
        """An examination's input under this root; what is not given is honest."""
        return Question(
            evidence=evidence,
            anchors=self.anchors,
            now=self.now if now is None else now,
            collateral=self.collateral() if collateral is None else collateral,
            expected=expected or Expected(),
        )

    def authority(self, subject: str, key: Any, **lies: Any) -> bytes:
        """A CA certificate by the root: `certificate` with what a CA has by default."""
        facts: dict[str, Any] = {
            "subject": subject,
            "issuer": f"ARK-{self.product}",
            "key": key.public_key(),
            "signer": self.root_key,
            "ca": True,
        }
        return self.certificate(**{**facts, **lies})

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: Any,
        signer: Any,
        *,
        ca: bool = False,
        extensions: Mapping[str, bytes] | None = None,
        critical: bool = False,
        start: int = -DAY,
        end: int = 365 * DAY,
        serial: int = LEAF_SERIAL,
        salt: int = 48,
        digest: Any = None,
        pss: bool = True,
        constraints: bool = True,
        cert_sign: bool = True,
    ) -> bytes:
        """A DER certificate with the given facts; times are seconds from `now`.

        `critical` is whether whoever does not know `extensions` must refuse it.
        """
        digest = digest or hashes.SHA384()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(self._at(start))
            .not_valid_after(self._at(end))
        )
        if ca and constraints:
            builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        if ca:
            builder = builder.add_extension(_usage(cert_sign), critical=True)
        for oid, der in (extensions or {}).items():
            extension = x509.UnrecognizedExtension(ObjectIdentifier(ARC + oid), der)
            builder = builder.add_extension(extension, critical=critical)
        scheme = _padding(pss, digest, salt) if isinstance(signer, rsa.RSAPrivateKey) else None
        return builder.sign(signer, digest, rsa_padding=scheme).public_bytes(Encoding.DER)

    def crl(
        self,
        revoked: Sequence[int] = (),
        *,
        issuer: str | None = None,
        signer: Any = None,
        start: int = -DAY,
        end: int = 30 * DAY,
        salt: int = 48,
        extensions: Sequence[tuple[Any, bool]] = (),
        reason: x509.ReasonFlags | None = None,
    ) -> bytes:
        """The root's revocation list in DER; times are seconds from `now`."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer or f"ARK-{self.product}"))
            .last_update(self._at(start))
            .next_update(self._at(end))
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            entry = entry.revocation_date(self._at(start))
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        scheme = _padding(True, hashes.SHA384(), salt)
        crl = builder.sign(signer or self.root_key, hashes.SHA384(), rsa_padding=scheme)
        return crl.public_bytes(Encoding.DER)

    def extensions(
        self, levels: Sequence[int], *, hwid: bytes | None = None, csp: str | None = None
    ) -> dict[str, bytes]:
        """AMD's extensions of an endorsement key, by the end of their OID."""
        name = f"{self.product}-B0" if self.product == "Milan" and csp is None else self.product
        found = {"1": integer(0), "2": text(name)}
        found |= {f"3.{spare}": integer(0) for spare in (4, 5, 6, 7)}
        found |= {oid: integer(level) for oid, level in zip(_SPL[len(levels)], levels, strict=True)}
        if hwid is not None:
            found["4"] = hwid
        if csp is not None:
            found["5"] = text(csp)
        return found

    def chip(
        self,
        levels: Sequence[int] | None = None,
        certified: Sequence[int] | None = None,
        hwid: bytes | None = None,
        **lies: Any,
    ) -> Chip:
        """A chip at one firmware, with its VCEK.

        Args:
            levels: what its reports say; the product's usual ones by default.
            certified: what its certificate says; the same by default.
            hwid: what its certificate says; the chip's own by default.
            lies: arguments of `leaf`.
        """
        levels = levels or LEVELS[self.product]
        own = hashlib.sha512(self.product.encode()).digest()
        own = own[:8] if self.product == "Turin" else own
        key = ec.generate_private_key(ec.SECP384R1())
        extensions = self.extensions(certified or levels, hwid=hwid or own)
        cert = self.leaf("vcek", key, **{"extensions": extensions, **lies})
        return Chip(self._facts(levels, chip_id=own.ljust(64, b"\0")), key, cert)

    def provider(
        self,
        levels: Sequence[int] | None = None,
        certified: Sequence[int] | None = None,
        csp: str = CSP,
        **lies: Any,
    ) -> Chip:
        """A cloud provider's chip, masked, that signs with the provider's VLEK."""
        levels = levels or LEVELS[self.product]
        key = ec.generate_private_key(ec.SECP384R1())
        extensions = self.extensions(certified or levels, csp=csp)
        cert = self.leaf("vlek", key, **{"extensions": extensions, **lies})
        return Chip(self._facts(levels, flags=1 << 2), key, cert)

    def leaf(self, kind: str, endorsed: Any, **lies: Any) -> bytes:
        """An endorsement key's certificate: `certificate` with what the kind has by default."""
        vlek = kind == "vlek"
        facts: dict[str, Any] = {
            "subject": "SEV-VLEK" if vlek else "SEV-VCEK",
            "issuer": f"SEV-VLEK-{self.product}" if vlek else f"SEV-{self.product}",
            "key": endorsed.public_key(),
            "signer": self.asvk_key if vlek else self.ask_key,
        }
        return self.certificate(**{**facts, **lies})

    def _facts(self, levels: Sequence[int], **more: Any) -> Facts:
        raw = tcb(self.product, levels)
        return Facts(
            cpuid=CPUS[self.product],
            current_tcb=raw,
            reported_tcb=raw,
            committed_tcb=raw,
            launch_tcb=raw,
            **more,
        )

    def _at(self, seconds: int) -> datetime:
        return datetime.fromtimestamp(self.now, UTC) + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Chip:
    """A platform that signs reports.

    Attributes:
        facts: what its reports say unless told otherwise.
        key: its endorsement key.
        cert: that key's certificate, DER.
    """

    facts: Facts
    key: ec.EllipticCurvePrivateKey
    cert: bytes

    def report(self, **lies: Any) -> bytes:
        """A signed report, 1184 bytes."""
        return self.sign(replace(self.facts, **lies).encode())

    def sign(self, signed: bytes) -> bytes:
        """A report of 672 bytes of the caller's and this chip's signature."""
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return bytes(signed + signature(r, s))

    def evidence(self, **lies: Any) -> dict[str, bytes]:
        """Role to bytes, as a worker sends it."""
        return {"report": self.report(**lies), "endorsement_cert": self.cert}


def integer(value: int) -> bytes:
    """DER of a small number."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((0x02, len(raw))) + raw


def text(value: str) -> bytes:
    """DER of an IA5String."""
    return bytes((0x16, len(value))) + value.encode("ascii")


def _padding(pss: bool, digest: Any, salt: int) -> Any:
    return padding.PSS(padding.MGF1(digest), salt) if pss else padding.PKCS1v15()


def _name(common: str) -> x509.Name:
    pairs = (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _usage(cert_sign: bool) -> x509.KeyUsage:
    others = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "encipher_only", "decipher_only"), False
    )  # fmt: skip
    return x509.KeyUsage(key_cert_sign=cert_sign, crl_sign=True, **others)
