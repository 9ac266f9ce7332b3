"""Two verdicts on what the Intel simulator made, which must agree: the library and the oracle."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from oracles import dcap as oracle

from attestation.schemes import sgx, tdx

if TYPE_CHECKING:
    from attestation.examined import Examined

    from .intel import Intel

NO_OPINION: Final = bytes(8)  # TD attributes: dcap-qvl gives none where SEPT_VE_DISABLE is off


def examine(intel: Intel, **members: str) -> Examined:
    """The verdict, which the independent verifier must share."""
    scheme = tdx if intel.tee == "tdx" else sgx
    question = intel.question()
    collateral = intel.collateral(**members)
    question = replace(question, collateral={"collateral": collateral})
    examined = scheme.examine(question)
    try:
        oracle.verify(
            question.evidence["quote"], json.loads(collateral), intel.root_der(), intel.now
        )
        genuine = True
    except oracle.Rejected:
        genuine = False
    assert genuine is examined.authentic
    return examined


def refused(intel: Intel, code: str, **members: str) -> Examined:
    examined = examine(intel, **members)
    assert examined.authentic is False
    assert code in {reason.code for reason in examined.reasons}, examined.reasons
    return examined
