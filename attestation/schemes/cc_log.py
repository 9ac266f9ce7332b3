"""`cc-event-log`: a CC event log, and the TD quote whose RTMRs it explains.

 cc 1 format  the log and the quote parse, the quote is a TD's   evidence_malformed
 cc 2 replay  the log replays to all four RTMRs of the quote     event_log_mismatch
 cc 3 …       Intel's hardware signed the quote                  those of `schemes.tdx.run_alone`

A log without a quote proves nothing, so it is neither true nor false, as a `tcg-event-log` is; what
it says is claimed. With one, "authentic" means that some genuine TD measured what the log says. A
log may tell of a boot long ago: where the question has no time (0), the certificates must have held
when the youngest of them began. How up to date that platform is, whether it was revoked, and for
whom the quote was made, its own kind `intel-tdx-quote` judges, and a relying party must ask both
about the same bytes. So this kind vouches for no worker by itself.

The judgement's steps and codes are those of `attestation.rules.event_log`, by RTMR number, and
 log 4 debug  no debugger could write to the quote's TD          debug_enabled
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import INTEL
from attestation.examined import FOREVER, Examined, Question
from attestation.formats.cc_event_log import CcEventLog, parse_cc_event_log
from attestation.formats.dcap_bodies import TdReport
from attestation.formats.dcap_quote import Quote, parse_quote
from attestation.formats.pck import parse_chain
from attestation.ledger import Ledger
from attestation.replay import RTMR_BANK, replay_rtmrs
from attestation.rules import event_log as rules
from attestation.rules.event_log import EventLogRule, Measured
from attestation.rules.tdx import check_debug
from attestation.scheme import Need, Scheme
from attestation.verify.event_log import check_rtmrs
from attestation.verify.x509 import began
from wire.errors import MalformedError

from . import tdx

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND: Final = "cc-event-log"
QUOTE, EVENT_LOG, ROOT = "quote", "event_log", "root"


@dataclass(frozen=True, slots=True)
class CcFacts:
    """What the judgement takes.

    Attributes:
        measured: what the log says.
        td: what was quoted; None without a quote.
    """

    measured: Measured
    td: TdReport | None


def examine(question: Question) -> Examined:
    """Is this the log of what was measured into the RTMRs of a genuine quote?"""
    ledger = Ledger()
    logs: list[CcEventLog] = []
    quotes: list[tuple[Quote, TdReport]] = []

    def parse() -> str:  # cc 1
        if EVENT_LOG not in question.evidence:
            raise MalformedError(f"{KIND}: found no {EVENT_LOG}, expected one")
        if QUOTE in question.evidence:
            quotes.append(_td_quote(question.evidence[QUOTE]))
        logs.append(parse_cc_event_log(question.evidence[EVENT_LOG]))
        return f"{len(logs[0].events)} events"

    if not ledger.run("cc 1 format", parse, "evidence_malformed"):
        ledger.skip("cc 2-3", "the evidence does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    log = logs[0]
    replayed = replay_rtmrs(log)
    if not quotes:
        facts = CcFacts(measured(log), None)
        return Examined(KIND, None, _claims(log, {}, replayed), facts, tuple(ledger.checks))
    quote, td = quotes[0]
    quoted = dict(enumerate((td.rt_mr0, td.rt_mr1, td.rt_mr2, td.rt_mr3)))
    ledger.run("cc 2 replay", lambda: check_rtmrs(quoted, replayed))
    at = question.now or began(_pck_chain(quote))
    not_after = tdx.run_alone(ledger, "cc 3", quote, question, at)
    return Examined(
        KIND,
        ledger.accepted,
        {**_claims(log, quoted, replayed), "report_data": td.report_data.hex()},
        CcFacts(measured(log), td),
        tuple(ledger.checks),
        tuple(ledger.reasons),
        not_after if question.now else FOREVER,
    )


def measured(log: CcEventLog) -> Measured:
    """The log's extensions by RTMR number, as rules take them."""
    return Measured(
        (RTMR_BANK,), tuple((event.register - 1, event) for event in log.events if event.extends)
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing: the quote's own kind needs collateral, this one does not."""
    del evidence
    return ()


def judge(ledger: Ledger, facts: CcFacts, rule: EventLogRule, now: int) -> None:
    """The log's events, then the TD that measured them."""
    rules.judge(ledger, facts.measured, rule, now)
    td = facts.td
    if td is not None:
        ledger.run("log 4 debug", lambda: check_debug(td))


def _td_quote(raw: bytes) -> tuple[Quote, TdReport]:
    quote = parse_quote(raw)
    if not isinstance(quote.body, TdReport):
        raise MalformedError("quote: found an SGX enclave's, expected a TD's")
    return quote, quote.body


def _pck_chain(quote: Quote) -> tuple[bytes, ...]:
    """Its certificates; () if they cannot be read, which is refused where they are verified."""
    try:
        return tuple(parse_chain(quote.cert_data, "PCK chain").ders)
    except MalformedError:
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
    collateral=(ROOT,),
    anchors=INTEL,
    examine=examine,
    needs=needs,
    rule=rules.parse_cc,
    judge=judge,
    carries=None,
    rule_keys=(("events", "unchecked"), ()),
)
