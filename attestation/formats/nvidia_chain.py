"""The certificate chain of an NVIDIA device, and what its leaf says of the device. Parse only.

Five certificates: device attestation key (leaf), the chip's boot ROM, a provisioner, the chip
family's identity CA, the root. They come as PEM, leaf first or root first, LF or CRLF, with or
without the root. Names only give the order here; signatures prove it in `verify.spdm`. What is not
one line of issuers parses too, and says so (`DeviceChain.fault`): it vouches for nothing, but what
its device reports can be told.

The leaf names the firmware (FWID) it was made for in one of two extensions:

    2.23.133.5.4.1     Hopper, LS10: SEQUENCE { 1, the boot ROM's key, SEQUENCE { hash, digest } }
    2.23.133.5.4.1.1   Blackwell: DiceTcbInfo of the TCG, with FWIDs [6] and flags [7]
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from wire.errors import MalformedError

from .pem import certificates
from .x509_errors import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAIN_MAX: Final = 64 * 1024  # five certificates are 5 KiB
FWIDS_MAX: Final = 8
EXTENSION_MAX: Final = 4096
FWID_COMPOSITE: Final = "2.23.133.5.4.1"
FWID_TCB_INFO: Final = "2.23.133.5.4.1.1"
DEBUG_FLAGS: Final = 0b1110  # DiceTcbInfo: not secure (1), recovery (2), debug (3)

_SEQUENCE, _OID, _OCTETS = 0x30, 0x06, 0x04
_FWIDS, _FLAGS = 0xA6, 0x87
_SHA384 = bytes.fromhex("608648016503040202")
_DIGEST_LEN: Final = 48
_SERIAL = re.compile(r"[0-9A-F]{1,64}")


@dataclass(frozen=True, slots=True)
class DeviceChain:
    """A parsed, unverified chain.

    Attributes:
        ders: leaf first; never anchors unless pinned. Only those that lead up from the leaf.
        fault: why these certificates are not one line of issuers, "" if they are.
        name: the leaf's common name, such as "GH100 A01 GSP FMC LF".
        serial: the leaf's serial number as its subject writes it, upper-case hex.
        chip: the same of the boot ROM's certificate: one a chip, whatever firmware it runs; "" if
            that certificate is not there.
        key_sha256: SHA-256 of the leaf's SubjectPublicKeyInfo: the device in a binding.
        fwid_oids: which of the two FWID extensions the leaf has.
        fwids: the firmware digests in it.
        flags: DiceTcbInfo's operational flags, bit 0 first; 0 where not stated.
    """

    ders: tuple[bytes, ...]
    fault: str
    name: str
    serial: str
    chip: str
    key_sha256: bytes
    fwid_oids: tuple[str, ...]
    fwids: tuple[bytes, ...]
    flags: int


def parse_chain(raw: bytes) -> DeviceChain:
    """The chain in PEM text.

    Raises:
        MalformedError: no PEM, or unreadable certificates.
    """
    if len(raw) > CHAIN_MAX:
        raise _malformed(f"found {len(raw)} bytes, expected at most {CHAIN_MAX}")
    found = certificates(raw.rstrip(b"\0"), "device chain")  # a C string's end is no content
    path, fault = _ordered([_load(der) for der in found])
    leaf = path[0]
    try:
        spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        oids, fwids, flags = _firmware(leaf)
    except UNREADABLE as cause:
        raise _malformed("leaf: does not parse") from cause
    return DeviceChain(
        ders=tuple(certificate.public_bytes(Encoding.DER) for certificate in path),
        fault=fault,
        name=_attribute(leaf, NameOID.COMMON_NAME),
        serial=_serial(leaf),
        chip=_serial(path[1]) if len(path) > 1 else "",
        key_sha256=hashlib.sha256(spki).digest(),
        fwid_oids=oids,
        fwids=fwids,
        flags=flags,
    )


def _load(der: bytes) -> x509.Certificate:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hostile input must not choose what is warned of
            certificate = x509.load_der_x509_certificate(der)
            # Read lazily, so they fail here and not later.
            _ = certificate.subject, certificate.issuer, certificate.extensions
            serial = certificate.serial_number
    except UNREADABLE as cause:
        raise _malformed("a certificate does not parse") from cause
    if serial <= 0:
        raise _malformed("a certificate's serial number is not positive")
    return certificate


def _ordered(found: Sequence[x509.Certificate]) -> tuple[list[x509.Certificate], str]:
    """The line of issuers up from the leaf, and why it is not all there is; "" if it is."""
    by_subject = {certificate.subject.public_bytes(): certificate for certificate in found}
    issuers = {
        certificate.issuer.public_bytes()
        for certificate in found
        if certificate.issuer != certificate.subject
    }
    ends = [certificate for name, certificate in by_subject.items() if name not in issuers]
    # Behind a gap stands another end, a CA: the device's key never is one.
    leaves = [certificate for certificate in ends if not _is_ca(certificate)] or ends or [*found]
    path = leaves[:1]
    issuer = by_subject.get(path[0].issuer.public_bytes())
    while issuer is not None and issuer not in path:
        path.append(issuer)
        issuer = by_subject.get(issuer.issuer.public_bytes())
    if len(found) < 2:
        return path, f"found {len(found)} certificate, expected 2 or more"
    if len(ends) != 1:
        return path, f"found {len(ends)} leaves, expected one line of issuers"
    if len(path) != len(found):
        return path, f"found {len(found) - len(path)} certificates outside the line of issuers"
    return path, ""


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    values = certificate.subject.get_attributes_for_oid(oid)
    if len(values) != 1 or not isinstance(values[0].value, str) or len(values[0].value) > 64:
        raise _malformed(f"subject: expected one attribute {oid.dotted_string}")
    return values[0].value


def _serial(certificate: x509.Certificate) -> str:
    values = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    if not values:
        return f"{certificate.serial_number:X}"
    serial = _attribute(certificate, NameOID.SERIAL_NUMBER).upper()
    if _SERIAL.fullmatch(serial) is None:
        raise _malformed("subject: expected a serial number in hex")
    return serial


def _firmware(leaf: x509.Certificate) -> tuple[tuple[str, ...], tuple[bytes, ...], int]:
    oids: list[str] = []
    fwids: list[bytes] = []
    flags = 0
    for extension in leaf.extensions:
        oid = extension.oid.dotted_string
        if oid not in (FWID_COMPOSITE, FWID_TCB_INFO):
            continue
        assert isinstance(extension.value, x509.UnrecognizedExtension)
        items = _children(extension.value.value, _SEQUENCE)
        oids.append(oid)
        if oid == FWID_COMPOSITE:
            fwids.extend(_fwid(body) for tag, body in items[-1:] if tag == _SEQUENCE)
            continue
        for tag, body in items:
            if tag == _FWIDS:
                fwids.extend(_fwid(inner) for kind, inner in _items(body) if kind == _SEQUENCE)
            elif tag == _FLAGS:
                flags |= _flags(body)
    if oids and not 1 <= len(fwids) <= FWIDS_MAX:
        raise _malformed(f"leaf: found {len(fwids)} firmware digests, expected 1 to {FWIDS_MAX}")
    return tuple(oids), tuple(fwids), flags


def _fwid(body: bytes) -> bytes:
    items = _items(body)
    if (
        len(items) != 2
        or items[0] != (_OID, _SHA384)
        or items[1][0] != _OCTETS
        or len(items[1][1]) != _DIGEST_LEN
    ):
        raise _malformed("leaf: expected a firmware digest with SHA-384")
    return items[1][1]


def _flags(body: bytes) -> int:
    if not 2 <= len(body) <= 9 or body[0] > 7:
        raise _malformed("leaf: expected operational flags of at most 64 bits")
    # A BIT STRING counts from the first octet's high bit.
    bits = int.from_bytes(body[1:], "big")
    width = 8 * (len(body) - 1)
    return sum(1 << at for at in range(width) if bits >> (width - 1 - at) & 1)


def _children(raw: bytes, tag: int) -> list[tuple[int, bytes]]:
    outer = _items(raw)
    if len(raw) > EXTENSION_MAX or len(outer) != 1 or outer[0][0] != tag:
        raise _malformed("leaf: expected one structure in the firmware extension")
    return _items(outer[0][1])


def _items(raw: bytes) -> list[tuple[int, bytes]]:
    """The DER values in a row: (tag, content), for tags of one octet."""
    found, at = [], 0
    while at < len(raw):
        if at + 2 > len(raw) or raw[at] & 0x1F == 0x1F:
            raise _malformed("leaf: firmware extension is cut")
        tag, size, at = raw[at], raw[at + 1], at + 2
        if size >= 0x80:
            octets = size & 0x7F
            if not 1 <= octets <= 2 or at + octets > len(raw):
                raise _malformed("leaf: firmware extension has a length of no use")
            size, at = int.from_bytes(raw[at : at + octets], "big"), at + octets
        if size > len(raw) - at:
            raise _malformed("leaf: firmware extension is cut")
        found.append((tag, raw[at : at + size]))
        at += size
    return found


def _malformed(sentence: str) -> MalformedError:
    return MalformedError(f"device chain: {sentence}")
