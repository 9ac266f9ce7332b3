"""A GPU's or switch's measurement report: an SPDM 1.1 exchange as NVIDIA devices return it.

    GET_MEASUREMENTS request, 37 bytes        MEASUREMENTS response
      0  u8   version 0x11                      0  u8   version 0x11
      1  u8   code 0xE0                         1  u8   code 0x60
      2  u8   attributes, bit 0: sign           2  u8   reserved
      3  u8   operation 0xFF: all blocks        3  u8   slot
      4  32   the verifier's nonce              4  u8   number of blocks
     36  u8   certificate slot                  5  u24  length of the blocks
                                                8  …    blocks
                                                …  32   the device's nonce
                                                …  u16  length of the opaque data, then the data
                                                …  96   signature, r ‖ s over P-384

A block is u8 index, u8 specification (1, DMTF), u16 length, u8 value type, u16 value length, value.
Opaque data is a list of u16 type, u16 length, value. Integers are little-endian. Parse only.

The device hashes both messages, so the nonce that counts is the request's: the response's is the
device's own and may be anything.

Spec: DMTF DSP0274 1.1; docs/spec/evidence.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

REPORT_MAX: Final = 16 * 1024  # the driver's own buffer is 8192 bytes
VERSION: Final = 0x11
NONCE_LEN: Final = 32
DIGEST_LEN: Final = 48  # SHA-384, the one hash these devices negotiate
SIGNATURE_LEN: Final = 96
FIELDS_MAX: Final = 64  # NVIDIA defines 36 types

DRIVER_VERSION: Final = 3
VBIOS_VERSION: Final = 6
NVDEC0_STATUS: Final = 11
CHIP_SKU: Final = 15
PROJECT: Final = 17
PROJECT_SKU: Final = 18
FWID: Final = 20
PROTECTED_PCIE: Final = 21
OPAQUE_DATA_VERSION: Final = 34
CHIP_INFO: Final = 35
FEATURE_FLAG: Final = 36
KNOWN_FIELDS: Final = frozenset({*range(1, 27), *range(32, 37)})  # what NVIDIA has named so far
OPAQUE_VERSION_MAX: Final = 2  # a later layout could give these numbers another meaning

_REQUEST_LEN: Final = 37
_REQUEST_CODE: Final = 0xE0
_RESPONSE_CODE: Final = 0x60
_SIGNED: Final = 1  # attributes bit 0; every other bit is reserved in 1.1
_ALL_BLOCKS: Final = 0xFF
_SLOT_MAX: Final = 7
_DMTF: Final = 1
_VALUE_TYPE_MAX: Final = 4  # 1.1 defines 0 to 4; bit 7 would mark a raw value, no digest
_VBIOS_BINARY_LEN: Final = 8  # a GPU's; a switch sends text

_TEXT = re.compile(rb"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Report:
    """A parsed, unverified report.

    Attributes:
        nonce: the request's nonce: what the report answers to.
        response_nonce: the device's own.
        slot: certificate slot used.
        measurements: block index (from 1) to its 48-byte digest.
        opaque: field type to value.
        signed: the bytes the signature covers.
        signature: the last 96 bytes of what was received, wherever the response ended.
        trailing: bytes received beyond the response's end; any is a reason to refuse.
    """

    nonce: bytes
    response_nonce: bytes
    slot: int
    measurements: Mapping[int, bytes]
    opaque: Mapping[int, bytes]
    signed: bytes
    signature: bytes
    trailing: int

    @property
    def driver_version(self) -> str:
        """The driver's version; empty where the device has no driver (a switch)."""
        return _text(self.opaque.get(DRIVER_VERSION, b""))

    @property
    def vbios_version(self) -> str:
        """The firmware's version, such as "96.00.9F.00.01"; empty if not stated."""
        raw = self.opaque.get(VBIOS_VERSION, b"")
        if len(raw) != _VBIOS_BINARY_LEN:
            return _text(raw)
        # Two little-endian words: the first four parts, and a fifth in the second word's low byte.
        parts = (raw[3], raw[2], raw[1], raw[0], raw[4])
        return ".".join(f"{part:02X}" for part in parts)

    @property
    def fwid(self) -> bytes:
        """Digest of the firmware that holds the attestation key; empty if not stated."""
        return self.opaque.get(FWID, b"")

    def text(self, field: int) -> str:
        """A field that holds text without the zeros that pad it; empty if absent."""
        return _text(self.opaque.get(field, b""))

    def claims(self) -> dict[str, Any]:
        """What was parsed, JSON-able."""
        return {
            "spdm_version": f"0x{VERSION:02x}",
            "nonce": self.nonce.hex(),
            "response_nonce": self.response_nonce.hex(),
            "measurement_blocks": len(self.measurements),
            "driver_version": self.driver_version,
            "vbios_version": self.vbios_version,
            "opaque_field_lengths": {str(kind): len(raw) for kind, raw in self.opaque.items()},
            "measurements": {str(at): raw.hex() for at, raw in self.measurements.items()},
            "fwid": self.fwid.hex(),
            "trailing_bytes": self.trailing,
        }


def version_of(raw: bytes) -> int:
    """The version byte, which decides the layout of all that follows; -1 if there is none."""
    return raw[0] if raw else -1


