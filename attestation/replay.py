"""Replay: the register values that an event log's extensions give, in order.

    register ← H(register ‖ digest), for every event but EV_NO_ACTION

A log proves nothing by itself. Its replay equals the registers that hardware signed, or the log is
not what was measured. Pure.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .formats.cc_event_log import CcEventLog
    from .formats.tcg_event_log import EventLog

BANKS: Final = ("sha1", "sha256", "sha384", "sha512")  # the banks that can be replayed
# SHA-1 registers can be collided, so its bank is read and replayed but satisfies no demand.
SOUND_BANKS: Final = BANKS[1:]
DYNAMIC: Final = range(17, 23)
RTMRS: Final = 4
RTMR_BANK: Final = "sha384"


def replay(log: EventLog, bank: str) -> dict[int, bytes]:
    """The registers of one bank that the log extends, by number.

    Args:
        log: a TCG event log.
        bank: one of the log's banks that is in `BANKS`.

    Raises:
        ValueError: another bank.
    """
    if bank not in log.banks or bank not in BANKS:
        raise ValueError(f"the log has no bank {bank} that can be replayed")
    size = hashlib.new(bank).digest_size
    registers: dict[int, bytes] = {}
    for event in log.events:
        if not event.extends:
            continue
        value = registers.get(event.register)
        if value is None:
            value = _started(log, size, event.register)
        registers[event.register] = hashlib.new(bank, value + event.digests[bank]).digest()
    return registers


def reset_values(log: EventLog, bank: str, register: int) -> tuple[bytes, ...]:
    """What a register holds before anything was measured into it.

    Args:
        log: a TCG event log, for where the TPM was started from.
        bank: one of `BANKS`.
        register: its number.
    """
    size = hashlib.new(bank).digest_size
    started = _started(log, size, register)
    # Without a dynamic launch, registers 17 to 22 stay all ones.
    return (started, b"\xff" * size) if register in DYNAMIC else (started,)


def _started(log: EventLog, size: int, register: int) -> bytes:
    # Register 0 starts at the locality the TPM was started from; the others at zero. Registers 17
    # to 22 are zero after the dynamic launch that measures into them.
    return bytes(size - 1) + bytes([log.locality if register == 0 else 0])


def replay_all(log: EventLog) -> dict[str, dict[int, bytes]]:
    """The registers of every bank of the log that can be replayed."""
    return {bank: replay(log, bank) for bank in log.banks if bank in BANKS}


def replay_rtmrs(log: CcEventLog) -> dict[int, bytes]:
    """All four run-time measurement registers; one that no event extends is zero."""
    registers = dict.fromkeys(range(RTMRS), bytes(hashlib.new(RTMR_BANK).digest_size))
    for event in log.events:
        if event.extends:
            register = event.register - 1
            extended = registers[register] + event.digests[RTMR_BANK]
            registers[register] = hashlib.new(RTMR_BANK, extended).digest()
    return registers


def differing(found: Mapping[int, bytes], replayed: Mapping[int, bytes]) -> tuple[int, ...]:
    """The registers present in both that differ, ascending."""
    return tuple(
        number
        for number in sorted(replayed)
        if number in found and found[number] != replayed[number]
    )
