"""`intel-tdx-quote`: an Intel TDX quote, v4 or v5, of a TD report 1.0 or 1.5.

Examination, roles and reason codes: `schemes.dcap`. State: `rules.tdx`. The worker's measurement
stands in RTMR3, extended once (`registers.rtmr_value`).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import INTEL
from attestation.registers import rtmr_value
from attestation.rules import tdx as rules
from attestation.scheme import Need, Scheme
from wire.errors import AttestationError

from . import dcap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Examined, Question

KIND: Final = "intel-tdx-quote"
FAMILY: Final = dcap.Family(KIND, "tdx", "tdx", (4, 5))


def examine(question: Question) -> Examined:
    """Whether a TDX quote is genuine."""
    return dcap.examine(FAMILY, question)


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Intel's collateral for this quote's platform."""
    return dcap.needs(FAMILY, evidence)


def carries(facts: Any, measurement: bytes) -> str:
    """RTMR3 is the measurement, extended once.

    Raises:
        AttestationError: `measurement_mismatch`.
    """
    if not hmac.compare_digest(facts.quote.body.rt_mr3, rtmr_value(measurement)):
        raise AttestationError(
            "TD: RTMR3 is not one extension by the measurement", reasons=("measurement_mismatch",)
        )
    return "RTMR3 holds the measurement"


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=dcap.EVIDENCE,
    collateral=dcap.COLLATERAL,
    anchors=INTEL,
    examine=examine,
    needs=needs,
    rule=rules.parse,
    judge=rules.judge,
    carries=carries,
    rule_keys=rules.KEYS,
)
