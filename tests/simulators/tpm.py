"""A programmable TPM and its maker, in Python with real keys: for facts swtpm would never present.

The structures follow the TPM 2.0 library specification; the real ones in the tests marked `tpm`
keep this simulator honest.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from attestation.binding import report32
from attestation.evidence import TPM2, Evidence
from attestation.formats.tpm import encode_body
from attestation.measurement import digest_bytes
from attestation.verify.credential import challenge_for
from wire.ids import b64u

from .tee import AUD, NOW, Tee

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.result import AppraisedEvidence, Refused
    from attestation.verify.credential import Activation

AK_ATTRIBUTES = 0x00050072  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign
EK_ATTRIBUTES = 0x000300B2  # the same without sign; adminWithPolicy, restricted, decrypt
DAY = 24 * 3600


class TpmMaker:
    """A TPM maker's certification authority: root, intermediate, endorsement certificates."""

    def __init__(self, now: int = NOW, name: str = "maker") -> None:
        self.now = now
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.issuer_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self.certificate(f"{name} root", f"{name} root", self.root_key, self.root_key)
        self.issuer = self.certificate(
            f"{name} issuer", f"{name} root", self.issuer_key, self.root_key
        )
        self.name = name

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: Any,
        signer: Any,
        *,
        ca: bool = True,
        path_length: int | None = None,
        cert_sign: bool = True,
        eku: str | None = None,
        start: int = -DAY,
        end: int = 365 * DAY,
        critical: x509.ExtensionType | None = None,
    ) -> bytes:
        """A DER certificate with the given facts; times are seconds from `now`."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(self.now + start, UTC))
            .not_valid_after(datetime.fromtimestamp(self.now + end, UTC))
            .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
            .add_extension(_key_usage(cert_sign=ca and cert_sign), critical=True)
        )
        if eku is not None:
            usage = x509.ExtendedKeyUsage([ObjectIdentifier(eku)])
            builder = builder.add_extension(usage, critical=False)
        if critical is not None:
            builder = builder.add_extension(critical, critical=True)
        return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)

    def endorse(self, ek_key: Any, **facts: Any) -> bytes:
        """An endorsement key certificate."""
        facts = {"ca": False, "eku": "2.23.133.8.1", **facts}
        return self.certificate("", f"{self.name} issuer", ek_key, self.issuer_key, **facts)


class TpmTee(Tee):
    """A worker with a simulated TPM.

    Attributes:
        maker: who certifies its endorsement key.
        ak_key, ek_key: its keys; ek_certified: the key in the certificate.
        ak_attributes, ek_attributes: what the public areas say.
        endorsement: facts of the endorsement certificate; chain: intermediates presented.
        extra_data: caller's data quoted, None for the binding's.
        registers: value by number; reported: what is given beside the quote, None for the same.
        quote_edit: changes the quote's bytes before they are signed.
        sig_edit: changes the signature's bytes.
        body: members of the body that differ from the honest ones.
    """

    kind = TPM2

    def __init__(self, seed: str = "tee", now: int = NOW, aud: str = AUD) -> None:
        super().__init__(seed, now, aud)
        self.maker = _maker(now)
        self.ek_key = self.ek_certified = _rsa_key("ek")
        self.ak_key: Any = ec.generate_private_key(ec.SECP256R1())
        self.ak_attributes, self.ek_attributes = AK_ATTRIBUTES, EK_ATTRIBUTES
        self.endorsement: dict[str, Any] = {}
        self.chain = [self.maker.issuer]
        self.extra_data: bytes | None = None
        self.registers = {number: bytes(32) for number in range(8)}
        measured = digest_bytes(self.measurement())
        self.registers[11] = hashlib.sha256(bytes(32) + measured).digest()
        self.reported: dict[int, bytes] | None = None
        self.quote_edit: Callable[[bytes], bytes] = bytes
        self.sig_edit: Callable[[bytes], bytes] = bytes
        self.body: dict[str, Any] = {}
        self.rule["roots"] = [_pem(self.maker.root)]
        self.demands["allow_simulated"] = True

    def evidence(self, binding_raw: bytes) -> Evidence:
        extra = report32(binding_raw) if self.extra_data is None else self.extra_data
        quote = self.quote_edit(quote_bytes(extra, self.registers))
        honest = {
            "quote": quote,
            "sig": self.sig_edit(sign_quote(self.ak_key, quote)),
            "pcrs": self.registers if self.reported is None else self.reported,
            "ak": public_area(self.ak_key, self.ak_attributes),
            "ek": public_area(self.ek_key, self.ek_attributes),
            "ek_cert": self.maker.endorse(self.ek_certified, **self.endorsement),
            "chain": self.chain,
            "parts": self.parts,
        }
        return Evidence(TPM2, encode_body(**{**honest, **self.body}))

    def activation(self, evidence: Evidence) -> Activation:
        """A finished activation, answered as a TPM holding both keys would."""
        challenge = challenge_for(evidence, _rng)
        assert challenge is not None
        return challenge.activation({"secret": b64u(challenge.secret)})

    def appraise(self, **changes: Any) -> AppraisedEvidence | Refused:
        binding = changes.pop("binding_raw", None) or self.binding()
        evidence = changes.pop("evidence", None) or [self.evidence(binding)]
        if "activation" not in changes:
            changes["activation"] = self.activation(evidence[0])
        return super().appraise(binding_raw=binding, evidence=evidence, **changes)


def quote_bytes(extra_data: bytes, registers: dict[int, bytes], bank: int = 0x000B) -> bytes:
    """TPMS_ATTEST of a quote over `registers` of one bank."""
    bits = sum(1 << number for number in registers)
    digest = hashlib.sha256(b"".join(registers[number] for number in sorted(registers))).digest()
    return (
        bytes.fromhex("ff5443478018")
        + _sized(b"\0\x0b" + bytes(32))
        + _sized(extra_data)
        + bytes(8) + bytes(4) + bytes(4) + b"\1"
        + bytes.fromhex("2019102300163636")
        + b"\0\0\0\1" + bank.to_bytes(2, "big") + b"\3" + bits.to_bytes(3, "little")
        + _sized(digest)
    )  # fmt: skip


def sign_quote(key: Any, quote: bytes, hash_id: int = 0x000B) -> bytes:
    """TPMT_SIGNATURE over `quote`: ECDSA or RSASSA, SHA-256."""
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(quote, padding.PKCS1v15(), hashes.SHA256())
        return b"\x00\x14" + hash_id.to_bytes(2, "big") + _sized(signature)
    r, s = decode_dss_signature(key.sign(quote, ec.ECDSA(hashes.SHA256())))
    return ecdsa_signature(r, s, hash_id)


def pss_signature(key: rsa.RSAPrivateKey, quote: bytes) -> bytes:
    """TPMT_SIGNATURE over `quote` by RSAPSS, SHA-256: genuine, of a key that allows the scheme."""
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
    return bytes.fromhex("0016000b") + _sized(key.sign(quote, scheme, hashes.SHA256()))


def ecdsa_signature(r: int, s: int, hash_id: int = 0x000B) -> bytes:
    """TPMT_SIGNATURE of an ECDSA pair."""
    pair = _sized(r.to_bytes(32, "big")) + _sized(s.to_bytes(32, "big"))
    return b"\x00\x18" + hash_id.to_bytes(2, "big") + pair


def public_area(key: Any, attributes: int) -> bytes:
    """TPM2B_PUBLIC: a signing key (sign bit) with its scheme, else a storage key with AES-128."""
    public = key.public_key()
    sign = bool(attributes & 1 << 18)
    is_rsa = isinstance(public, rsa.RSAPublicKey)
    area = (b"\x00\x01" if is_rsa else b"\x00\x23") + b"\x00\x0b"
    area += attributes.to_bytes(4, "big") + _sized(b"")
    area += b"\x00\x10" if sign else bytes.fromhex("000600800043")
    scheme = bytes.fromhex("0014000b") if is_rsa else bytes.fromhex("0018000b")
    area += scheme if sign else b"\x00\x10"
    if is_rsa:
        numbers = public.public_numbers()
        area += public.key_size.to_bytes(2, "big") + bytes(4)
        area += _sized(numbers.n.to_bytes(public.key_size // 8, "big"))
    else:
        numbers = public.public_numbers()
        area += b"\x00\x03" + b"\x00\x10"
        area += _sized(numbers.x.to_bytes(32, "big")) + _sized(numbers.y.to_bytes(32, "big"))
    return _sized(area)


@cache
def _maker(now: int) -> TpmMaker:
    return TpmMaker(now)


@cache
def _rsa_key(name: str) -> rsa.RSAPrivateKey:
    del name  # one key a name: making RSA keys is slow
    return rsa.generate_private_key(65537, 2048)


def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """An RSA key, the same for the same name."""
    return _rsa_key(name)


def _rng(n: int) -> bytes:
    return hashlib.shake_256(b"the verifier's randomness in tests").digest(n)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def _key_usage(*, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=not cert_sign,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
