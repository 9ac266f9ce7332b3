"""What AMD writes into endorsement key certificates: extensions 1.3.6.1.4.1.3704.1. Parse only.

    .1 structure version   .2 product name   .3.1 boot loader   .3.2 TEE   .3.3 SNP
    .3.4 to .3.7 spare     .3.8 microcode    .3.9 FMC (Turin)   .4 hardware id (VCEK)
    .5 cloud provider (VLEK)

Each value is DER, but the hardware id, which is raw in some certificates and an octet string in
others. Source: AMD, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface (57230).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from wire.errors import MalformedError

from .snp import PRODUCTS, TURIN_HWID_LEN, Product, Tcb

if TYPE_CHECKING:
    from collections.abc import Mapping

STRUCTURE_VERSIONS: Final = (0, 1)
CHIP_ID_LEN: Final = 64
CSP_MAX: Final = 127  # one length byte of DER; names are short domain names

_ARC: Final = "1.3.6.1.4.1.3704.1."
_SPARE: Final = ("3.4", "3.5", "3.6", "3.7")
_NUMBERS: Final = ("1", "3.1", "3.2", "3.3", *_SPARE, "3.8", "3.9")
_KNOWN: Final = frozenset({*_NUMBERS, "2", "4", "5"})
_REQUIRED: Final = ("1", "2", "3.1", "3.2", "3.3", "3.8")
_INTEGER, _OCTETS, _IA5 = 0x02, 0x04, 0x16
# Zen 4c parts have names of their own, and Genoa's authority, layout and firmware.
_LINES: Final[Mapping[str, Product]] = MappingProxyType(
    {**{product: product for product in PRODUCTS}, "Bergamo": "Genoa", "Siena": "Genoa"}
)
_PRINTABLE = re.compile(rb"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """What a VCEK or VLEK certificate says of its key; unverified.

    Attributes:
        product_name: as written, with the silicon's stepping in some: "Milan-B0".
        tcb: the platform firmware the key was derived for.
        hwid: the one chip that has the key, 64 bytes, 8 for Turin; None in a VLEK's.
        csp: the cloud provider whose chips have it; None in a VCEK's.
    """

    product_name: str
    tcb: Tcb
    hwid: bytes | None
    csp: str | None

    @property
    def product(self) -> Product | None:
        """The product line; None if it is none this version knows."""
        return _LINES.get(self.product_name.partition("-")[0])

    def claims(self) -> dict[str, Any]:
        """What the certificate says, JSON-able."""
        found: dict[str, Any] = {"product": self.product_name, "fmc": None} | self.tcb.numbers()
        if self.hwid is not None:
            found["hwid"] = self.hwid.hex()
        if self.csp is not None:
            found["csp"] = self.csp
        return found


def parse_endorsement(certificate: x509.Certificate) -> EndorsementKey:
    """AMD's extensions of a certificate.

    Raises:
        MalformedError: one is missing, unknown, of another type or out of range.
    """
    found = _extensions(certificate)
    for key in _REQUIRED:
        if key not in found:
            raise MalformedError(f"AMD certificate: expected extension {_ARC}{key}")
    numbers = {key: _integer(found[key], key) for key in _NUMBERS if key in found}
    if numbers["1"] not in STRUCTURE_VERSIONS:
        raise MalformedError(
            f"AMD certificate: found structure {numbers['1']}, expected {STRUCTURE_VERSIONS}"
        )
    if any(numbers.get(key) for key in _SPARE):
        # A component that no report shows could be older than what is demanded.
        raise MalformedError("AMD certificate: a spare component has a version, expected zero")
    if ("4" in found) is ("5" in found):
        raise MalformedError(
            "AMD certificate: expected either a hardware id (VCEK) or a provider (VLEK)"
        )
    return EndorsementKey(
        product_name=_text(found["2"], "2"),
        tcb=Tcb(
            bootloader=numbers["3.1"],
            tee=numbers["3.2"],
            snp=numbers["3.3"],
            microcode=numbers["3.8"],
            fmc=numbers.get("3.9"),
        ),
        hwid=_hardware_id(found["4"]) if "4" in found else None,
        csp=_text(found["5"], "5") if "5" in found else None,
    )


def _extensions(certificate: x509.Certificate) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for extension in certificate.extensions:
        oid = extension.oid.dotted_string
        if not oid.startswith(_ARC):
            continue
        key = oid.removeprefix(_ARC)
        if key not in _KNOWN or not isinstance(extension.value, x509.UnrecognizedExtension):
            raise MalformedError("AMD certificate: found an unknown extension of AMD's")
        found[key] = extension.value.value
    return found


def _value(der: bytes, tag: int, key: str) -> bytes:
    """The content of a DER value with a one-byte length; all of AMD's are that short."""
    if len(der) < 3 or der[0] != tag or der[1] > 0x7F or len(der) != 2 + der[1]:
        raise MalformedError(f"AMD certificate: extension {key}: expected one DER value")
    return der[2:]


def _integer(der: bytes, key: str) -> int:
    content = _value(der, _INTEGER, key)
    number = int.from_bytes(content, "big", signed=True)
    if not 0 <= number <= 0xFF or len(content) != (1 if number < 0x80 else 2):
        raise MalformedError(f"AMD certificate: extension {key}: expected a number up to 255")
    return number


def _text(der: bytes, key: str) -> str:
    content = _value(der, _IA5, key)
    if _PRINTABLE.fullmatch(content) is None:
        raise MalformedError(f"AMD certificate: extension {key}: expected printable text")
    return content.decode("ascii")


def _hardware_id(raw: bytes) -> bytes:
    lengths = (CHIP_ID_LEN, TURIN_HWID_LEN)
    if len(raw) - 2 in lengths:  # no raw id has such a length
        raw = _value(raw, _OCTETS, "4")
    if len(raw) not in lengths:
        raise MalformedError(
            f"AMD certificate: found a hardware id of {len(raw)} bytes, expected {lengths}"
        )
    return raw
