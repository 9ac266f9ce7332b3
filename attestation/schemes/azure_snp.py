"""`azure-vtpm-snp`: an Azure confidential VM on AMD SEV-SNP, through its paravisor's virtual TPM.

Examination, in numbered steps with their reason codes:
 azure 1 format   every role parses                           evidence_malformed
 azure 2 report   the SNP report is of a known version        evidence_malformed,
                                                              version_not_accepted
 snp 2 … snp 10   as `amd-sev-snp-report` has them            those of `schemes.snp`
 azure 3 … 6      from the report to the quote and nonce      those of `schemes.azure`

The judgement is the SNP report's (`rules.snp_state`, steps 12 to 22), then the VM's (`rules.azure`,
steps 8 to 10). The report is the paravisor's, written at boot, this one or an earlier one: what is
fresh is the quote, by a key that the report names. `vcek` is the endorsement key's certificate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from attestation import anchors
from attestation.examined import Examined, Question
from attestation.formats.azure import ROLES, AzureEvidence, parse_azure
from attestation.formats.snp import VERSIONS, Report, parse_report, report_version
from attestation.ledger import Ledger
from attestation.rules import azure as rules
from attestation.rules import snp as snp_rules
from attestation.rules import snp_state
from attestation.rules.azure import AzureFacts, AzureRule
from attestation.scheme import Need, Scheme
from wire.errors import AttestationError, MalformedError

from . import snp
from .azure import key_identity, run_quote_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.members import Members

KIND: Final = "azure-vtpm-snp"
TEE: Final = "SEV-SNP"
VCEK: Final = "vcek"


def examine(question: Question) -> Examined:
    """Is this a quote of an SNP guest's virtual TPM, of now, and made for what is expected?"""
    ledger = Ledger()
    parsed: list[AzureEvidence] = []
    reports: list[Report] = []

    def parse() -> str:  # azure 1
        parsed.append(parse_azure(question.evidence, TEE))
        return f"{len(parsed[0].hcl.variable)} bytes of variable data"

    def report() -> str:  # azure 2
        raw = parsed[0].hcl.report
        version = report_version(raw)
        if version not in VERSIONS:
            raise AttestationError(
                f"SNP report: found version {version}, expected {VERSIONS}",
                reasons=("version_not_accepted",),
            )
        reports.append(parse_report(raw))
        return f"version {version}"

    if not (
        ledger.run("azure 1 format", parse, "evidence_malformed")
        and ledger.run("azure 2 report", report, "evidence_malformed")
    ):
        ledger.skip("azure 3-6", "the evidence does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    found = snp.authenticate(ledger, reports[0], _snp_roles(question.collateral), question)
    data = reports[0].report_data
    bound = run_quote_steps(ledger, parsed[0], data, question.expected)
    return Examined(
        KIND,
        ledger.accepted,
        {**found.claims, **parsed[0].claims(data), "report_version": reports[0].version},
        AzureFacts(parsed[0], found.facts),
        tuple(ledger.checks),
        tuple(ledger.reasons),
        found.not_after,
        (*found.identities, key_identity(parsed[0])),
        bound and ledger.accepted,
    )


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """What the SNP report inside needs."""
    try:
        report = parse_azure(evidence, TEE).hcl.report
    except MalformedError:
        return ()
    found = snp.needs({snp.REPORT: report})
    return tuple(
        replace(need, role=VCEK) if need.role == snp.ENDORSEMENT else need for need in found
    )


def parse_rule(members: Members) -> AzureRule:
    """The rule of an `accept` item: the SNP report's members and the VM's."""
    return rules.parse(members, snp_rules.parse)


def judge(ledger: Ledger, facts: AzureFacts, rule: AzureRule, now: int) -> None:
    """The SNP report's steps, then the VM's."""
    snp_state.judge(ledger, facts.report, rule.report, now)
    rules.judge(ledger, facts, rule)


def _snp_roles(collateral: Mapping[str, bytes]) -> dict[str, Any]:
    roles = {role: collateral[role] for role in (snp.CA, snp.ROOT, snp.CRL) if role in collateral}
    if VCEK in collateral:
        roles[snp.ENDORSEMENT] = collateral[VCEK]
    return roles


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=(ROLES, ()),
    collateral=(VCEK, snp.CA, snp.ROOT, snp.CRL),
    anchors=anchors.AMD,
    examine=examine,
    needs=needs,
    rule=parse_rule,
    judge=judge,
    carries=rules.carries,
    rule_keys=(
        (*snp_rules.KEYS[0], *rules.REQUIRED),
        (*snp_rules.KEYS[1], *rules.OPTIONAL),
    ),
)
