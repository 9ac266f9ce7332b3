"""The verdict of `dcap-qvl`, the quote verifier this project depends on: an adapter.

It is given bytes that our own parsers accepted, certificates that we spelled, the pinned root, and
the time. Its network helpers are never called. Its words are mapped to stable codes, and what it
read is compared with what we read: two readers who see different quotes are an attack.

It always refuses some states (debug, SEPT_VE_DISABLE off, a migratable TD, a service TD). Those are
for a policy to judge, so such a refusal is `Opinion.state`, not an error, and `examine` then rests
on this library's own verification instead.

A panic of its published builds ends the process. The one known comes of a root that another CA
issued, so the CALLER must give it a root that is its own issuer.

Reason codes: those in `_WORDS` and `_CAUSES`, `verifier_disagrees`, `quote_refused` for words not
known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import dcap_qvl  # type: ignore[import-untyped]  # its stubs are not marked as such

from wire.errors import AttestationError

if TYPE_CHECKING:
    from attestation.formats.intel_collateral import Collateral
    from attestation.formats.pck import Pck

    from .intel_tcb import TcbVerdict

_PREFIX: Final = "Verification failed: "
# pyo3's, a BaseException that no name exports; for builds whose panics can be caught.
_PANIC: Final = "PanicException"

# What it says of a state that a policy judges.
_STATES: Final = (
    "Debug mode is enabled",
    "SEPT_VE_DISABLE is not enabled",
    "TD profiling is enabled",
    "TD migration is enabled",
    "SERVTD_EXT is enabled",
    "Reserved bits in TD attributes are set",
    "Invalid MR service TD",
)
# What it says of the rest, by the beginning of the sentence.
_WORDS: Final = (
    ("TCBInfo expired", "collateral_expired"),
    ("QE Identity expired", "collateral_expired"),
    ("TCBInfo issue date is in the future", "collateral_not_yet_valid"),
    ("QE Identity issue date is in the future", "collateral_not_yet_valid"),
    ("Fmspc mismatch", "collateral_fmspc_mismatch"),
    ("TDX quote with non-TDX TCB info", "collateral_fmspc_mismatch"),
    ("SGX quote with non-SGX TCB info", "collateral_fmspc_mismatch"),
    ("Unsupported QE Identity", "qe_identity_wrong_type"),
    ("No matching TCB level found", "tcb_level_not_found"),
    ("No matching QE TCB level found", "tcb_level_not_found"),
    ("TCB status is invalid: Revoked", "tcb_revoked"),
    ("TDX module", "tdx_module_mismatch"),
    ("No TDX module identity", "tdx_module_mismatch"),
    ("Failed to evaluate the current TDX TCB", "tcb_level_not_found"),
    ("Unknown QE vendor ID", "qe_vendor_unknown"),
    ("QE report hash mismatch", "attestation_key_not_bound"),
    ("QE ISVSVN", "tcb_level_not_found"),
    ("QE MRSIGNER", "qe_identity_mismatch"),
    ("QE ISVPRODID", "qe_identity_mismatch"),
    ("QE MISCSELECT", "qe_identity_mismatch"),
    ("QE ATTRIBUTES", "qe_identity_mismatch"),
    ("QE report validation failed", "qe_identity_mismatch"),
    ("Signature is invalid", "signature_invalid"),
    ("ISV enclave report signature is invalid", "signature_invalid"),
    ("CertRevoked", "revoked"),
    ("CrlExpired", "crl_expired"),
    ("Failed to parse PCK CRL", "crl_invalid"),
    ("Failed to parse root CA CRL", "crl_invalid"),
    ("Failed to verify certificate chain", "chain_invalid"),
    ("Invalid QE auth data length", "evidence_malformed"),
    ("Failed to decode quote", "evidence_malformed"),
)
# Why a chain does not hold, by the beginning of the last line: a chain of its own links that ended,
# or was taken back, is not a chain of somebody else's.
_CHAIN: Final = "chain_invalid"
_CAUSES: Final = (
    ("CertRevoked", "revoked"),
    ("CertExpired", "certificate_not_valid_at_time"),
    ("CertNotValidYet", "certificate_not_valid_at_time"),
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What dcap-qvl says of a quote it did not refuse as not genuine.

    Attributes:
        status, advisories, ppid: what it read; empty where `state` says why it read nothing.
        state: its words about a state that it never accepts, or "".
    """

    status: str = ""
    advisories: frozenset[str] = frozenset()
    ppid: bytes = b""
    state: str = ""


def ask(raw: bytes, collateral: Collateral, root: bytes, now: int) -> Opinion:
    """Verify a quote.

    Args:
        raw: the quote.
        collateral: as parsed.
        root: DER of the pinned root.
        now: Unix seconds.

    Raises:
        AttestationError: it is refused, with the code of dcap-qvl's words.
    """
    try:
        report = dcap_qvl.verify_with_root_ca(raw, _collateral(collateral), root, now)
        return Opinion(report.status, frozenset(report.advisory_ids), bytes(report.ppid))
    except (ValueError, OverflowError) as refusal:
        words = str(refusal).removeprefix(_PREFIX)
    except BaseException as crash:
        if type(crash).__name__ != _PANIC:
            raise
        words = "crash"
    if words in _STATES:
        return Opinion(state=words)
    code = next((code for start, code in _WORDS if words.startswith(start)), "quote_refused")
    # Its words may hold bytes of the input, so they stay here.
    cause = words.rpartition("\n")[2].strip()
    narrow = next((narrow for start, narrow in _CAUSES if cause.startswith(start)), None)
    if code == _CHAIN and narrow is not None:
        raise _refused(narrow, "the quote is refused", case_of=_CHAIN)
    raise _refused(code, "the quote is refused")


def compare(opinion: Opinion, pck: Pck, verdict: TcbVerdict) -> str:
    """Both readings agree on the platform and, as far as dcap-qvl looks, how up to date it is.

    Raises:
        AttestationError: `verifier_disagrees`.
    """
    if opinion.state:
        return "genuine, in a state that it leaves to a policy"
    ours = (verdict.lenient, verdict.lenient_advisories, pck.ppid)
    if (opinion.status, opinion.advisories, opinion.ppid) != ours:
        raise _refused("verifier_disagrees", "two verifiers read different facts")
    return f"agrees: {verdict.status}"


def _collateral(collateral: Collateral) -> dcap_qvl.QuoteCollateralV3:
    tcb_chain = collateral.tcb_chain.to_pem()
    same = collateral.qe_chain == collateral.tcb_chain
    return dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=collateral.pck_chain.to_pem(),
        root_ca_crl=collateral.root_crl,
        pck_crl=collateral.pck_crl,
        tcb_info_issuer_chain=tcb_chain,
        tcb_info=collateral.tcb_info.decode("utf-8"),
        tcb_info_signature=collateral.tcb_info_signature,
        qe_identity_issuer_chain=tcb_chain if same else collateral.qe_chain.to_pem(),
        qe_identity=collateral.qe_identity.decode("utf-8"),
        qe_identity_signature=collateral.qe_identity_signature,
    )


def _refused(code: str, detail: str, case_of: str = "") -> AttestationError:
    return AttestationError(f"dcap-qvl: {detail}", reasons=(code,), case_of=case_of)
