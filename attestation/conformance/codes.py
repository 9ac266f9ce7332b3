"""Reason codes of an index that a reported code is a special case of.

An index has few codes and this library many. Each row names the codes that say the same as the
first, of fewer things: where one of them is reported and the first is not, the first is reported
beside it, and says for which it stands. None stands for "refused for whatever reason". A code that
has several causes stands in no row: it is a case where the step that refused says so (`case_of`).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.result import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

CASES: Final[Mapping[str, AbstractSet[str]]] = MappingProxyType(
    {
        # outside the time for which it was made, whichever statement and end of it
        "collateral_expired": {
            "collateral_not_yet_valid", "crl_expired", "crl_not_yet_valid",
            "manifest_expired", "manifest_not_yet_valid",
        },
        # a part of the chain is not the one that belongs there
        "chain_invalid": {"untrusted_root", "tcb_mismatch", "fwid_mismatch"},
        # what is there is not what was signed
        "signature_invalid": {
            "attestation_key_not_bound", "pcr_digest_mismatch", "submods_digest_mismatch",
            "copy_mismatch", "signature_missing", "td_report_mismatch", "ak_mismatch",
            "alg_not_accepted",
        },
        # not made for the relying party's value
        "nonce_mismatch": {"report_data_mismatch", "user_data_mismatch"},
        "gpu_not_bound_to_cpu": set(),  # what the CPU names is none: its step says so
        "qe_identity_wrong_type": {"qe_identity_mismatch"},
        "unknown_signing_key": {
            "ak_not_accepted", "duplicate_kid", "key_invalid", "key_set_malformed"
        },
        "token_expired": {"token_not_yet_valid", "expiry_missing"},
        "tcb_out_of_date": {
            "tcb_out_of_date_configuration_needed", "tcb_td_relaunch_advised",
            "tcb_td_relaunch_advised_configuration_needed",
        },
    }
)  # fmt: skip


def generalised(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """The more general codes of what was reported, one a code, each at the step of its case."""
    found = {reason.code for reason in reasons}
    general = []
    for code in CASES:
        case = next((reason for reason in reasons if _is_case(reason, code)), None)
        if case is not None and code not in found:
            general.append(Reason(code, f"{case.code} is a case of it", case.step))
    return tuple(general)


def _is_case(reason: Reason, general: str) -> bool:
    """Whether a step found it: a root of a sample that no step read is in no chain."""
    return bool(reason.step) and (reason.code in CASES[general] or reason.case_of == general)
