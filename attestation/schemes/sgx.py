"""`intel-sgx-quote`: an Intel SGX quote, v3.

Examination, roles and reason codes: `schemes.dcap`. State: `rules.sgx`. An enclave has no register
that a launcher extends, so this kind can only accompany another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.anchors import INTEL
from attestation.rules import sgx as rules
from attestation.scheme import Need, Scheme

from . import dcap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Examined, Question

KIND: Final = "intel-sgx-quote"
FAMILY: Final = dcap.Family(KIND, "sgx", "sgx", (3,))


def examine(question: Question) -> Examined:
    """Whether an SGX quote is genuine."""
    return dcap.examine(FAMILY, question)


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Intel's collateral for this quote's platform."""
    return dcap.needs(FAMILY, evidence)


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
    carries=None,
    rule_keys=rules.KEYS,
)
