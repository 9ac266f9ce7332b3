"""Steps that both Azure kinds share: from a verified CPU report to the virtual TPM's quote.

 azure 3 variable data    the report carries the variable data's hash    report_data_mismatch
 azure 4 quote signature  by the attestation key the data names, SHA-2   signature_invalid
 azure 5 registers        exactly those the quote selects, and they      pcr_selection,
                          give its digest                                pcr_digest_mismatch
 azure 6 nonce            the quote carries the expected nonce           nonce_mismatch,
                                                                         report_data_mismatch

Not checked: the attestation key's attributes, which the variable data does not name. That the key
is restricted is the paravisor's doing, which the CPU's report measures. Nor that the report is of
this boot: the key outlives a restart, and a quote names no report. What comes of that stands in
docs/spec/evidence-kinds.md §5.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.verify.hcl import check_variable_data
from attestation.verify.tpm import check_freshness, check_registers, verify_signature

if TYPE_CHECKING:
    from attestation.examined import Expected
    from attestation.formats.azure import AzureEvidence
    from attestation.ledger import Ledger


def run_quote_steps(
    ledger: Ledger, found: AzureEvidence, report_data: bytes, expected: Expected
) -> bool:
    """Steps 3 to 6; whether a nonce was demanded and found.

    Args:
        ledger: the account.
        found: as parsed.
        report_data: of the CPU's report.
        expected: what the relying party brings.
    """
    hcl, quote, signature = found.hcl, found.quote, found.signature
    ledger.run("azure 3 variable data", lambda: check_variable_data(report_data, hcl))
    ledger.run("azure 4 quote signature", lambda: verify_signature(quote, signature, hcl.ak))
    ledger.run("azure 5 registers", lambda: check_registers(quote, signature, found.pcrs))
    fresh = ledger.run("azure 6 nonce", lambda: check_freshness(quote, expected))
    return fresh and expected.nonce is not None


def key_identity(found: AzureEvidence) -> str:
    """The attestation key, as deny lists name it."""
    spki = found.hcl.ak.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key:{hashlib.sha256(spki).hexdigest()}"
