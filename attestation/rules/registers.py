"""Demands on TPM registers, shared by the kinds that carry a TPM quote.

    {"bank": "sha256", "pcrs": {"4": [hex, …], …}}

Without `bank`, listed values are of the SHA-256 bank; if none are listed either, no bank is
demanded, and a quote of any will do: such a rule asks only who signed. Equality, never a range: a
register holds one of the listed values. Registers 16 and 23 can be reset by anybody and SHA-1 can
be collided, so neither can be demanded: such a demand would look like one.

A rule for workers must list register 4, into which firmware measures the code that it starts: boot
loader, kernel or unified image. All others leave the image open. 0 to 3 are the machine's; 5 is the
boot's configuration; 7 says whose signature sufficed, and the usual signers have signed every
distribution's loader; 8 to 15 are zero when that code starts, and it may write into them what it
likes, the worker's register 11 too. What the code of register 4 loads by itself (a kernel's command
line and initial disk, in 8, 9 or 12) should be listed beside it where it is not part of one image.

Steps and codes, numbered by the kind:
 bank       a quote covers registers of the demanded bank,     bank_not_accepted
            if one is demanded
 registers  each demanded one is quoted and has a listed value pcr_selection, pcr_not_accepted
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.formats.tpm_registers import REGISTERS, RESETTABLE, SIZES
from attestation.members import Members
from attestation.registers import tpm_pcr_value
from attestation.replay import SOUND_BANKS
from wire.errors import PolicyError, refused

from .demands import IMAGE_NEEDED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_refused: Final = partial(refused, about="registers")
VALUES_MAX: Final = 64  # accepted values of one register, over all accepted releases
BANK_DEFAULT: Final = "sha256"
MEASUREMENT_BANK: Final = "sha256"
BOOT_PCR: Final = 4
MEASUREMENT_PCR: Final = 11  # 0-7 are firmware's, 16 and 23 anybody's; 8-15 are the system's

_NUMBER = re.compile(r"0|[1-9][0-9]?")


@dataclass(frozen=True, slots=True)
class RegisterRule:
    """Accepted register values of one bank.

    Attributes:
        bank: the demanded bank; "" where none is demanded, and then no value is listed.
        values: register to accepted values.
    """

    bank: str
    values: Mapping[int, frozenset[bytes]]

    @property
    def unsaid(self) -> str:
        """Which code firmware may start."""
        accepted = self.values.get(BOOT_PCR, frozenset())
        if not accepted:
            found, wanted = f"no register {BOOT_PCR}", "its values"
        elif not accepted.isdisjoint(_nothing(self.bank)):
            found, wanted = f"register {BOOT_PCR} with no code measured", "the values"
        else:
            return ""
        return f"pcrs: found {found}, expected {wanted} {IMAGE_NEEDED}"


def parse_registers_rule(members: Members) -> RegisterRule:
    """The demands in a rule with the keys `pcrs` and, optionally, `bank`.

    Raises:
        PolicyError: another bank; a register that proves nothing or does not exist; no value.
    """
    bank = members.text("bank") if "bank" in members else BANK_DEFAULT
    if bank not in SOUND_BANKS:
        raise members.fail("bank", " or ".join(SOUND_BANKS))
    obj = members.value("pcrs")
    if not isinstance(obj, dict) or len(obj) > REGISTERS:
        raise members.fail("pcrs", f"an object of at most {REGISTERS} registers")
    listed = Members(obj, "policy.accept.pcrs", optional=tuple(obj), error=PolicyError)
    values = {}
    for key in obj:
        if _NUMBER.fullmatch(key) is None or int(key) not in _DEMANDABLE:
            raise listed.fail(key, "registers 0 to 22 but 16: others can be reset by anybody")
        values[int(key)] = _values(listed, key, 2 * SIZES[bank])
    demanded = bank if values or "bank" in members else ""
    return RegisterRule(demanded, MappingProxyType(values))


def demanded_bank(rule: RegisterRule, quoted: Callable[[str], Mapping[int, bytes]]) -> str | None:
    """The bank that a rule speaks of, any of SHA-2 if of none; None if no quote covers it."""
    wanted = (rule.bank,) if rule.bank else SOUND_BANKS
    return next((bank for bank in wanted if quoted(bank)), None)


def check_bank(rule: RegisterRule, quoted: Callable[[str], Mapping[int, bytes]]) -> str:
    """A quote covers registers of the demanded bank.

    Args:
        rule: the demand.
        quoted: bank to the registers that a quote covers, empty for none.

    Raises:
        AttestationError: `bank_not_accepted`.
    """
    if not rule.bank:
        return "none is demanded"
    found = quoted(rule.bank)
    if not found:
        raise _refused("bank_not_accepted", f"found no quote of it, expected bank {rule.bank}")
    return f"{len(found)} registers of {rule.bank}"


def check_values(rule: RegisterRule, quoted: Callable[[str], Mapping[int, bytes]]) -> str:
    """Each demanded register is quoted and holds a listed value.

    Raises:
        AttestationError: `pcr_selection` or `pcr_not_accepted`.
    """
    found = quoted(rule.bank)
    for number, accepted in sorted(rule.values.items()):
        value = found.get(number)
        if value is None:
            raise _refused("pcr_selection", f"register {number} is not quoted, expected it to be")
        if value not in accepted:
            raise _refused("pcr_not_accepted", f"register {number} has no listed value")
    return f"{len(rule.values)} demanded registers"


def check_measurement(found: Mapping[int, bytes], measurement: bytes) -> str:
    """Register 11 of the SHA-256 bank was extended once, with exactly this measurement.

    Raises:
        AttestationError: `pcr_selection` or `pcr_mismatch`.
    """
    value = found.get(MEASUREMENT_PCR)
    if value is None:
        raise _refused("pcr_selection", f"register {MEASUREMENT_PCR} is not quoted, expected it")
    if not hmac.compare_digest(value, tpm_pcr_value(measurement)):
        raise _refused(
            "pcr_mismatch", f"register {MEASUREMENT_PCR}: not one extension by the measurement"
        )
    return f"register {MEASUREMENT_PCR} holds the measurement"


def _values(listed: Members, key: str, digits: int) -> frozenset[bytes]:
    texts = listed.texts(key, VALUES_MAX, 1)
    for text in texts:
        if re.fullmatch(rf"[0-9a-f]{{{digits}}}", text) is None:
            raise listed.fail_item(key, text, f"values of {digits} lower-case hex digits")
    return frozenset(bytes.fromhex(text) for text in texts)


def _nothing(bank: str) -> frozenset[bytes]:
    """What a register holds that no code was measured into: reset, or a separator alone."""
    size = SIZES[bank]
    separators = (hashlib.new(bank, mark * 4).digest() for mark in (b"\0", b"\xff"))
    alone = (hashlib.new(bank, bytes(size) + mark).digest() for mark in separators)
    return frozenset((bytes(size), b"\xff" * size, *alone))


_DEMANDABLE: Final = frozenset(range(REGISTERS)) - RESETTABLE
