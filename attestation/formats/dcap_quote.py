"""Intel DCAP quotes: SGX v3, TDX v4 (TD report 1.0) and v5 (1.0, 1.5, 1.5 extended). Parse only.

    header 48 | body | u32 length | signature 64 | attestation key 64 | certification data
    v3: QE report 384 | signature 64 | u16 length, authentication data | u16 type 5, u32 length, PEM
    v4, v5: u16 type 6, u32 length, around the same; v5 has u16 type, u32 length before the body

Every length is checked against what is there and against a maximum before it is used, and every
container must be filled exactly. Fixed-size guest buffers leave zeros after a TDX quote; nothing
signs what stands there, so `Quote.trailing` is for the verifier to refuse where it is not zero.

Sources: as `dcap_bodies`. Spec: docs/spec/evidence.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from wire.errors import MalformedError

from .dcap_bodies import (
    ENCLAVE_REPORT_LEN,
    TD10_LEN,
    TD15_LEN,
    TD15EX_LEN,
    EnclaveReport,
    TdReport,
    parse_enclave_report,
    parse_td_report,
)

QUOTE_MAX: Final = 32 * 1024  # guests hand out buffers of 8 or 16 KiB
CERT_DATA_MAX: Final = 16 * 1024  # three certificates in PEM are under 4 KiB
QE_AUTH_MAX: Final = 256  # Intel's quoting enclaves put 32 bytes here

HEADER_LEN: Final = 48
SIGNATURE_LEN: Final = 64
KEY_LEN: Final = 64
ECDSA_P256: Final = 2
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
TEE_SGX, TEE_TDX = 0x00, 0x81
CERT_PCK_CHAIN, CERT_QE_REPORT = 5, 6

BodyType = Literal["sgx", "td10", "td15", "td15ex"]

_V5_BODIES: Final[dict[int, tuple[BodyType, int, int]]] = {
    1: ("sgx", ENCLAVE_REPORT_LEN, TEE_SGX),
    2: ("td10", TD10_LEN, TEE_TDX),
    3: ("td15", TD15_LEN, TEE_TDX),
    4: ("td15ex", TD15EX_LEN, TEE_TDX),
}


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed quote; unverified.

    Attributes:
        version: 3, 4 or 5.
        tee: "SGX" or "TDX".
        qe_svn, pce_svn: of the platform that made the quote, as the header claims.
        qe_vendor_id: whose quoting enclave made it.
        body_type, body: what is quoted.
        signed: the bytes the attestation key signs: header and body with its v5 descriptor.
        signature: raw r and s by the attestation key.
        attestation_key: P-256 point, x and y.
        qe_report: the quoting enclave's own report; it vouches for the attestation key.
        qe_signature: raw r and s by the PCK over `qe_report.raw`.
        qe_auth: hashed into the quoting enclave's report data after the key.
        cert_data: the PCK certificate chain as given, certification data type 5.
        trailing: bytes after a TDX quote, unsigned; an SGX quote has none.
    """

    version: int
    tee: Literal["SGX", "TDX"]
    qe_svn: int
    pce_svn: int
    qe_vendor_id: bytes
    body_type: BodyType
    body: EnclaveReport | TdReport
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_signature: bytes
    qe_auth: bytes
    cert_data: bytes
    trailing: bytes

    def claims(self) -> dict[str, Any]:
        """Values by their public names."""
        return {
            "quote_version": self.version,
            "tee_type": self.tee,
            "body_type": self.body_type,
            "qe_vendor_id": self.qe_vendor_id.hex(),
            **self.body.claims(),
            "trailing_bytes": len(self.trailing),
        }


