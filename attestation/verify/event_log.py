"""What an event log proves: that replaying it gives the registers that hardware signed.

Each function is one step and raises `AttestationError` with `event_log_mismatch`. Which events are
acceptable is a rule's question (`attestation.rules.event_log`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestation.replay import BANKS, differing, replay
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.formats.tcg_event_log import EventLog


def check_quoted_registers(log: EventLog, quoted: Mapping[str, Mapping[int, bytes]]) -> str:
    """The log replays to every register that it extends and a quote covers, in every shared bank.

    Args:
        log: the log beside the quotes.
        quoted: bank to register to value, as quotes cover them.

    Raises:
        AttestationError: a register differs, or no register is in both: then the log would be
            believed for nothing.
    """
    compared = 0
    for bank in log.banks:
        if bank not in BANKS or bank not in quoted:
            continue
        replayed = replay(log, bank)
        wrong = differing(quoted[bank], replayed)
        if wrong:
            raise _mismatch(f"{bank} registers {_listed(wrong)} do not replay")
        compared += len(quoted[bank].keys() & replayed.keys())
    if not compared:
        raise _mismatch("found no register that it extends and a quote covers, expected some")
    return f"{len(log.events)} events replay to {compared} quoted registers"


def check_rtmrs(quoted: Mapping[int, bytes], replayed: Mapping[int, bytes]) -> str:
    """The log replays to all RTMRs of the quote.

    Raises:
        AttestationError: one differs.
    """
    wrong = differing(quoted, replayed)
    if wrong or quoted.keys() != replayed.keys():
        raise _mismatch(f"RTMR {_listed(wrong)} does not replay")
    return f"{len(replayed)} RTMRs replay"


def _listed(registers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in registers)


def _mismatch(detail: str) -> AttestationError:
    return AttestationError(f"event log: {detail}", reasons=("event_log_mismatch",))
