"""The demands on an event log: which events may have been measured into which register.

    {"bank": "sha256", "events": {"4": [hex digest, …], …}, "unchecked": [0, 1, 2, 3, 5, 6, 7]}

A register that the log extends must be named: with the digests of all events it may hold, or as
unchecked. Default deny: an event nobody listed, in a register nobody listed, is a reason; so is a
register with listed events into which the log measures nothing, or a log cut short would do.

Steps and codes of the judgement:
 log 1 bank       the log has the demanded bank              bank_not_accepted
 log 2 registers  every extended register is named           register_not_accepted
 log 3 events     checked registers have events, all listed  event_not_accepted
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.formats.tcg_event_log import REGISTERS
from attestation.members import Members
from attestation.replay import RTMR_BANK, RTMRS, SOUND_BANKS
from wire.errors import PolicyError, refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.formats.tcg_event_log import Event
    from attestation.ledger import Ledger

_refused: Final = partial(refused, about="event log")
DIGESTS_MAX: Final = 1024  # accepted events a register, over all accepted releases
BANK_DEFAULT: Final = "sha256"

_DIGITS: Final = MappingProxyType({"sha256": 64, "sha384": 96, "sha512": 128})
_NUMBER = re.compile(r"0|[1-9][0-9]?")


@dataclass(frozen=True, slots=True)
class EventLogRule:
    """Demands on a log.

    Attributes:
        bank: the bank that counts; never SHA-1, which can be collided.
        events: register to the digests its events may have.
        unchecked: registers that may hold anything.
    """

    bank: str
    events: Mapping[int, frozenset[bytes]]
    unchecked: frozenset[int]


@dataclass(frozen=True, slots=True)
class Measured:
    """A log's extensions in the numbering that rules use.

    Attributes:
        banks: the banks its events carry.
        events: (register, event) of every extension, in order.
    """

    banks: tuple[str, ...]
    events: tuple[tuple[int, Event], ...]


def parse_tcg(members: Members) -> EventLogRule:
    """The rule for a TCG log's PCRs, in one of the SHA-2 banks.

    Raises:
        PolicyError: another bank, register or digest; a register both checked and unchecked.
    """
    bank = members.text("bank") if "bank" in members else BANK_DEFAULT
    if bank not in SOUND_BANKS:
        raise members.fail("bank", " or ".join(SOUND_BANKS))
    return _rule(members, bank, REGISTERS)


def parse_cc(members: Members) -> EventLogRule:
    """The rule for a CC log's RTMRs, by RTMR number."""
    return _rule(members, RTMR_BANK, RTMRS)


def judge(ledger: Ledger, facts: Measured, rule: EventLogRule, now: int) -> None:
    """Run the steps of the module docstring."""
    del now  # a log knows no time
    if not ledger.run("log 1 bank", lambda: _bank(facts, rule)):
        ledger.skip("log 2-3", "the log lacks the bank that counts")
        return
    ledger.run("log 2 registers", lambda: _registers(facts, rule))
    ledger.run("log 3 events", lambda: _events(facts, rule))


def _bank(facts: Measured, rule: EventLogRule) -> str:  # log 1
    if rule.bank not in facts.banks:
        raise _refused(
            "bank_not_accepted", f"found banks {', '.join(facts.banks)}, expected {rule.bank}"
        )
    return rule.bank


def _registers(facts: Measured, rule: EventLogRule) -> str:  # log 2
    named = rule.events.keys() | rule.unchecked
    other = sorted({register for register, _ in facts.events} - named)
    if other:
        raise _refused(
            "register_not_accepted", f"found register {other[0]} extended, expected only named ones"
        )
    return f"{len(named)} named"


def _events(facts: Measured, rule: EventLogRule) -> str:  # log 3
    absent = sorted(rule.events.keys() - {register for register, _ in facts.events})
    if absent:
        raise _refused(
            "event_not_accepted", f"found no event in register {absent[0]}, expected listed ones"
        )
    checked = 0
    for register, event in facts.events:
        if register not in rule.events:
            continue
        if event.digests[rule.bank] not in rule.events[register]:
            raise _refused(
                "event_not_accepted",
                f"found an event of type {event.kind:#010x} in register {register}, "
                "expected only listed ones",
            )
        checked += 1
    return f"{checked} events of {len(rule.events)} registers are listed"


def _rule(members: Members, bank: str, registers: int) -> EventLogRule:
    obj = members.value("events")
    if not isinstance(obj, dict) or len(obj) > registers:
        raise members.fail("events", f"an object of at most {registers} registers")
    listed = Members(obj, "policy.accept.events", optional=tuple(obj), error=PolicyError)
    events = {}
    for key in obj:
        if _NUMBER.fullmatch(key) is None or int(key) >= registers:
            raise listed.fail(key, f"a register number below {registers}")
        events[int(key)] = _digests(listed, key, _DIGITS[bank])
    unchecked = _numbers(members, registers)
    if unchecked & events.keys():
        raise members.fail("unchecked", "no register that has events listed")
    return EventLogRule(bank, MappingProxyType(events), unchecked)


def _digests(listed: Members, key: str, digits: int) -> frozenset[bytes]:
    texts: Sequence[str] = listed.texts(key, DIGESTS_MAX, 1)
    for text in texts:
        if re.fullmatch(rf"[0-9a-f]{{{digits}}}", text) is None:
            raise listed.fail_item(key, text, f"digests of {digits} lower-case hex digits")
    return frozenset(bytes.fromhex(text) for text in texts)


def _numbers(members: Members, registers: int) -> frozenset[int]:
    items = members.array("unchecked", registers)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < registers:
            raise members.fail_item("unchecked", item, f"register numbers below {registers}")
    return frozenset(items)
