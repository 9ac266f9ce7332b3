"""Verdicts on workers as entries of the evidence log, the negative ones too."""

from collections.abc import Sequence

from attestation.result import AppraisedEvidence, Refused
from evidence.entry import Logged
from evidence.events import ATTEST_VERDICT, attest_verdict_event
from wire.ids import bh_of, sha256_tag

from .appraiser import Presented
from .ledger import Ledger

#: What an event holds of the kinds a worker presented.
KINDS_MAX = 128
#: Of different codes, and of steps: a node of GPUs has hundreds. The first ones say why.
REASONS_MAX = 64
CHECKS_MAX = 256


async def log_verdict(
    ledger: Ledger,
    shown: Presented,
    policy: str,
    verdict: AppraisedEvidence | Refused | Sequence[str],
) -> Logged:
    """Write a verdict; when this returns it is durable.

    Args:
        ledger: the evidence log.
        shown: what was judged.
        policy: digest of the policy it was judged under.
        verdict: the verdict, or reason codes of a refusal before any appraisal.

    Raises:
        UnavailableError: the log took no entry.
    """
    accepted = verdict if isinstance(verdict, AppraisedEvidence) else None
    if isinstance(verdict, AppraisedEvidence | Refused):
        checks = [(check.step, check.ok) for check in verdict.checks]
        reasons = verdict.codes if isinstance(verdict, Refused) else ()
    else:
        checks, reasons = [], tuple(verdict)
    kinds = ",".join(item.kind for item in shown.evidence)[:KINDS_MAX]
    event = attest_verdict_event(
        bh=bh_of(shown.binding),
        ok=accepted is not None,
        kind=accepted.kind if accepted is not None else kinds,
        evidence=[sha256_tag(item.body) for item in shown.evidence],
        policy=policy,
        trust=accepted.trust if accepted is not None else None,
        measurement=accepted.measurement if accepted is not None else None,
        reasons=list(dict.fromkeys(reasons))[:REASONS_MAX],
        checks=checks[:CHECKS_MAX],
        expires=accepted.expires if accepted is not None else None,
    )
    return await ledger.append(ATTEST_VERDICT, event)
