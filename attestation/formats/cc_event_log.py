"""Confidential computing event logs (ACPI table CCEL): what was measured into a TD's RTMRs.

The form is the agile TCG log's. An event's register is a CC measurement register: 0 is MRTD, which
nothing can extend, and 1 to 4 are RTMR 0 to 3. The table is padded with 0xFF or zero bytes.

Source: UEFI 2.10, chapter 38.4.1; Intel Guest-Host Communication Interface for TDX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .tcg_event_log import EVENTS_MAX, Event, LogCursor, agile_event, sha1_event, spec_id_banks

MEASUREMENT_REGISTERS: Final = range(1, 5)  # RTMR number plus one
BANK: Final = "sha384"


@dataclass(frozen=True, slots=True)
class CcEventLog:
    """A parsed CC event log, unverified.

    Attributes:
        events: in the log's order, without the "Spec ID Event" that describes it.
    """

    events: tuple[Event, ...]


def parse_cc_event_log(raw: bytes) -> CcEventLog:
    """The log in `raw`.

    Raises:
        MalformedError: any length, register or algorithm that the format does not have; a log
            without SHA-384, which alone RTMRs are extended with.
    """
    cursor = LogCursor(raw, "CC event log")
    banks = spec_id_banks(sha1_event(cursor), cursor)
    if banks is None or BANK not in banks:
        raise cursor.fail("a log without SHA-384", "a spec ID event that declares it")
    events: list[Event] = []
    while not cursor.ended():
        if len(events) == EVENTS_MAX:
            raise cursor.fail(f"more than {EVENTS_MAX} events", "fewer")
        event = agile_event(cursor, banks)
        if event.extends and event.register not in MEASUREMENT_REGISTERS:
            raise cursor.fail(f"measurement register {event.register}", "1 to 4")
        events.append(event)
    return CcEventLog(tuple(events))
