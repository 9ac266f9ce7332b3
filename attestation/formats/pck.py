"""Intel's certificate chains, and what a PCK certificate says about its platform. Parse only.

A PCK (provisioning certification key) certificate carries Intel's SGX extension,
1.2.840.113741.1.13.1: a sequence of (object identifier, value) pairs in DER.

Source: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final, Literal

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from wire.errors import MalformedError

from .pem import certificates, encode
from .x509_errors import UNREADABLE

CHAIN_MAX: Final = 4  # leaf, intermediate, root, and one to spare
CHAIN_PEM_MAX: Final = 16 * 1024
COMPONENTS: Final = 16

_SGX: Final = ObjectIdentifier("1.2.840.113741.1.13.1")
_SGX_DER: Final = bytes.fromhex("2a864886f84d010d01")  # the same, as DER content
_SEQUENCE, _OID, _OCTETS, _INTEGER, _ENUM, _BOOLEAN = 0x30, 0x06, 0x04, 0x02, 0x0A, 0x01
_LONG: Final = 0x80  # from here on a length says how many octets the length has
_VERSION: Final = 0xA0  # stands before a certificate's serial number, or does not
_PAIRS_MAX: Final = 64
_SGX_TYPES: Final = {0: "standard", 1: "scalable", 2: "scalable_with_integrity"}


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates, leaf first.

    Attributes:
        ders: DER of each.
        pem: whether they came as PEM; some toolkits put DER there, root first.
        turned: whether they came root first.
    """

    ders: tuple[bytes, ...]
    pem: bool
    turned: bool = False

    def to_pem(self) -> str:
        """The chain in PEM, leaf first, spelled one way."""
        return encode(self.ders).decode("ascii")


@dataclass(frozen=True, slots=True)
class Pck:
    """A PCK certificate's statement about its platform.

    Attributes:
        certificate: the certificate.
        issuer_cn: common name of the CA that issued it.
        ppid: 16 bytes that name the platform.
        components: 16 security version numbers.
        pcesvn: of the provisioning certification enclave.
        cpusvn: 16 bytes, the raw form of the components.
        pceid, fmspc: 2 and 6 bytes; with them collateral is found.
        sgx_type: kind of memory protection.
        dynamic, cached_keys, smt: platform configuration; None where the certificate has none.
    """

    certificate: x509.Certificate
    issuer_cn: str
    ppid: bytes
    components: tuple[int, ...]
    pcesvn: int
    cpusvn: bytes
    pceid: bytes
    fmspc: bytes
    sgx_type: str
    dynamic: bool | None
    cached_keys: bool | None
    smt: bool | None

    @property
    def ca(self) -> Literal["platform", "processor"]:
        """Which of Intel's two PCK CAs issued it: "platform" or "processor"."""
        return "platform" if "Platform" in self.issuer_cn else "processor"

    def claims(self) -> dict[str, Any]:
        """Values by their public names."""
        return {
            "fmspc": self.fmspc.hex(),
            "pck_pceid": self.pceid.hex(),
            "pck_pcesvn": self.pcesvn,
            "pck_cpusvn_components": list(self.components),
            "pck_ppid": self.ppid.hex(),
            "pck_issuer_cn": self.issuer_cn,
            "pck_sgx_type": self.sgx_type,
            "pck_dynamic_platform": self.dynamic,
            "pck_cached_keys": self.cached_keys,
            "pck_smt_enabled": self.smt,
        }


def parse_chain(data: bytes, what: str) -> Chain:
    """A chain in PEM, or in concatenated DER; a chain that starts with its root is turned round.

    Raises:
        MalformedError: no certificate, too many, or bytes that belong to none.
    """
    if len(data) > CHAIN_PEM_MAX:
        raise MalformedError(f"{what}: found {len(data)} bytes, expected ≤ {CHAIN_PEM_MAX}")
    pem = not data.startswith(b"\x30")
    # One closing NUL is normal in quotes: what provides the chain counts a C string's. A buffer
    # filled up with more means the same to Intel's own library.
    ders = list(
        certificates(data.rstrip(b"\0"), what, CHAIN_MAX) if pem else _der_blocks(data, what)
    )
    turned = len(ders) > 1 and self_issued(ders[0])
    if turned:
        ders.reverse()
    return Chain(tuple(ders), pem, turned)


def parse_pck(der: bytes) -> Pck:
    """What a PCK certificate says.

    Raises:
        MalformedError: no SGX extension, or one that misses a field or repeats one.
    """
    certificate, extension = _load(der)
    fields = _pairs(extension.value, ())
    tcb = _pairs(_value(fields, (2,), _SEQUENCE), (2,), tagged=False)
    components = tuple(_number(tcb, (2, index), 255) for index in range(1, COMPONENTS + 1))
    configuration: dict[tuple[int, ...], tuple[int, bytes]] = {}
    if (7,) in fields:
        configuration = _pairs(_value(fields, (7,), _SEQUENCE), (7,), tagged=False)
    kind = int.from_bytes(_value(fields, (5,), _ENUM), "big")
    if kind not in _SGX_TYPES:
        raise MalformedError(f"PCK certificate: found SGX type {kind}, expected 0, 1 or 2")
    return Pck(
        certificate=certificate,
        issuer_cn=_issuer(certificate),
        ppid=_octets(fields, (1,), 16),
        components=components,
        pcesvn=_number(tcb, (2, 17), 0xFFFF),
        cpusvn=_octets(tcb, (2, 18), 16),
        pceid=_octets(fields, (3,), 2),
        fmspc=_octets(fields, (4,), 6),
        sgx_type=_SGX_TYPES[kind],
        dynamic=_flag(configuration, (7, 1)),
        cached_keys=_flag(configuration, (7, 2)),
        smt=_flag(configuration, (7, 3)),
    )


