"""Reason codes of an index that a reported code is a special case of.

An index has few codes and this library many. Each row names the codes that say the same as the
first, of fewer things: where one of them is reported and the first is not, the first is reported
beside it, and says for which it stands. None stands for "refused for whatever reason". A code that
has several causes is a case only where its step or detail names the one that is meant.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.result import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _anywhere(*codes: str) -> Mapping[str, str]:
    return dict.fromkeys(codes, "")


# Code to where it is a case: a pattern of its step and detail; "" for wherever it is reported.
CASES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        # outside the time for which it was made, whichever statement and end of it
        "collateral_expired": _anywhere(
            "collateral_not_yet_valid", "crl_expired", "crl_not_yet_valid"
        ),
        # a part of the chain is absent, or not the one that belongs there
        "chain_invalid": {
            **_anywhere("tcb_mismatch", "fwid_mismatch"),
            "untrusted_root": r"^[^:]",  # by a step: a root that no step read is in no chain
            "product_mismatch": r"expected|another product",
            "chip_id_mismatch": r"another chip",
            "collateral_missing": r" (?:root|certificate|chain): |found no root",
            "crl_invalid": r"issuer|not signed",  # a list of somebody else than the chain's CAs
        },
        # what is there is not what was signed
        "signature_invalid": _anywhere(
            "attestation_key_not_bound", "pcr_digest_mismatch", "submods_digest_mismatch",
            "copy_mismatch", "signature_missing", "td_report_mismatch", "ak_mismatch",
            "alg_not_accepted",
        ),
        # not made for the relying party's value
        "nonce_mismatch": _anywhere("report_data_mismatch", "user_data_mismatch"),
        "qe_identity_wrong_type": _anywhere("qe_identity_mismatch"),
        "unknown_signing_key": {
            **_anywhere("ak_not_accepted", "duplicate_kid", "key_invalid", "key_set_malformed"),
            "collateral_missing": r"trusted key",
        },
        "token_expired": _anywhere("token_not_yet_valid", "expiry_missing"),
        "tcb_out_of_date": _anywhere(
            "tcb_out_of_date_configuration_needed", "tcb_td_relaunch_advised",
            "tcb_td_relaunch_advised_configuration_needed",
        ),
    }
)  # fmt: skip


def generalised(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """The more general codes of what was reported, one a code, each at the step of its case."""
    found = {reason.code for reason in reasons}
    general = []
    for code, cases in CASES.items():
        case = next((reason for reason in reasons if _is_case(reason, cases)), None)
        if case is not None and code not in found:
            general.append(Reason(code, f"{case.code} is a case of it", case.step))
    return tuple(general)


def _is_case(reason: Reason, cases: Mapping[str, str]) -> bool:
    place = cases.get(reason.code)
    return place is not None and re.search(place, f"{reason.step}: {reason.detail}") is not None
