"""What a test expects of a verdict: accepted, or refused for certain reasons and no others."""

from __future__ import annotations

from attestation.result import AppraisedEvidence, Refused


def accepted(verdict: AppraisedEvidence | Refused) -> AppraisedEvidence:
    """The acceptance; every check of it passed."""
    assert isinstance(verdict, AppraisedEvidence), verdict
    assert all(check.ok is True for check in verdict.checks)
    return verdict


def rejected(verdict: AppraisedEvidence | Refused) -> Refused:
    """The refusal; every reason is some check's that did not pass."""
    assert isinstance(verdict, Refused), "accepted"
    failed = {check.step for check in verdict.checks if check.ok is not True}
    assert {reason.step for reason in verdict.reasons} <= failed
    return verdict


def refused_for(verdict: AppraisedEvidence | Refused, *codes: str) -> Refused:
    """The refusal, for these reasons and no others, in any order."""
    found = rejected(verdict)
    assert set(found.codes) == set(codes), found.reasons
    return found