class _Reader:
    """Bytes consumed from the front; asking for more than is left is malformed."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def take(self, count: int, field: str) -> bytes:
        left = len(self._data) - self._at
        if count > left:
            raise MalformedError(f"{self._what} {field}: found {left} bytes, expected {count}")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, width: int, field: str) -> int:
        return int.from_bytes(self.take(width, field), "little")

    def sized(self, width: int, limit: int, field: str) -> bytes:
        """A length of `width` bytes and as many bytes as it says, at most `limit`."""
        count = self.number(width, f"{field} length")
        if count > limit:
            raise MalformedError(f"{self._what} {field}: found {count} bytes, expected ≤ {limit}")
        return self.take(count, field)

    def taken(self) -> bytes:
        return self._data[: self._at]

    def rest(self) -> bytes:
        return self._data[self._at :]

    def end(self, field: str) -> None:
        left = len(self._data) - self._at
        if left:
            raise MalformedError(f"{self._what}: found {left} bytes after the {field}, expected 0")


def quote_version(raw: bytes) -> int:
    """The version a quote claims, before anything else in it is believed.

    Raises:
        MalformedError: shorter than a header, or longer than any quote.
    """
    if not HEADER_LEN <= len(raw) <= QUOTE_MAX:
        raise MalformedError(f"quote: found {len(raw)} bytes, expected {HEADER_LEN} to {QUOTE_MAX}")
    return int.from_bytes(raw[:2], "little")


def parse_quote(raw: bytes) -> Quote:
    """The quote in these bytes, unverified.

    Raises:
        MalformedError: any deviation from the format.
    """
    version = quote_version(raw)
    if version not in (3, 4, 5):
        raise MalformedError(f"quote version: found {version}, expected 3, 4 or 5")
    reader = _Reader(raw, "quote")
    reader.take(2, "version")
    key_type = reader.number(2, "attestation key type")
    if key_type != ECDSA_P256:
        raise MalformedError(f"quote attestation key type: found {key_type}, expected {ECDSA_P256}")
    tee = reader.number(4, "TEE type")
    qe_svn, pce_svn = reader.number(2, "QE SVN"), reader.number(2, "PCE SVN")
    vendor = reader.take(16, "QE vendor id")
    reader.take(20, "user data")
    body_type, body = _body(reader, version, tee)
    signed = reader.taken()
    section = _Reader(reader.sized(4, QUOTE_MAX, "signature section"), "quote signature section")
    signature = section.take(SIGNATURE_LEN, "signature")
    key = section.take(KEY_LEN, "attestation key")
    certified = section
    if version != 3:
        kind = section.number(2, "certification type")
        if kind != CERT_QE_REPORT:
            raise MalformedError(
                f"quote certification type: found {kind}, expected {CERT_QE_REPORT}"
            )
        inner = section.sized(4, QUOTE_MAX, "certification data")
        section.end("certification data")
        certified = _Reader(inner, "quote certification data")
    report = certified.take(ENCLAVE_REPORT_LEN, "QE report")
    qe_signature = certified.take(SIGNATURE_LEN, "QE report signature")
    auth = certified.sized(2, QE_AUTH_MAX, "QE authentication data")
    kind = certified.number(2, "PCK certification type")
    if kind != CERT_PCK_CHAIN:  # also a second type 6 inside the first
        raise MalformedError(
            f"quote PCK certification type: found {kind}, expected {CERT_PCK_CHAIN}"
        )
    cert_data = certified.sized(4, CERT_DATA_MAX, "PCK certificate chain")
    certified.end("PCK certificate chain")
    return Quote(
        version=version,
        tee="TDX" if tee == TEE_TDX else "SGX",
        qe_svn=qe_svn,
        pce_svn=pce_svn,
        qe_vendor_id=vendor,
        body_type=body_type,
        body=body,
        signed=signed,
        signature=signature,
        attestation_key=key,
        qe_report=parse_enclave_report(report, "QE report"),
        qe_signature=qe_signature,
        qe_auth=auth,
        cert_data=cert_data,
        trailing=_trailing(reader, tee),
    )


def _body(reader: _Reader, version: int, tee: int) -> tuple[BodyType, EnclaveReport | TdReport]:
    name: BodyType
    if version == 5:
        kind, length = reader.number(2, "body type"), reader.number(4, "body length")
        if kind not in _V5_BODIES:
            raise MalformedError(f"quote body type: found {kind}, expected 1, 2, 3 or 4")
        name, expected, expected_tee = _V5_BODIES[kind]
        if length != expected:
            raise MalformedError(f"quote body length: found {length}, expected {expected}")
    elif version == 4 and tee == TEE_TDX:
        name, expected, expected_tee = "td10", TD10_LEN, TEE_TDX
    else:
        name, expected, expected_tee = "sgx", ENCLAVE_REPORT_LEN, TEE_SGX
    if tee != expected_tee:
        raise MalformedError(f"quote TEE type: found {tee:#x}, expected {expected_tee:#x}")
    raw = reader.take(expected, "body")
    if name == "sgx":
        return name, parse_enclave_report(raw, "enclave report")
    return name, parse_td_report(raw)


def _trailing(reader: _Reader, tee: int) -> bytes:
    rest = reader.rest()
    if rest and tee != TEE_TDX:
        raise MalformedError(f"quote: found {len(rest)} bytes after the end, expected 0")
    return rest