def parse_report(raw: bytes) -> Report:
    """The report in a request followed by its response, unverified.

    Raises:
        MalformedError: any deviation from the format, but bytes after its end: `Report.trailing`.
    """
    if not _REQUEST_LEN < len(raw) <= REPORT_MAX:
        raise _malformed(f"found {len(raw)} bytes, expected {_REQUEST_LEN + 1} to {REPORT_MAX}")
    slot = _request(raw[:_REQUEST_LEN])
    reader = _Reader(raw, _REQUEST_LEN)
    head = reader.take(8, "response header")
    if head[:3] != bytes((VERSION, _RESPONSE_CODE, 0)):
        raise _malformed("response header: expected MEASUREMENTS of version 0x11")
    if head[3] != slot:
        raise _malformed(f"response slot: found {head[3]}, expected the request's, {slot}")
    measurements = _blocks(reader.take(int.from_bytes(head[5:8], "little"), "blocks"), head[4])
    nonce = reader.take(NONCE_LEN, "response nonce")
    length = int.from_bytes(reader.take(2, "opaque length"), "little")
    opaque = _opaque(reader.take(length, "opaque data"))
    reader.take(SIGNATURE_LEN, "signature")
    report = Report(
        nonce=raw[4 : 4 + NONCE_LEN],
        response_nonce=nonce,
        slot=slot,
        measurements=MappingProxyType(measurements),
        opaque=MappingProxyType(opaque),
        signed=raw[:-SIGNATURE_LEN],
        signature=raw[-SIGNATURE_LEN:],
        trailing=len(raw) - reader.at,
    )
    _check_fields(report)
    return report


class _Reader:
    """Takes bytes from the front, never past the end."""

    __slots__ = ("at", "raw")

    def __init__(self, raw: bytes, at: int = 0) -> None:
        self.raw = raw
        self.at = at

    def take(self, size: int, what: str) -> bytes:
        if size > len(self.raw) - self.at:
            raise _malformed(f"{what}: found {len(self.raw) - self.at} bytes, expected {size}")
        self.at += size
        return self.raw[self.at - size : self.at]

    @property
    def done(self) -> bool:
        return self.at == len(self.raw)


def _request(raw: bytes) -> int:
    head = bytes((VERSION, _REQUEST_CODE, _SIGNED, _ALL_BLOCKS))
    if raw[:4] != head:
        raise _malformed("request: expected GET_MEASUREMENTS 1.1 of all blocks, signed")
    if raw[36] > _SLOT_MAX:
        raise _malformed(f"request slot: found {raw[36]}, expected at most {_SLOT_MAX}")
    return raw[36]


def _blocks(raw: bytes, count: int) -> dict[int, bytes]:
    reader, found, last = _Reader(raw), {}, 0
    for _ in range(count):
        index, specification = reader.take(2, "block header")
        size = int.from_bytes(reader.take(2, "block length"), "little")
        kind, *length = reader.take(3, "value header")
        if specification != _DMTF or kind > _VALUE_TYPE_MAX:
            raise _malformed("block: found an unknown specification or value type, expected DMTF's")
        if size != DIGEST_LEN + 3 or int.from_bytes(bytes(length), "little") != DIGEST_LEN:
            raise _malformed(f"block: expected one digest of {DIGEST_LEN} bytes")
        if index <= last:  # a repeated index would be two values for one measurement
            raise _malformed(f"block: found index {index} after {last}, expected rising ones")
        found[index] = reader.take(DIGEST_LEN, "value")
        last = index
    if not found or not reader.done:
        raise _malformed(f"blocks: found other than the {count} announced, expected at least one")
    return found


def _opaque(raw: bytes) -> dict[int, bytes]:
    reader = _Reader(raw)
    found: dict[int, bytes] = {}
    while not reader.done:
        kind = int.from_bytes(reader.take(2, "opaque type"), "little")
        size = int.from_bytes(reader.take(2, "opaque size"), "little")
        if kind in found:
            raise _malformed(f"opaque type {kind}: found it twice, expected it once")
        if len(found) == FIELDS_MAX:
            raise _malformed(f"opaque data: found more than {FIELDS_MAX} fields")
        found[kind] = reader.take(size, f"opaque type {kind}")
    return found


def _check_fields(report: Report) -> None:
    """Reads what is read later, so that a later step cannot fail on it."""
    for kind in (DRIVER_VERSION, CHIP_SKU, PROJECT, PROJECT_SKU):
        report.text(kind)
    if not report.vbios_version:
        raise _malformed("VBIOS version: found none, expected one")
    if len(report.fwid) not in (0, DIGEST_LEN):
        raise _malformed(f"FWID: found {len(report.fwid)} bytes, expected {DIGEST_LEN}")
    for kind in (OPAQUE_DATA_VERSION, FEATURE_FLAG, NVDEC0_STATUS, PROTECTED_PCIE):
        if len(report.opaque.get(kind, b"")) > 8:
            raise _malformed(f"opaque type {kind}: expected a number of at most 8 bytes")


def _text(raw: bytes) -> str:
    stripped = raw.rstrip(b"\0")
    if not stripped:
        return ""
    if _TEXT.fullmatch(stripped) is None:
        raise _malformed("opaque text: expected at most 64 printable characters and zeros")
    return stripped.decode("ascii")


def _malformed(sentence: str) -> MalformedError:
    return MalformedError(f"SPDM {sentence}")
