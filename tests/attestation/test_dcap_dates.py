"""Intel DCAP: when statements and certificates begin, and when the first of them ends."""

from __future__ import annotations

import pytest
from simulators.intel import Intel
from simulators.intel_parts import DAY, stamp
from simulators.intel_verdicts import NO_OPINION, examine, refused

from wire.limits import CLOCK_SKEW_S


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity", "lists"])
@pytest.mark.parametrize("ahead", [1, CLOCK_SKEW_S, CLOCK_SKEW_S + 1])
def test_statement_may_be_ahead_by_what_two_honest_clocks_differ(
    statement: str, ahead: int, attributes: bytes | None
) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    if statement == "lists":
        intel.crl_window = (ahead, 30 * DAY)
    else:
        getattr(intel, statement)["issueDate"] = stamp(intel.now + ahead)
    if ahead <= CLOCK_SKEW_S:
        assert examine(intel).authentic is True
    else:
        refused(intel, f"{'crl' if statement == 'lists' else 'collateral'}_not_yet_valid")


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
@pytest.mark.parametrize("which", ["root", "platform_ca", "pck", "tcb_signer"])
def test_certificate_of_the_next_minute_is_refused_beside_a_statement_of_it(
    which: str, attributes: bytes | None
) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    intel.tcb_info["issueDate"] = stamp(intel.now + 60)
    getattr(intel, which).start = 60
    refused(intel, "certificate_not_valid_at_time")


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
@pytest.mark.parametrize(
    "which", ["root", "platform_ca", "pck", "tcb_signer", "tcb_info", "qe_identity", "lists"]
)
def test_verdict_holds_until_the_first_of_its_grounds_ends(
    which: str, attributes: bytes | None
) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    if which == "lists":
        intel.crl_window = (-DAY, 5 * DAY)
    elif which in {"tcb_info", "qe_identity"}:
        getattr(intel, which)["nextUpdate"] = stamp(intel.now + 5 * DAY)
    else:
        getattr(intel, which).end = 5 * DAY
    examined = examine(intel)
    assert examined.authentic is True
    assert examined.not_after == intel.now + 5 * DAY


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
@pytest.mark.parametrize(
    ("which", "last", "code"),
    [
        ("lists", 1, "crl_expired"),
        ("tcb_info", 0, "collateral_expired"),
        ("qe_identity", 0, "collateral_expired"),
    ],
)
def test_lists_end_in_the_second_of_their_next_update_and_statements_one_later(
    which: str, last: int, code: str, attributes: bytes | None
) -> None:
    """And we say so before dcap-qvl, whose refusal names no cause."""
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    for left in (last, last - 1):
        if which == "lists":
            intel.crl_window = (-DAY, left)
        else:
            getattr(intel, which)["nextUpdate"] = stamp(intel.now + left)
        if left == last:
            assert examine(intel).authentic is True
        else:
            refused(intel, code)
