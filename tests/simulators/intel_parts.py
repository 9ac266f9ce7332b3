"""What Intel's simulator is made of: certificates, signatures, DER and the quote's own framing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

if TYPE_CHECKING:
    from collections.abc import Iterable

DAY = 24 * 3600
SGX_OID = "1.2.840.113741.1.13.1"


@dataclass
class Certificate:
    """Facts of one certificate; `start` and `end` are seconds from `now`.

    `more` are further extensions and whether each is critical; `issued_as` is the issuer's name
    where it is not the issuer's own.
    """

    cn: str
    key: Any
    issuer: Certificate | None = None
    ca: bool = True
    cert_sign: bool = True
    crl_sign: bool = True
    path_length: int | None = None
    start: int = -365 * DAY
    end: int = 3650 * DAY
    serial: int = 0
    hash: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    signer: Any = None
    sgx: bytes | None = None
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    issued_as: str | None = None

    def der(self, now: int) -> bytes:
        """The signed certificate."""
        issuer = self.issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.cn))
            .issuer_name(name(self.issued_as or issuer.cn))
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(datetime.fromtimestamp(now + self.start, UTC))
            .not_valid_after(datetime.fromtimestamp(now + self.end, UTC))
            .add_extension(x509.BasicConstraints(self.ca, self.path_length), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not self.ca,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=self.ca and self.cert_sign,
                    crl_sign=self.ca and self.crl_sign,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                critical=False,
            )
        )
        if self.sgx is not None:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(ObjectIdentifier(SGX_OID), self.sgx), critical=False
            )
        for extension, critical in self.more:
            builder = builder.add_extension(extension, critical=critical)
        signer = self.signer or issuer.key
        return builder.sign(signer, self.hash).public_bytes(Encoding.DER)


def key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def raw_sign(signer: Any, message: bytes) -> bytes:
    """A P-256 signature as r and s, 32 bytes each."""
    r, s = decode_dss_signature(signer.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(private: Any) -> bytes:
    """A public key as x and y, 32 bytes each."""
    encoded: bytes = private.public_key().public_bytes(
        Encoding.X962, PublicFormat.UncompressedPoint
    )
    return encoded[1:]


def packed(fields: dict[str, bytes], layout: Iterable[tuple[str, int]]) -> bytes:
    """Fields in their order."""
    return b"".join(fields[field] for field, _ in layout)


def sized(kind: int, data: bytes) -> bytes:
    """u16 kind, u32 length, data."""
    return kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data


def svns(values: Iterable[int]) -> list[dict[str, int]]:
    """Components as TCB info spells them."""
    return [{"svn": value} for value in values]


def wrapped(member: str, text: str, signature: str) -> bytes:
    """A signed statement as Intel's service sends it."""
    return f'{{"{member}":{text},"signature":"{signature}"}}'.encode()


def stamp(at: int) -> str:
    """Unix seconds as Intel spells a time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def name(common: str) -> x509.Name:
    """A name as Intel's certificates have it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def pem(*ders: bytes) -> bytes:
    """Certificates in PEM."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


def tlv(tag: int, content: bytes) -> bytes:
    """A DER element."""
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def octets(data: bytes) -> bytes:
    """A DER octet string."""
    return tlv(0x04, data)


def integer(value: int) -> bytes:
    """A DER integer."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def pair(tail: str, value: bytes) -> bytes:
    """(Intel's identifier with this tail, value)."""
    oid = bytes.fromhex("2a864886f84d010d01") + bytes(int(part) for part in tail.split("."))
    return tlv(0x30, tlv(0x06, oid) + value)
