"""The `Attestation` message that Google's go-tpm-tools writes: quotes, registers, keys, log.

Protocol buffers, read by hand: of the message only what a quote's verification needs. Members this
module names but does not use are stepped over; a member it does not name is refused.

Source: go-tpm-tools `proto/attest.proto`, go-tpm `tpm.proto`. Parse only.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import MalformedError

from .pem import CERTIFICATE_MAX
from .tpm_structures import HASHES

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_MAX: Final = 1024 * 1024  # an event log and three quotes
FIELDS_MAX: Final = 256  # members of one message; the longest, 24 registers, repeats one 24 times
QUOTES_MAX: Final = 4  # one a bank
INTERMEDIATES_MAX: Final = 4  # chains have one or two
REGISTERS: Final = 24
_VARINT_BYTES: Final = 5  # every number here fits 32 bits
_VARINT, _BYTES = 0, 2

_AK_PUBLIC, _QUOTES, _EVENT_LOG, _AK_CERT, _INTERMEDIATES = 1, 2, 3, 6, 7
# Instance names, the canonical log and TEE reports: each of them would need its own verifier.
_NOT_USED: Final = (4, 5, *range(8, 17))


@dataclass(frozen=True, slots=True)
class QuoteMember:
    """One quote of the message: signed bytes, signature, and the registers beside them."""

    quote: bytes
    signature: bytes
    bank: str
    registers: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Attestation:
    """The message's members, unverified; b"" where it has none.

    Attributes:
        ak_public: TPMT_PUBLIC of the attestation key.
        ak_cert: its certificate, DER.
        event_log: TCG event log.
        quotes: one a bank.
        intermediates: certificates above it, DER; never anchors.
    """

    ak_public: bytes
    ak_cert: bytes
    event_log: bytes
    quotes: tuple[QuoteMember, ...]
    intermediates: tuple[bytes, ...]


def parse_attestation(raw: bytes) -> Attestation:
    """The message in `raw`.

    Raises:
        MalformedError: any length, type, repetition or member that it does not have.
    """
    if len(raw) > MESSAGE_MAX:
        raise MalformedError(f"attestation: found {len(raw)} bytes, expected ≤ {MESSAGE_MAX}")
    single: dict[int, bytes] = {}
    quotes: list[QuoteMember] = []
    intermediates: list[bytes] = []
    for field, value in _fields(raw):
        if not isinstance(value, bytes):
            raise MalformedError(f"attestation: field {field} is a number, expected bytes")
        if field == _QUOTES:
            if len(quotes) == QUOTES_MAX:
                raise MalformedError(f"attestation: found more than {QUOTES_MAX} quotes")
            quotes.append(_quote(value))
        elif field in (_AK_PUBLIC, _EVENT_LOG, _AK_CERT):
            if field in single:
                raise MalformedError(f"attestation: found field {field} twice, expected it once")
            single[field] = _certificate(value) if field == _AK_CERT else value
        elif field == _INTERMEDIATES:
            if len(intermediates) == INTERMEDIATES_MAX:
                raise MalformedError(f"attestation: found over {INTERMEDIATES_MAX} intermediates")
            intermediates.append(_certificate(value))
        elif field not in _NOT_USED:
            raise MalformedError(f"attestation: found field {field}, expected a known one")
    return Attestation(
        single.get(_AK_PUBLIC, b""),
        single.get(_AK_CERT, b""),
        single.get(_EVENT_LOG, b""),
        tuple(quotes),
        tuple(intermediates),
    )


def _certificate(der: bytes) -> bytes:
    # As long as elsewhere: reading a name as long as the message would take too long.
    if len(der) > CERTIFICATE_MAX:
        raise MalformedError(
            f"attestation: found a certificate of {len(der)} bytes, expected ≤ {CERTIFICATE_MAX}"
        )
    return der


def _quote(raw: bytes) -> QuoteMember:
    members = _members(raw, (1, 2, 3))
    bank, registers = _registers(members[3])
    return QuoteMember(members[1], members[2], bank, MappingProxyType(registers))


def _members(raw: bytes, known: tuple[int, ...]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for field, value in _fields(raw):
        if field not in known or field in found or not isinstance(value, bytes):
            raise MalformedError(f"attestation: field {field} of a quote is not expected there")
        found[field] = value
    if len(found) != len(known):
        raise MalformedError("attestation: a quote lacks message, signature or registers")
    return found


def _registers(raw: bytes) -> tuple[str, dict[int, bytes]]:
    bank, registers = "", {}
    for field, value in _fields(raw):
        if field == 1 and isinstance(value, int) and not bank:
            bank = HASHES.get(value, "")
        elif field == 2 and isinstance(value, bytes):
            number, register = _entry(value)
            if number in registers or number >= REGISTERS:
                raise MalformedError("attestation: found a register twice, or out of range")
            registers[number] = register
        else:
            raise MalformedError(f"attestation: field {field} of registers is not expected there")
    if not bank:
        raise MalformedError("attestation: found no known bank")
    return bank, registers


def _entry(raw: bytes) -> tuple[int, bytes]:
    number, value = 0, b""  # protocol buffers leave a zero key out
    for field, member in _fields(raw):
        if field == 1 and isinstance(member, int):
            number = member
        elif field == 2 and isinstance(member, bytes):
            value = member
        else:
            raise MalformedError(f"attestation: field {field} of a register is not expected there")
    return number, value


def _fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(raw):
        if len(found) == FIELDS_MAX:
            raise MalformedError(f"attestation: found more than {FIELDS_MAX} fields")
        tag, at = _varint(raw, at)
        value, at = _varint(raw, at)
        if tag & 7 == _VARINT:
            found.append((tag >> 3, value))
        elif tag & 7 == _BYTES:
            if value > len(raw) - at:
                raise MalformedError(f"attestation: found length {value}, expected ≤ {len(raw)}")
            found.append((tag >> 3, raw[at : at + value]))
            at += value
        else:
            raise MalformedError("attestation: found another wire type, expected number or bytes")
    return found


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_BYTES):
        if at >= len(raw):
            break
        value |= (raw[at] & 0x7F) << 7 * place
        at += 1
        if raw[at - 1] < 0x80:
            return value, at
    raise MalformedError("attestation: a number does not end, or is too long")
