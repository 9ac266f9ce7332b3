"""A programmable virtual TPM with a certified attestation key, as clouds provide them.

Real cryptography under a root of its own. Nothing here is trusted: a test pins the root.

    maker = VtpmMaker()
    tpm = Vtpm(maker)                                  # registers of the SHA-256 bank, all zero
    tpm.measure(11, measurement)                       # reset and extended once
    tpm.boot(log)                                      # registers as `simulators.event_log` left
    evidence = tpm.evidence(nonce)                     # {"quote_msg": …, "pcrs": …, …}
    maker.question(evidence, nonce)                    # all of it, for `schemes.tpm_quote.examine`

To lie in one fact, change one role of what `evidence` gives, or name the lie: `Vtpm(maker,
attributes=…)`, `maker.certify(key, eku=…)`, `tpm.quote(nonce, digest=…)`. What is signed is signed
after the lie, so that only the lie is wrong.

Source: TCG TPM 2.0 Library, Part 2; TCG EK Credential Profile (extended key usages).
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from attestation.anchors import Anchors
from attestation.examined import Expected, Question

from .event_log import IDS, SIZES
from .tpm import AK_ATTRIBUTES, public_area, sign_quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .event_log import EventLog

NOW = 1_780_000_000
DAY = 24 * 3600
NONCE = hashlib.sha256(b"a nonce of the relying party's").digest()
AK_USAGE = "2.23.133.8.3"
LEAF_SERIAL, ISSUER_SERIAL = 0x1001, 0x1002


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key, the same for the same name."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """An RSA key, the same for the same name: making one is slow."""
    del name
    return rsa.generate_private_key(65537, 2048)


class VtpmMaker:
    """A cloud's certification authority for virtual TPMs: root and intermediate.

    Args:
        owner: another name gives other keys under the same certificate names: a look-alike.
    """

    def __init__(self, owner: str = "cloud", now: int = NOW) -> None:
        self.now = now
        self.root_key, self.issuer_key = ec_key(f"{owner} root"), ec_key(f"{owner} issuer")
        self.root = self.certificate("vTPM root", "vTPM root", self.root_key, self.root_key)
        self.issuer = self.certificate(
            "vTPM issuer", "vTPM root", self.issuer_key, self.root_key, serial=ISSUER_SERIAL
        )

    @property
    def anchors(self) -> Anchors:
        """What a policy that trusts this cloud pins."""
        return Anchors(frozenset({hashlib.sha256(self.root).digest()}))

    def collateral(self, **more: bytes) -> dict[str, bytes]:
        """Role to bytes, as the relying party configures them."""
        return {"root": self.root, "intermediate": self.issuer, **more}

    def question(self, evidence: Mapping[str, bytes], **changes: Any) -> Question:
        """An examination's input; what is not given is honest."""
        honest: dict[str, Any] = {
            "anchors": self.anchors,
            "now": self.now,
            "collateral": self.collateral(),
            "expected": Expected(nonce=NONCE),
        }
        return Question(evidence=evidence, **{**honest, **changes})

    def certify(self, key: Any, **facts: Any) -> bytes:
        """An attestation key's certificate."""
        honest = {"ca": False, "eku": AK_USAGE, "serial": LEAF_SERIAL}
        return self.certificate("", "vTPM issuer", key, self.issuer_key, **{**honest, **facts})

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: Any,
        signer: Any,
        *,
        ca: bool = True,
        eku: str | None = None,
        signs: bool = True,
        start: int = -DAY,
        end: int = 365 * DAY,
        serial: int = 1,
        extension: tuple[str, bool] | None = None,
    ) -> bytes:
        """A DER certificate; times are seconds from `now`, `extension` an OID and criticality."""
        names = (
            "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "encipher_only", "decipher_only",
        )  # fmt: skip
        usage = x509.KeyUsage(
            digital_signature=not ca and signs,
            key_cert_sign=ca and signs,
            crl_sign=ca,
            **dict.fromkeys(names, False),
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(self._at(start))
            .not_valid_after(self._at(end))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(usage, critical=True)
        )
        if eku is not None:
            usages = x509.ExtendedKeyUsage([ObjectIdentifier(eku)])
            builder = builder.add_extension(usages, critical=False)
        if extension is not None:
            unknown = x509.UnrecognizedExtension(ObjectIdentifier(extension[0]), b"\x05\x00")
            builder = builder.add_extension(unknown, critical=extension[1])
        return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)

    def crl(self, of: str = "issuer", revoked: Sequence[int] = (), end: int = DAY) -> bytes:
        """A revocation list of the root or the intermediate, DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(f"vTPM {of}"))
            .last_update(self._at(-DAY))
            .next_update(self._at(end))
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(self._at(-1)).build())
        key = self.issuer_key if of == "issuer" else self.root_key
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _at(self, seconds: int) -> datetime:
        return datetime.fromtimestamp(self.now + seconds, UTC)


class Vtpm:
    """A virtual TPM with one attestation key.

    Attributes:
        key: the attestation key; `attributes` are what its public area says.
        cert: its certificate, DER.
        registers: bank to register to value; 24 of each bank.
    """

    def __init__(
        self,
        maker: VtpmMaker,
        key: Any = None,
        *,
        attributes: int = AK_ATTRIBUTES,
        banks: Sequence[str] = ("sha256",),
        cert: bytes | None = None,
    ) -> None:
        self.maker = maker
        self.key = key or ec_key("attestation")
        self.attributes = attributes
        self.cert = cert or maker.certify(self.key)
        self.registers = {bank: dict.fromkeys(range(24), bytes(SIZES[bank])) for bank in banks}
        self.log: EventLog | None = None

    @property
    def spki(self) -> bytes:
        """The attestation key as a relying party may know it."""
        encoded: bytes = self.key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return encoded

    def measure(self, register: int, measurement: bytes) -> None:
        """Extend a register of the SHA-256 bank."""
        value = self.registers["sha256"][register] + measurement
        self.registers["sha256"][register] = hashlib.sha256(value).digest()

    def boot(self, log: EventLog) -> None:
        """Hold the registers that this log was measured into."""
        self.log = log
        for bank in self.registers:
            self.registers[bank] |= log.registers(bank)

    def quote(
        self,
        nonce: bytes,
        bank: str = "sha256",
        selected: Sequence[int] = range(24),
        digest: bytes | None = None,
        unallocated: Sequence[str] = (),
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over these registers of one bank.

        Banks that were asked for and that the TPM does not keep, it names without registers.
        """
        if digest is None:
            values = (self.registers[bank][number] for number in sorted(selected))
            digest = hashlib.sha256(b"".join(values)).digest()
        bits = sum(1 << number for number in selected)
        message = (
            bytes.fromhex("ff5443478018")
            + _sized(b"\0\x0b" + bytes(32))
            + _sized(nonce)
            + bytes(16) + b"\1"
            + bytes.fromhex("2016051100162800")
            + (1 + len(unallocated)).to_bytes(4, "big")
            + b"".join(IDS[name].to_bytes(2, "big") + b"\3" + bytes(3) for name in unallocated)
            + IDS[bank].to_bytes(2, "big") + b"\3" + bits.to_bytes(3, "little")
            + _sized(digest)
        )  # fmt: skip
        return message, sign_quote(self.key, message)

    def pcrs(
        self, banks: Sequence[str] = ("sha256",), selected: Sequence[int] = range(24)
    ) -> bytes:
        """The `pcrs` role."""
        return pcrs_json(
            {bank: {n: self.registers[bank][n] for n in sorted(selected)} for bank in banks}
        )

    def evidence(self, nonce: bytes = NONCE, **changes: bytes | None) -> dict[str, bytes]:
        """Role to bytes, as a worker sends it; a change to None leaves the role out."""
        message, signature = self.quote(nonce)
        roles: dict[str, bytes | None] = {
            "quote_msg": message,
            "quote_sig": signature,
            "pcrs": self.pcrs(),
            "ak_public": public_area(self.key, self.attributes),
            "ak_cert": self.cert,
            "event_log": None if self.log is None else self.log.encode(),
            **changes,
        }
        return {role: data for role, data in roles.items() if data is not None}


def pcrs_json(registers: Mapping[str, Mapping[int, bytes]]) -> bytes:
    """Register values by bank and number, in JSON."""
    obj = {
        bank: {str(number): value.hex() for number, value in values.items()}
        for bank, values in registers.items()
    }
    return json.dumps(obj).encode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
