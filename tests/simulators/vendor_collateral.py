"""Small vendors that sign real collateral: Intel's statements and CRLs, AMD's chains, OCSP answers.

Everything has the shape and the cryptography of the genuine thing under roots of its own, which a
verifier must be told to trust (`anchors`). Give a vendor the time it lives at; its certificates are
valid for years around it. `VendorServices` serves what these sign over HTTP.
"""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from attestation.anchors import Anchors

DAY_S = 86_400
LIFE = timedelta(days=3650)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def stamp(seconds: int) -> str:
    return f"{at(seconds):%Y-%m-%dT%H:%M:%SZ}"


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def certify(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    now: int,
    *,
    ca: bool,
    extensions: tuple[x509.ExtensionType, ...] = (),
    life: timedelta = LIFE,
    pss: bool = False,
) -> x509.Certificate:
    """One certificate; RSA issuers sign with PSS where `pss`, as AMD's do."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at(now) - timedelta(days=365))
        .not_valid_after(at(now) + life)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if ca:
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48) if pss else None
    algorithm = hashes.SHA384() if pss else hashes.SHA256()
    return builder.sign(issuer_key, algorithm, rsa_padding=scheme)


def sign_crl(
    issuer: str, key: Any, now: int, *, number: int = 1, ends: int = 30 * DAY_S, pss: bool = False
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name(issuer))
        .last_update(at(now - 60))
        .next_update(at(now + ends))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    if pss:
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        crl = builder.sign(key, hashes.SHA384(), rsa_padding=scheme)
    else:
        crl = builder.sign(key, hashes.SHA256())
    return crl.public_bytes(serialization.Encoding.DER)


def pem(*found: x509.Certificate) -> str:
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in found)


def der(found: x509.Certificate) -> bytes:
    return found.public_bytes(serialization.Encoding.DER)


@dataclass
class IntelVendor:
    """Intel's Provisioning Certification Service with keys of its own.

    Attributes:
        now: the time it lives at.
        number: `tcbEvaluationDataNumber` of what it signs.
        ends: seconds from `now` to the next update.
    """

    now: int
    number: int = 17
    ends: int = 30 * DAY_S
    root_key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    signer_key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ca_key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    root: x509.Certificate = field(init=False)
    signer: x509.Certificate = field(init=False)
    cas: dict[str, x509.Certificate] = field(init=False)

    def __post_init__(self) -> None:
        root = "Intel SGX Root CA"
        self.root = certify(root, self.root_key, root, self.root_key, self.now, ca=True)
        self.signer = certify(
            "Intel SGX TCB Signing", self.signer_key, root, self.root_key, self.now, ca=False
        )
        self.cas = {
            ca: certify(
                f"Intel SGX PCK {ca.title()} CA",
                self.ca_key,
                root,
                self.root_key,
                self.now,
                ca=True,
            )
            for ca in ("processor", "platform")
        }

    @property
    def anchors(self) -> Anchors:
        return Anchors(frozenset({self.root.fingerprint(hashes.SHA256())}), simulated=True)

    def tcb(self, tee: str, fmspc: str, /, **changes: Any) -> bytes:
        """Signed TCB info, as the service sends it."""
        fields = {
            "id": tee.upper(), "version": 3, "issueDate": stamp(self.now - 60),
            "nextUpdate": stamp(self.now + self.ends), "fmspc": fmspc.upper(), "pceId": "0000",
            "tcbType": 0, "tcbEvaluationDataNumber": self.number,
            "tcbLevels": [{"tcb": {"pcesvn": 11}, "tcbStatus": "UpToDate"}],
        }  # fmt: skip
        return self.signed("tcbInfo", fields | changes)

    def qe(self, tee: str, /, **changes: Any) -> bytes:
        """Signed QE identity, as the service sends it."""
        fields = {
            "id": {"sgx": "QE", "tdx": "TD_QE"}[tee], "version": 2,
            "issueDate": stamp(self.now - 60), "nextUpdate": stamp(self.now + self.ends),
            "tcbEvaluationDataNumber": self.number, "isvprodid": 1,
        }  # fmt: skip
        return self.signed("enclaveIdentity", fields | changes)

    def signed(self, member: str, fields: dict[str, Any]) -> bytes:
        text = json.dumps(fields, separators=(",", ":")).encode()
        r, s = utils.decode_dss_signature(self.signer_key.sign(text, ec.ECDSA(hashes.SHA256())))
        signature = (r.to_bytes(32, "big") + s.to_bytes(32, "big")).hex()
        return b'{"%s":%s,"signature":"%s"}' % (member.encode(), text, signature.encode())

    def pck_crl(self, ca: str, number: int = 1) -> bytes:
        subject = f"Intel SGX PCK {ca.title()} CA"
        return sign_crl(subject, self.ca_key, self.now, number=number, ends=self.ends)

    def root_crl(self) -> bytes:
        return sign_crl("Intel SGX Root CA", self.root_key, self.now, ends=self.ends)

    def header(self, leaf: x509.Certificate) -> str:
        """An issuer chain as the service puts it into a header."""
        return quote(pem(leaf, self.root))


def amd_extension(suffix: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{suffix}"), value)


def der_int(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([2, len(body)]) + body


@dataclass
class AmdVendor:
    """AMD's Key Distribution Service for one product, with keys of its own.

    Its RSA keys have 2048 bits where AMD's have 4096: tests make many of them.
    """

    now: int
    product: str = "Genoa"
    ark_key: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ask_key: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ark: x509.Certificate = field(init=False)
    ask: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        ark, ask = f"ARK-{self.product}", f"SEV-{self.product}"
        self.ark = certify(ark, self.ark_key, ark, self.ark_key, self.now, ca=True, pss=True)
        self.ask = certify(ask, self.ask_key, ark, self.ark_key, self.now, ca=True, pss=True)

    @property
    def anchors(self) -> Anchors:
        return Anchors(frozenset({self.ark.fingerprint(hashes.SHA256())}), simulated=True)

    def vcek(self, hwid: bytes, tcb: tuple[int, ...], product: str = "") -> bytes:
        """The certificate of one chip at (fmc,) bl, tee, snp, ucode."""
        suffixes = ("3.9",) * (len(tcb) - 4) + ("3.1", "3.2", "3.3", "3.8")
        label = (product or self.product).encode()
        extensions = (
            amd_extension("2", bytes([0x16, len(label)]) + label),
            amd_extension("4", hwid),
            *(amd_extension(s, der_int(v)) for s, v in zip(suffixes, tcb, strict=True)),
        )
        key = ec.generate_private_key(ec.SECP384R1())
        return der(
            certify(
                "SEV-VCEK", key, f"SEV-{self.product}", self.ask_key, self.now,
                ca=False, extensions=extensions, pss=True,
            )
        )  # fmt: skip

    def chain(self) -> bytes:
        return pem(self.ask, self.ark).encode()

    def crl(self, ends: int = 30 * DAY_S) -> bytes:
        return sign_crl(f"ARK-{self.product}", self.ark_key, self.now, ends=ends, pss=True)


@dataclass
class OcspVendor:
    """NVIDIA's responder over one device certificate; `status` is what it answers."""

    now: int
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    ends: int | None = DAY_S
    echo: bool = True
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    issuer: x509.Certificate = field(init=False)
    device: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        ca = "NVIDIA GH100 Identity"
        self.issuer = certify(ca, self.key, ca, self.key, self.now, ca=True)
        device_key = ec.generate_private_key(ec.SECP384R1())
        self.device = certify("GH100 A01", device_key, ca, self.key, self.now, ca=False)

    def cert_id(self) -> tuple[str, bytes, bytes, int]:
        """What `attestation.collateral_key.ocsp` takes for the device certificate."""
        asked = ocsp.OCSPRequestBuilder()
        built = asked.add_certificate(self.device, self.issuer, hashes.SHA384()).build()
        return "sha384", built.issuer_name_hash, built.issuer_key_hash, built.serial_number

    def answer(self, request: bytes) -> bytes:
        """The answer to a question in DER."""
        asked = ocsp.load_der_ocsp_request(request)
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=self.device, issuer=self.issuer, algorithm=hashes.SHA384(),
            cert_status=self.status, this_update=at(self.now - 60),
            next_update=None if self.ends is None else at(self.now + self.ends),
            revocation_time=at(self.now - 60) if revoked else None, revocation_reason=None,
        ).responder_id(ocsp.OCSPResponderEncoding.HASH, self.issuer)  # fmt: skip
        if self.echo:
            nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value
            builder = builder.add_extension(nonce, critical=False)
        return builder.sign(self.key, hashes.SHA384()).public_bytes(serialization.Encoding.DER)


def altered(vendor: Any, **changes: Any) -> Any:
    """The same vendor, keys and certificates included, with other facts."""
    other = copy.copy(vendor)
    for fact, value in changes.items():
        setattr(other, fact, value)
    return other


def rim_answer(rim_id: str, manifest: bytes) -> bytes:
    """A reference manifest as NVIDIA's service sends it."""
    text = base64.b64encode(manifest).decode()
    return json.dumps({"id": rim_id, "rim": text, "last_updated": "2026-01-01"}).encode()


def key_set(*names: str) -> bytes:
    """A JWKS of fresh P-384 keys."""
    keys = []
    for kid in names:
        numbers = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
        x, y = (
            base64.urlsafe_b64encode(v.to_bytes(48, "big")).rstrip(b"=").decode()
            for v in (numbers.x, numbers.y)
        )
        keys.append({"kty": "EC", "crv": "P-384", "kid": kid, "use": "sig", "x": x, "y": y})
    return json.dumps({"keys": keys}).encode()
