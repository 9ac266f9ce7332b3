"""One cloud's virtual TPMs, and the verdict of `tpm2-quote` on what they show."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from attestation.schemes.tpm_quote import SCHEME

from .vtpm import NONCE, Vtpm, VtpmMaker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.examined import Examined

MAKER = VtpmMaker()
BANKS = ("sha1", "sha256", "sha384")


def measured(**facts: Any) -> Vtpm:
    """A virtual TPM whose register 11 holds a worker's measurement."""
    tpm = Vtpm(MAKER, **facts)
    tpm.measure(11, hashlib.sha256(b"worker").digest())
    return tpm


def examine(evidence: Mapping[str, bytes], **changes: Any) -> Examined:
    """The verdict under the cloud's own root; `changes` are of the question."""
    return SCHEME.examine(MAKER.question(evidence, **changes))


def of_banks(tpm: Vtpm, banks: Sequence[str] = BANKS) -> dict[str, bytes]:
    """Evidence with a quote of each bank instead of one quote."""
    evidence = tpm.evidence(quote_msg=None, quote_sig=None, pcrs=tpm.pcrs(banks))
    for bank in banks:
        evidence[f"quote_{bank}"], evidence[f"sig_{bank}"] = tpm.quote(NONCE, bank)
    return evidence
