"""`tcg-event-log`: an event log on its own. It proves nothing, so it is neither true nor false.

 log 0 format  the log parses                               evidence_malformed

Against what it must be replayed, a quote says: see `attestation.schemes.tpm_quote`. The judgement's
steps and codes are those of `attestation.rules.event_log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.anchors import NONE
from attestation.examined import Examined, Question
from attestation.formats.tcg_event_log import EventLog, parse_event_log
from attestation.ledger import Ledger
from attestation.replay import replay_all
from attestation.rules.event_log import Measured, judge, parse_tcg
from attestation.scheme import Need, Scheme
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

KIND: Final = "tcg-event-log"


def examine(question: Question) -> Examined:
    """Parse and replay the log; see the module docstring."""
    ledger = Ledger()
    parsed: list[EventLog] = []

    def parse() -> str:  # log 0
        if "event_log" not in question.evidence:
            raise MalformedError("event log: found none, expected one")
        parsed.append(parse_event_log(question.evidence["event_log"]))
        return f"{len(parsed[0].events)} events in {', '.join(parsed[0].banks)}"

    if not ledger.run("log 0 format", parse, "evidence_malformed"):
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    log = parsed[0]
    return Examined(KIND, None, log_claims(log), measured(log), tuple(ledger.checks))


def log_claims(log: EventLog) -> dict[str, Any]:
    """What a log says, JSON-able."""
    return {
        "format": log.format,
        "events": len(log.events),
        "replay": {
            bank: {str(number): value.hex() for number, value in sorted(registers.items())}
            for bank, registers in replay_all(log).items()
        },
    }


def measured(log: EventLog) -> Measured:
    """The log's extensions, as rules take them."""
    return Measured(
        log.banks, tuple((event.register, event) for event in log.events if event.extends)
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing: no vendor vouches for a log."""
    del evidence
    return ()


SCHEME: Final = Scheme(
    kind=KIND,
    trust="software",  # a log is what software says; registers that hardware signed confirm it
    evidence=(("event_log",), ()),
    collateral=(),
    anchors=NONE,
    examine=examine,
    needs=needs,
    rule=parse_tcg,
    judge=judge,
    carries=None,
    rule_keys=(("events", "unchecked"), ("bank",)),
)
