"""PCR values as they stand beside a quote, in JSON. Parse only.

    {"sha256": {"0": hex, …}, "sha1": {}, …}        by bank and register; a TPM may keep none of one
    {"alg": "sha256", "pcrs": [hex, … ≤ 24 of them]}  one bank, its registers from 0 on

Unsigned: a value counts only if a quote's digest covers it (`attestation.verify.tpm`). Each has its
bank's length, or values could be cut elsewhere and give the same digest.
"""

from __future__ import annotations

import hashlib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError

from .tpm_structures import HASHES

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTERS: Final = 24
REGISTERS_JSON_MAX: Final = 32 * 1024  # four banks of 24 registers in hex, with indentation
SIZES: Final[Mapping[str, int]] = MappingProxyType(
    {bank: hashlib.new(bank).digest_size for bank in HASHES.values()}
)
# 0-15 are what a boot was; 17-22 are a dynamic launch's. 16 and 23 can be reset by anybody.
RESETTABLE: Final = frozenset({16, 23})

_INDEX = re.compile(r"0|[1-9][0-9]?")
_HEX = re.compile(r"(?:[0-9a-f]{2})+|(?:[0-9A-F]{2})+")
_LIST_KEYS = ("alg", "pcrs")

Registers = dict[int, bytes]


def parse_registers(raw: bytes) -> Mapping[str, Mapping[int, bytes]]:
    """Bank to register to value.

    Raises:
        MalformedError: any deviation from the two forms.
    """
    obj = parse_strict(raw, max_bytes=REGISTERS_JSON_MAX)
    if isinstance(obj, dict) and "alg" in obj:
        members = Members(obj, "pcrs", required=_LIST_KEYS)
        bank = members.text("alg")
        return MappingProxyType({bank: listed_registers(bank, members.array("pcrs", REGISTERS))})
    banks = Members(obj, "pcrs", optional=tuple(SIZES))
    found = {bank: _by_number(bank, banks.value(bank)) for bank in SIZES if bank in banks}
    found = {bank: values for bank, values in found.items() if values}
    if not found:
        raise MalformedError("pcrs: found no bank with registers, expected at least one")
    return MappingProxyType(found)


def listed_registers(bank: str, values: object) -> Mapping[int, bytes]:
    """A bank's registers from 0 on, listed in their order.

    Raises:
        MalformedError: an unknown bank, no value or too many, or one of another length.
    """
    if not isinstance(values, list) or not 1 <= len(values) <= REGISTERS:
        raise MalformedError(f"pcrs: expected an array of 1 to {REGISTERS} registers, 0 first")
    return checked_registers(bank, {number: _value(text) for number, text in enumerate(values)})


def checked_registers(bank: str, registers: Mapping[int, bytes]) -> Mapping[int, bytes]:
    """The same registers, each of its bank's length.

    Raises:
        MalformedError: an unknown bank, a number out of range, another length.
    """
    size = SIZES.get(bank)
    if size is None:
        raise MalformedError(f"pcrs: found another bank, expected {', '.join(SIZES)}")
    for number, value in registers.items():
        if not 0 <= number < REGISTERS or len(value) != size:
            raise MalformedError(f"pcrs: expected registers below {REGISTERS} of {size} bytes")
    return MappingProxyType(dict(registers))


def _by_number(bank: str, obj: object) -> Mapping[int, bytes]:
    if not isinstance(obj, dict) or len(obj) > REGISTERS:
        raise MalformedError(f"pcrs.{bank}: expected an object of at most {REGISTERS} registers")
    if any(_INDEX.fullmatch(key) is None for key in obj):
        raise MalformedError(f"pcrs.{bank}: expected register numbers below {REGISTERS}")
    return checked_registers(bank, {int(key): _value(text) for key, text in obj.items()})


def _value(text: object) -> bytes:
    if not isinstance(text, str) or _HEX.fullmatch(text) is None:
        raise MalformedError("pcrs: expected values in hex")
    return bytes.fromhex(text)