def names(der: bytes) -> tuple[bytes, bytes]:
    """A certificate's issuer and subject, as the bytes they are. Reads no further.

    Raises:
        MalformedError: it ends before.
    """
    _, at, _ = _element(der, 0)
    _, at, _ = _element(der, at)
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        _, _, end = _element(der, end)  # the serial number
    _, _, end = _element(der, end)  # the algorithm
    _, start, end = _element(der, end)
    issuer = der[start:end]
    _, _, end = _element(der, end)  # the validity
    _, start, end = _element(der, end)
    return issuer, der[start:end]


def self_issued(der: bytes) -> bool:
    """Whether issuer and subject are the same bytes, as in a root.

    Raises:
        MalformedError: as `names`.
    """
    issuer, subject = names(der)
    return issuer == subject


def _load(der: bytes) -> tuple[x509.Certificate, x509.UnrecognizedExtension]:
    try:
        with warnings.catch_warnings():
            # Hostile input must not choose between a warning and an error.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
            extension = certificate.extensions.get_extension_for_oid(_SGX).value
            _ = (certificate.issuer, certificate.public_key())
    except x509.ExtensionNotFound:
        raise MalformedError("PCK certificate: found no SGX extension") from None
    except UNREADABLE:
        raise MalformedError("PCK certificate: it does not parse") from None
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise MalformedError("PCK certificate: found an SGX extension of another form")
    return certificate, extension


def _issuer(certificate: x509.Certificate) -> str:
    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise MalformedError("PCK certificate: found an issuer without one common name")
    return names[0].value


def _der_blocks(data: bytes, what: str) -> list[bytes]:
    at = 0
    ders: list[bytes] = []
    while at < len(data):
        if len(ders) == CHAIN_MAX:
            raise MalformedError(f"{what}: found more than {CHAIN_MAX} certificates")
        _, _, end = _element(data, at)
        ders.append(data[at:end])
        at = end
    return ders


Pairs = dict[tuple[int, ...], tuple[int, bytes]]


def _pairs(data: bytes, parent: tuple[int, ...], *, tagged: bool = True) -> Pairs:
    """(identifier, value) pairs of a sequence, by the identifier's part below Intel's own."""
    if tagged:
        tag, start, end = _element(data, 0)
        if tag != _SEQUENCE or end != len(data):
            raise MalformedError("PCK certificate: found an SGX extension that is no sequence")
        data = data[start:end]
    found: Pairs = {}
    at, family = 0, _SGX_DER + bytes(parent)
    for _ in range(_PAIRS_MAX + 1):
        if at == len(data):
            return found
        tag, start, end = _element(data, at)
        if tag != _SEQUENCE:
            raise MalformedError("PCK certificate: found an SGX field that is no pair")
        oid_tag, oid_start, oid_end = _element(data, start)
        value_tag, value_start, value_end = _element(data, oid_end)
        if oid_tag != _OID or value_end != end:
            raise MalformedError("PCK certificate: found an SGX field that is no pair")
        name = data[oid_start:oid_end]
        # Fields of other families are Intel's future ones: signed, and no rule asks for them.
        if name.startswith(family):
            key = tuple(name[len(_SGX_DER) :])
            if key in found:
                raise MalformedError("PCK certificate: found an SGX field twice")
            found[key] = (value_tag, data[value_start:value_end])
        at = end
    raise MalformedError(f"PCK certificate: found more than {_PAIRS_MAX} SGX fields")


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the DER element at `at`."""
    size, start = len(data), at + 2
    if start > size:
        raise MalformedError("DER: found the end, expected an element")
    length = data[at + 1]
    if length >= _LONG:
        count = length - _LONG
        if not 1 <= count <= 3 or size - start < count:
            raise MalformedError("DER: found a length of another form, expected at most 3 bytes")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    end = start + length
    if end > size:
        raise MalformedError(f"DER: found {size - start} bytes, expected {length}")
    return data[at], start, end


def _value(fields: Pairs, key: tuple[int, ...], tag: int) -> bytes:
    if key not in fields:
        name = ".".join(str(part) for part in key)
        raise MalformedError(f"PCK certificate: SGX field {name} is missing")
    found, value = fields[key]
    if found != tag:
        raise MalformedError(f"PCK certificate: found SGX field type {found}, expected {tag}")
    return value


def _octets(fields: Pairs, key: tuple[int, ...], length: int) -> bytes:
    value = _value(fields, key, _OCTETS)
    if len(value) != length:
        raise MalformedError(
            f"PCK certificate: found an SGX field of {len(value)} bytes, expected {length}"
        )
    return value


def _number(fields: Pairs, key: tuple[int, ...], limit: int) -> int:
    value = _value(fields, key, _INTEGER)
    number = int.from_bytes(value, "big", signed=True)
    if not 1 <= len(value) <= 3 or not 0 <= number <= limit:
        raise MalformedError(f"PCK certificate: found an SGX number, expected 0 to {limit}")
    return number


def _flag(fields: Pairs, key: tuple[int, ...]) -> bool | None:
    if key not in fields:
        return None
    value = _value(fields, key, _BOOLEAN)
    if value not in (b"\x00", b"\xff"):
        raise MalformedError("PCK certificate: found an SGX flag of another form")
    return value == b"\xff"
