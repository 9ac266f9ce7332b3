"""`intel-tdx-quote`: an Intel TDX quote, v4 or v5, of a TD report 1.0 or 1.5.

Examination, roles and reason codes: `schemes.dcap`. State: `rules.tdx`. The worker's measurement
stands in RTMR3, extended once (`registers.rtmr_value`).

What a quote proves without Intel's collateral, other kinds that carry one examine by `run_alone`:
 chain              the PCK chain ends in a pinned root and holds   untrusted_root, chain_invalid,
                                                                    certificate_not_valid_at_time
 quoting enclave    Intel's for TDs, not in debug, of any version,  those of `verify.dcap_quote`
                    and it names the key
 td quote           by that key                                     signature_invalid

A simulated platform's quoting enclave must be of the same identity: which root is pinned makes no
difference, so that no pin can turn this off.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import INTEL
from attestation.examined import FOREVER
from attestation.formats.pck import parse_chain
from attestation.formats.pem import certificates
from attestation.registers import rtmr_value
from attestation.rules import tdx as rules
from attestation.scheme import Need, Scheme
from attestation.verify.dcap_quote import (
    check_td_quoting_enclave,
    verify_pck_chain,
    verify_quote_signature,
    verify_quoting_enclave,
)
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError

from . import dcap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Examined, Question
    from attestation.formats.dcap_quote import Quote
    from attestation.ledger import Ledger

KIND: Final = "intel-tdx-quote"
FAMILY: Final = dcap.Family(KIND, "tdx", "tdx", (4, 5))


def examine(question: Question) -> Examined:
    """Whether a TDX quote is genuine."""
    return dcap.examine(FAMILY, question)


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Intel's collateral for this quote's platform."""
    return dcap.needs(FAMILY, evidence)


def run_alone(ledger: Ledger, step: str, quote: Quote, question: Question, now: int) -> int:
    """The three steps above, each under the name `step` and its own.

    Args:
        ledger: the account.
        step: what their names begin with.
        quote: a TD's, parsed.
        question: its anchors count, and the collateral role `root` where it is pinned.
        now: Unix second at which the chain must hold.

    Returns:
        Unix second at which the first certificate ends; `FOREVER` where the chain is refused.
    """
    ends = [FOREVER]

    def chain() -> str:
        given = parse_chain(quote.cert_data, "PCK chain")
        root = question.collateral.get("root")
        others = () if root is None else certificates(root, "root")
        pinned = tuple(dict.fromkeys(question.anchors.among((*given.ders, *others))))
        ends.append(verify_pck_chain(given, pinned, now).not_after)
        return f"until {ends[-1]}"

    def quoting_enclave() -> str:
        pck = load_certificate(parse_chain(quote.cert_data, "PCK chain").ders[0])
        verify_quoting_enclave(quote, pck)
        return check_td_quoting_enclave(quote)

    ledger.run(f"{step} chain", chain, "chain_invalid")
    ledger.run(f"{step} quoting enclave", quoting_enclave, "chain_invalid")
    ledger.run(f"{step} td quote", lambda: verify_quote_signature(quote))
    return min(ends)


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
