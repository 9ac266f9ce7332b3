"""What a test expects of a verdict: accepted, or refused for certain reasons and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attestation.result import AppraisedEvidence, Refused
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.examined import Examined


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


def codes_of(examined: Examined) -> list[str]:
    """Why evidence is not genuine, in the order found; it is exactly if nothing speaks against."""
    assert examined.authentic is (not examined.reasons)
    return [reason.code for reason in examined.reasons]


def codes(examined: Examined) -> set[str]:
    """What speaks against evidence, in no order."""
    return {reason.code for reason in examined.reasons}


def refusal(step: Callable[[], Any], match: str | None = None) -> str:
    """The one reason for which a step refuses, in these words."""
    with pytest.raises(AttestationError, match=match) as caught:
        step()
    (reason,) = caught.value.reasons
    return reason
