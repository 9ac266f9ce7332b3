"""`cc-event-log`: a CC event log, and the TD quote whose RTMRs it explains.

 cc 1 format  the log and the quote parse, the quote is a TD's   evidence_malformed
 cc 2 replay  the log replays to all four RTMRs of the quote     event_log_mismatch

A log without a quote proves nothing, so it is neither true nor false, as a `tcg-event-log` is; what
it says is claimed. With one, "authentic" means exactly these two steps: the log is the one behind
the quote. The quote itself is only parsed here. Whether hardware made it, and when, its own kind
`intel-tdx-quote` judges, and a relying party must ask both about the same bytes. So this kind
vouches for no worker by itself.

The judgement's steps and codes are those of `attestation.rules.event_log`, by RTMR number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import NONE
from attestation.examined import Examined, Question
from attestation.formats.cc_event_log import CcEventLog, parse_cc_event_log
from attestation.formats.dcap_bodies import TdReport
from attestation.formats.dcap_quote import parse_quote
from attestation.ledger import Ledger
from attestation.replay import RTMR_BANK, replay_rtmrs
from attestation.rules.event_log import Measured, judge, parse_cc
from attestation.scheme import Need, Scheme
from attestation.verify.event_log import check_rtmrs
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND: Final = "cc-event-log"
QUOTE, EVENT_LOG = "quote", "event_log"


def examine(question: Question) -> Examined:
    """Is this the log of what was measured into the quote's RTMRs?"""
    ledger = Ledger()
    logs: list[CcEventLog] = []
    quoted: dict[int, bytes] = {}

    def parse() -> str:  # cc 1
        if EVENT_LOG not in question.evidence:
            raise MalformedError(f"{KIND}: found no {EVENT_LOG}, expected one")
        if QUOTE in question.evidence:
            quoted.update(rtmrs(question.evidence[QUOTE]))
        logs.append(parse_cc_event_log(question.evidence[EVENT_LOG]))
        return f"{len(logs[0].events)} events"

    if not ledger.run("cc 1 format", parse, "evidence_malformed"):
        ledger.skip("cc 2 replay", "the evidence does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    log = logs[0]
    replayed = replay_rtmrs(log)
    if quoted:
        ledger.run("cc 2 replay", lambda: check_rtmrs(quoted, replayed))
    return Examined(
        KIND,
        ledger.accepted if quoted else None,
        _claims(log, quoted, replayed),
        measured(log),
        tuple(ledger.checks),
        tuple(ledger.reasons),
    )


def rtmrs(raw: bytes) -> dict[int, bytes]:
    """The RTMRs of the TD that a quote speaks about, by number; unverified.

    Raises:
        MalformedError: no quote, or one of an SGX enclave, which has none.
    """
    body = parse_quote(raw).body
    if not isinstance(body, TdReport):
        raise MalformedError("quote: found an SGX enclave's, expected a TD's")
    return dict(enumerate((body.rt_mr0, body.rt_mr1, body.rt_mr2, body.rt_mr3)))


def measured(log: CcEventLog) -> Measured:
    """The log's extensions by RTMR number, as rules take them."""
    return Measured(
        (RTMR_BANK,), tuple((event.register - 1, event) for event in log.events if event.extends)
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing: the quote's own kind needs collateral, this one does not."""
    del evidence
    return ()


def _claims(
    log: CcEventLog, quoted: Mapping[int, bytes], replayed: Mapping[int, bytes]
) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "events": len(log.events),
        "rtmr_replay": {str(number): value.hex() for number, value in replayed.items()},
    }
    if quoted:
        claims["rtmr_matches"] = {
            str(number): quoted.get(number) == value for number, value in replayed.items()
        }
    return claims


SCHEME: Final = Scheme(
    kind=KIND,
    trust="software",  # the quote's own kind may say more
    evidence=((EVENT_LOG,), (QUOTE,)),
    collateral=(),
    anchors=NONE,
    examine=examine,
    needs=needs,
    rule=parse_cc,
    judge=judge,
    carries=None,
    rule_keys=(("events", "unchecked"), ()),
)
