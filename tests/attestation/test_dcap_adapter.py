"""The adapter to dcap-qvl: its words become stable codes, and two readings must agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulators.intel import Intel
from simulators.intel_parts import DAY, key

from attestation.formats.intel_collateral import parse_collateral
from attestation.schemes import tdx
from attestation.verify.dcap import Opinion, ask, compare
from wire.errors import AttestationError


def opinion(intel: Intel) -> Opinion:
    collateral = parse_collateral({"collateral": intel.collateral()})
    return ask(intel.quote(), collateral, intel.root_der(), intel.now)


def code(intel: Intel) -> str:
    with pytest.raises(AttestationError) as caught:
        opinion(intel)
    (found,) = caught.value.reasons
    return found


def changed(attribute: str, value: object) -> Intel:
    intel = Intel("tdx", 5)
    owner, _, name = attribute.rpartition(".")
    target = getattr(intel, owner) if owner else intel
    if isinstance(target, dict):
        target[name] = value
    else:
        setattr(target, name, value)
    return intel


def test_accepted_quote_gives_what_was_read() -> None:
    intel = Intel()
    assert opinion(intel) == Opinion("UpToDate", frozenset(), intel.ppid)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("tcb_info.nextUpdate", "2020-01-01T00:00:00Z", "collateral_expired"),
        ("qe_identity.nextUpdate", "2020-01-01T00:00:00Z", "collateral_expired"),
        ("tcb_info.issueDate", "2030-01-01T00:00:00Z", "collateral_not_yet_valid"),
        ("qe_identity.issueDate", "2030-01-01T00:00:00Z", "collateral_not_yet_valid"),
        ("tcb_info.fmspc", "00806f050000", "collateral_fmspc_mismatch"),
        ("tcb_info.id", "SGX", "collateral_fmspc_mismatch"),
        ("qe_identity.id", "QE", "qe_identity_wrong_type"),
        ("tcb_info.tcbLevels", [], "tcb_level_not_found"),
        ("header.vendor", bytes(16), "qe_vendor_unknown"),
        ("vouched_key", key(), "attestation_key_not_bound"),
        ("qe_report.mrsigner", bytes(32), "qe_identity_mismatch"),
        ("qe_report.isvprodid", bytes(2), "qe_identity_mismatch"),
        ("qe_report.isvsvn", bytes(2), "tcb_level_not_found"),
        ("revoked_root", [11], "revoked"),
        ("crl_window", (-2 * DAY, -DAY), "crl_expired"),
        ("revoked_pck", [14], "revoked"),
        ("pck.end", -DAY, "certificate_not_valid_at_time"),
        ("pck.start", DAY, "certificate_not_valid_at_time"),
        ("pck.signer", key(), "chain_invalid"),
        ("body.mr_signer_seam", b"\x01" * 48, "tdx_module_mismatch"),
        ("body.tee_tcb_svn2", bytes(16), "tcb_level_not_found"),
        ("qe_auth", b"", "evidence_malformed"),
    ],
)
def test_refusal_has_a_stable_code(attribute: str, value: object, expected: str) -> None:
    assert code(changed(attribute, value)) == expected


@pytest.mark.parametrize("bit", [0, 1, 4, 17, 29])
def test_state_for_a_policy_is_no_refusal(bit: int) -> None:
    intel = Intel()
    intel.body["td_attributes"] = (1 << 28 | 1 << bit).to_bytes(8, "little")
    found = opinion(intel)
    assert found.state
    assert found.status == ""


def test_words_that_are_not_known_refuse_without_repeating_them() -> None:
    intel = Intel()
    collateral = parse_collateral({"collateral": intel.collateral()})
    with pytest.raises(AttestationError) as caught:
        ask(intel.quote(), replace(collateral, tcb_info=b"{}"), intel.root_der(), intel.now)
    assert caught.value.reasons == ("quote_refused",)
    assert caught.value.message == "dcap-qvl: the quote is refused"
    with pytest.raises(AttestationError):
        ask(b"", collateral, b"", -1)


@pytest.mark.parametrize(
    "other",
    [
        {"status": "OutOfDate"},
        {"advisories": frozenset({"INTEL-SA-1"})},
        {"ppid": bytes(16)},
    ],
    ids=["status", "advisories", "ppid"],
)
def test_two_readings_that_differ_are_refused(other: dict[str, object]) -> None:
    intel = Intel()
    facts = tdx.examine(intel.question()).facts
    agreed = opinion(intel)
    assert compare(agreed, facts.pck, facts.tcb)
    with pytest.raises(AttestationError) as caught:
        compare(replace(agreed, **other), facts.pck, facts.tcb)  # type: ignore[arg-type]
    assert caught.value.reasons == ("verifier_disagrees",)
