"""`azure-vtpm-tdx`: an Azure confidential VM on Intel TDX, through its paravisor's virtual TPM.

Examination, in numbered steps with their reason codes:
 azure 1 format   every role parses                            evidence_malformed
 tdx 1 …          as `intel-tdx-quote` has them, of `td_quote` those of `schemes.dcap`
 azure 2 report   quote and HCL report are of the same TD      td_report_mismatch
 azure 3 … 6      from the report to the quote and nonce       those of `schemes.azure`

Most steps of the TD quote need Intel's collateral. With none at all they cannot say anything, and
what is examined is what the quote itself proves, in the steps of `schemes.tdx.run_alone`: azure 2.
How up to date the platform is, and whether it was revoked, is then unknown, which is a matter of
its state: the judgement refuses with `collateral_missing`, whatever the rule. Collateral that is
given must be whole and good.

The judgement is that step, the TD's (`rules.tdx`), then the VM's (`rules.azure`, steps 8 to 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from attestation import anchors
from attestation.examined import Examined, Question
from attestation.formats import intel_collateral
from attestation.formats.azure import ROLES, AzureEvidence, parse_azure
from attestation.ledger import Ledger
from attestation.rules import azure as rules
from attestation.rules import tdx as tdx_rules
from attestation.rules.azure import AzureFacts, AzureRule
from attestation.scheme import Need, Scheme
from attestation.verify.hcl import check_td_report
from wire.errors import MalformedError

from . import dcap, tdx
from .azure import key_identity, run_quote_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.formats.dcap_bodies import TdReport
    from attestation.members import Members
    from attestation.result import Reason

KIND: Final = "azure-vtpm-tdx"
TEE: Final = "TDX"
TD_QUOTE: Final = "td_quote"
_STATEMENTS: Final = ("collateral", *intel_collateral.ROLES)


@dataclass(frozen=True, slots=True)
class AzureTdxFacts(AzureFacts):
    """What the judgement takes.

    Attributes:
        deferred: why the TD quote's collateral steps did not run; None if they did.
    """

    deferred: Reason | None


def examine(question: Question) -> Examined:
    """Is this a quote of a TD's virtual TPM, of now, and made for what is expected?"""
    ledger = Ledger()
    parsed: list[AzureEvidence] = []

    def parse() -> str:  # azure 1
        if TD_QUOTE not in question.evidence:
            raise MalformedError(f"azure: found no {TD_QUOTE}, expected one")
        parsed.append(parse_azure(question.evidence, TEE))
        return f"{len(parsed[0].hcl.variable)} bytes of variable data"

    if not ledger.run("azure 1 format", parse, "evidence_malformed"):
        ledger.skip("azure 2-6", "the evidence does not parse")
        return _refused(ledger)
    found = parsed[0]
    quoted = tdx.examine(
        Question(
            evidence={"quote": question.evidence[TD_QUOTE]},
            anchors=question.anchors,
            now=question.now,
            collateral=question.collateral,
            skew=question.skew,
        )
    )
    if quoted.facts is None:
        ledger.include(quoted.checks, quoted.reasons)
        ledger.skip("azure 2-6", "the TD quote does not parse")
        return _refused(ledger)
    alone = not any(role in question.collateral for role in _STATEMENTS)
    ends = [quoted.not_after]
    deferred = None
    if alone:
        deferred = _include_all_but_missing(ledger, quoted)
        quote = quoted.facts.quote
        ends.append(tdx.run_alone(ledger, "azure 2", quote, question, question.now))
    else:
        ledger.include(quoted.checks, quoted.reasons)
    body: TdReport = quoted.facts.quote.body
    ledger.run("azure 2 report", lambda: check_td_report(found.hcl, body))
    bound = run_quote_steps(ledger, found, body.report_data, question.expected)
    return Examined(
        KIND,
        ledger.accepted,
        {**quoted.claims, **found.claims(body.report_data)},
        AzureTdxFacts(found, quoted.facts, deferred),
        tuple(ledger.checks),
        tuple(ledger.reasons),
        min(ends),
        (*quoted.identities, key_identity(found)),
        bound and ledger.accepted,
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """What the TD quote needs."""
    return tdx.needs({"quote": evidence.get(TD_QUOTE, b"")})


def parse_rule(members: Members) -> AzureRule:
    """The rule of an `accept` item: the TD quote's members and the VM's."""
    return rules.parse(members, partial(tdx_rules.parse, paravisor=True))


def judge(ledger: Ledger, facts: AzureTdxFacts, rule: AzureRule, now: int) -> int | None:
    """The steps that examination had to leave, the TD's, then the VM's."""
    if facts.deferred is not None:
        ledger.missing("azure 7 collateral", facts.deferred.code, facts.deferred.detail)
    end = tdx_rules.judge(ledger, facts.report, rule.report, now)
    rules.judge(ledger, facts, rule)
    return end


def _include_all_but_missing(ledger: Ledger, quoted: Examined) -> Reason | None:
    """Take over what could be checked; the one reason that is left to the judgement.

    Steps that did not run for want of collateral are left out here, so what the quote proves by
    itself must be verified by `tdx.run_alone`: it takes no pass from this account.
    """
    deferred = next((r for r in quoted.reasons if r.code == "collateral_missing"), None)
    ledger.include(
        (check for check in quoted.checks if check.ok is not None),
        (reason for reason in quoted.reasons if reason is not deferred),
    )
    return deferred


def _refused(ledger: Ledger) -> Examined:
    return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))


SCHEME: Final[Scheme] = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=((*ROLES, TD_QUOTE), ()),
    collateral=dcap.COLLATERAL,
    anchors=anchors.INTEL,
    examine=examine,
    needs=needs,
    rule=parse_rule,
    judge=judge,
    carries=rules.carries,
    rule_keys=(
        (*tdx_rules.KEYS[0], *rules.REQUIRED),
        (*tdx_rules.KEYS[1], *rules.OPTIONAL),
    ),
)
