"""Intel DCAP: single checks, each by itself, so that none hides behind another of the same code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.intel import Intel
from simulators.intel_lies import TD_LIES
from simulators.intel_parsed import Parsed
from simulators.intel_parts import DAY, Certificate, key, pem, point
from simulators.intel_verdicts import NO_OPINION, examine, refused

from attestation.formats.intel_statements import QE_STATUSES, parse_qe_identity
from attestation.formats.pck import parse_chain
from attestation.schemes import tdx
from attestation.verify.dcap import ask, compare
from attestation.verify.dcap_quote import (
    check_named_key,
    check_standing,
    verify_pck_chain,
    verify_quoting_enclave,
)
from attestation.verify.intel_collateral import check_list_issuers
from attestation.verify.intel_tcb import converge
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable


def code(step: Callable[[], object]) -> str:
    with pytest.raises(AttestationError) as caught:
        step()
    (found,) = caught.value.reasons
    return found


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed.of(Intel())


@pytest.fixture(scope="module")
def td15() -> Parsed:
    return Parsed.of(Intel(version=5))


# ---- two verifiers


def test_quote_of_which_two_verifiers_read_different_levels_is_refused() -> None:
    """dcap-qvl sorts the levels, this library takes them as they are listed."""
    intel = Intel()
    intel.tcb_info["tcbLevels"].reverse()
    examined = tdx.examine(intel.question())
    assert [(reason.step, reason.code) for reason in examined.reasons] == [
        ("tdx 12 tcb", "verifier_disagrees")
    ]
    assert examined.facts.tcb is None


def test_pinned_certificate_that_another_ca_issued_is_no_root() -> None:
    """Asked with such a root, dcap-qvl ends the whole process."""
    intel = Intel()
    intel.root.issued_as = "Somebody"
    examined = tdx.examine(intel.question())
    assert "untrusted_root" in {reason.code for reason in examined.reasons}


# ---- quoting enclave


@pytest.mark.parametrize("at", [32, 63])
def test_report_data_of_a_quoting_enclave_ends_in_zeros(at: int) -> None:
    intel = Intel()
    named = hashlib.sha256(point(intel.attestation_key) + intel.qe_auth).digest()
    tail = bytearray(32)
    tail[at - 32] = 1
    intel.qe_report["report_data"] = named + bytes(tail)
    told = Parsed.of(intel)
    pck = told.pck.certificate
    assert code(lambda: verify_quoting_enclave(told.quote, pck)) == "attestation_key_not_bound"
    assert code(lambda: check_named_key(told.quote)) == "attestation_key_not_bound"


@pytest.mark.parametrize("attribute", range(128))
def test_attribute_of_a_quoting_enclave_counts_where_the_mask_has_it(
    parsed: Parsed, attribute: int
) -> None:
    bit = bytearray(16)
    bit[attribute // 8] = 1 << attribute % 8
    honest = parsed.quote.qe_report.attributes
    flipped = bytes(one ^ other for one, other in zip(honest, bit, strict=True))
    told = parsed.with_enclave(attributes=flipped)
    counts = parsed.identity.attributes_mask[attribute // 8] & bit[attribute // 8]
    if counts:
        assert code(told.evaluate) == "qe_identity_mismatch"
    else:
        assert told.evaluate() == "UpToDate"


@pytest.mark.parametrize("field", ["attributes", "miscselect"])
def test_bit_that_an_identity_sets_beside_its_mask_is_not_asked_for(
    parsed: Parsed, field: str
) -> None:
    value: bytes = getattr(parsed.identity, field)
    mask: bytes = getattr(parsed.identity, f"{field}_mask")
    change = {field: value[:-1] + b"\1", f"{field}_mask": mask[:-1] + b"\xfe"}
    if field == "attributes":
        change[f"{field}_mask"] = mask[:-1] + b"\0"
    assert parsed.with_identity(**change).evaluate() == "UpToDate"


# ---- TDX module


@pytest.mark.parametrize("lie", [lie for lie in TD_LIES if "module" in lie])
def test_lie_about_a_module_is_found_by_this_library(lie: str) -> None:
    intel = Intel()
    TD_LIES[lie](intel)
    levels = {"a module below its levels": "tcb_level_not_found"}
    assert code(Parsed.of(intel).evaluate) == levels.get(lie, "tdx_module_mismatch")


def test_first_module_is_the_one_the_statement_itself_describes(parsed: Parsed) -> None:
    """TEE_TCB_SVN[1] of 0 names no identity of the list."""
    first = parsed.with_td(tee_tcb_svn=bytes([11, 0, 4]) + bytes(13))
    assert first.info.module is not None
    other = b"\1" * 48
    described = replace(first.info, module=replace(first.info.module, mrsigner=other))
    assert code(replace(first, info=described).evaluate) == "tdx_module_mismatch"
    assert replace(first, info=described).with_td(mr_signer_seam=other).evaluate() == "UpToDate"
    listed = replace(first.info, modules=())
    assert replace(first, info=listed).evaluate() == "UpToDate"


def test_module_of_the_list_is_not_the_one_the_statement_itself_describes(parsed: Parsed) -> None:
    assert parsed.info.module is not None
    described = replace(parsed.info, module=replace(parsed.info.module, mrsigner=b"\1" * 48))
    assert replace(parsed, info=described).evaluate() == "UpToDate"


@pytest.mark.parametrize("bit", range(64))
def test_every_bit_of_a_modules_attributes_counts(parsed: Parsed, bit: int) -> None:
    told = parsed.with_td(seam_attributes=(1 << bit).to_bytes(8, "little"))
    assert code(told.evaluate) == "tdx_module_mismatch"


def test_module_that_runs_now_is_held_to_its_identity_too(td15: Parsed) -> None:
    now = bytes([11, 7, 4]) + bytes(13)
    assert code(td15.with_td(tee_tcb_svn2=now).evaluate) == "tdx_module_mismatch"


# ---- statuses

OLD_LAUNCH = {"tee_tcb_svn": bytes([3, 1, 3]) + bytes(13)}
OLD_NOW = {"tee_tcb_svn2": bytes([3, 1, 3]) + bytes(13)}


@pytest.mark.parametrize("enclave", QE_STATUSES)
@pytest.mark.parametrize("launched", ["UpToDate", "ConfigurationNeeded", "OutOfDate"])
def test_td_that_runs_on_a_revoked_level_now_is_refused_whatever_it_launched_on(
    td15: Parsed, launched: str, enclave: str
) -> None:
    told = td15.with_statuses(newest=launched, older="Revoked", enclave=enclave).with_td(**OLD_NOW)
    assert code(told.evaluate) == "tcb_revoked"


@pytest.mark.parametrize("now", ["UpToDate", "ConfigurationNeeded"])
def test_td_that_launched_on_a_revoked_level_is_refused_whatever_runs_now(
    td15: Parsed, now: str
) -> None:
    told = td15.with_statuses(newest=now, older="Revoked").with_td(**OLD_LAUNCH)
    assert code(told.evaluate) == "tcb_revoked"


@pytest.mark.parametrize("status", ["ConfigurationNeeded", "OutOfDateConfigurationNeeded"])
@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("UpToDate", "OutOfDate"),
        ("SWHardeningNeeded", "OutOfDate"),
        ("ConfigurationNeeded", "OutOfDateConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"),
        ("OutOfDate", "OutOfDate"),
        ("OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded"),
    ],
)
@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
def test_quoting_enclave_in_need_of_configuration_is_out_of_date(
    status: str, platform: str, expected: str, attributes: bytes | None
) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    intel.tcb_info["tcbLevels"][0]["tcbStatus"] = platform
    intel.qe_identity["tcbLevels"][0]["tcbStatus"] = status
    examined = examine(intel)
    assert examined.authentic is True
    assert examined.claims["tcb_status"] == expected
    assert examined.claims["qe_tcb_status"] == status


@pytest.mark.parametrize("status", ["SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded", ""])
def test_status_that_no_quoting_enclave_has_is_malformed(status: str) -> None:
    intel = Intel()
    intel.qe_identity["tcbLevels"][1]["tcbStatus"] = status
    with pytest.raises(MalformedError):
        parse_qe_identity(json.dumps(intel.qe_identity).encode())


@pytest.mark.parametrize("enclave", [status for status in QE_STATUSES if status != "Revoked"])
@pytest.mark.parametrize("now", ["UpToDate", "ConfigurationNeeded", "OutOfDate"])
def test_no_relaunch_mends_a_quoting_enclave_out_of_date(enclave: str, now: str) -> None:
    intel = Intel(version=5)
    intel.body |= OLD_LAUNCH
    intel.tcb_info["tcbLevels"][0]["tcbStatus"] = now
    intel.qe_identity["tcbLevels"][0]["tcbStatus"] = enclave
    examined = examine(intel)
    assert examined.authentic is True
    advised = {
        "UpToDate": "TDRelaunchAdvised",
        "ConfigurationNeeded": "TDRelaunchAdvisedConfigurationNeeded",
    }
    mended = advised.get(now, "OutOfDate") if enclave == "UpToDate" else "OutOfDate"
    assert examined.claims["tcb_status"] == mended


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("launched", ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded"])
@pytest.mark.parametrize("now", ["OutOfDate", "OutOfDateConfigurationNeeded", "SWHardeningNeeded"])
def test_what_runs_now_is_as_bad_as_what_was_launched(
    launched: str, now: str, extended: bool
) -> None:
    intel = Intel(version=5)
    if extended:
        intel.extended()
    intel.body |= OLD_NOW
    intel.tcb_info["tcbLevels"][0]["tcbStatus"] = launched
    intel.tcb_info["tcbLevels"][1]["tcbStatus"] = now
    intel.tcb_info["tdxModuleIdentities"][0]["tcbLevels"][1]["tcbStatus"] = "UpToDate"
    examined = examine(intel)
    assert examined.authentic is True, examined.reasons
    assert examined.claims["tcb_status"] == converge(launched, now)
    assert examined.claims["advisory_ids"] == ["INTEL-SA-00960"]


def test_module_that_is_out_of_date_now_adds_its_status_and_its_advisories() -> None:
    intel = Intel(version=5)
    intel.body["tee_tcb_svn2"] = bytes([3, 1, 4]) + bytes(13)  # the platform's own part is new
    module = intel.tcb_info["tdxModuleIdentities"][0]["tcbLevels"][1]
    module["advisoryIDs"] = ["INTEL-SA-01036"]
    examined = examine(intel)
    assert examined.authentic is True, examined.reasons
    assert examined.claims["tcb_status"] == "OutOfDate"
    assert examined.claims["advisory_ids"] == ["INTEL-SA-01036"]
    assert examined.claims["tdx_module_status"] == "UpToDate"  # the one that launched it
    assert examined.facts.tcb.outdated_since == 1_731_456_000


def test_module_that_is_revoked_now_is_refused() -> None:
    intel = Intel(version=5)
    intel.body["tee_tcb_svn2"] = bytes([3, 1, 4]) + bytes(13)
    intel.tcb_info["tdxModuleIdentities"][0]["tcbLevels"][1]["tcbStatus"] = "Revoked"
    refused(intel, "tcb_revoked")


def test_both_out_of_date_is_as_bad_as_the_worse() -> None:
    intel = Intel(version=5)
    intel.body |= OLD_NOW
    newest, older = intel.tcb_info["tcbLevels"]
    newest["tcbStatus"], older["tcbStatus"] = "OutOfDate", "OutOfDateConfigurationNeeded"
    examined = examine(intel)
    assert examined.authentic is True, examined.reasons
    assert examined.claims["tcb_status"] == "OutOfDateConfigurationNeeded"


def test_readings_agree_only_on_the_same_status_of_an_enclave_in_need_of_configuration() -> None:
    intel = Intel()
    intel.qe_identity["tcbLevels"][0]["tcbStatus"] = "ConfigurationNeeded"
    told = Parsed.of(intel)
    opinion = ask(intel.quote(), told.collateral, intel.root_der(), intel.now)
    assert compare(opinion, told.pck, told.verdict()) == "agrees: OutOfDate"
    for status in ("OutOfDate", "ConfigurationNeeded"):
        other = replace(opinion, status=status)
        assert code(lambda other=other: compare(other, told.pck, told.verdict())) == (
            "verifier_disagrees"
        )


# ---- chains and lists


def test_list_issuer_that_may_not_sign_lists_is_refused() -> None:
    intel = Intel()
    may = load_certificate(intel.platform_ca.der(intel.now))
    check_list_issuers((may,))
    intel.platform_ca.crl_sign = False
    may_not = load_certificate(intel.platform_ca.der(intel.now))
    assert code(lambda: check_list_issuers((may, may_not))) == "crl_invalid"


def _chain_of(intel: Intel) -> tuple[Any, ...]:
    chain = parse_chain(intel.pck_chain(), "chain")
    return chain, load_certificate(chain.ders[0]), (intel.root_der(),), intel.now


def test_pck_chain_by_names_is_the_one_through_its_ca() -> None:
    honest = _chain_of(Intel())
    assert check_standing(*honest)[0] == Intel().now + 3650 * DAY
    around, same, other = Intel(), Intel(), Intel()
    around.pck.issuer = around.root
    same.platform_ca.cn = same.root.cn  # then names do not tell who issued the PCK
    other.platform_ca.issued_as = "Somebody"
    for intel in (around, same, other):
        assert code(lambda intel=intel: check_standing(*_chain_of(intel))) == "chain_invalid"


def test_pck_chain_that_is_verified_whole_must_be_pem_and_leaf_first() -> None:
    chain, _, roots, now = _chain_of(Intel())
    assert verify_pck_chain(chain, roots, now).root == roots[0]
    for other in (replace(chain, pem=False), replace(chain, turned=True)):
        assert code(lambda other=other: verify_pck_chain(other, roots, now)) == "chain_invalid"


def test_list_of_the_pcks_ca_issued_again_counts_and_another_cas_does_not() -> None:
    intel = Intel()
    question, members = intel.question(), intel.members()

    def codes(ca: Certificate) -> set[str]:
        issued = pem(ca.der(intel.now), intel.root_der()).decode()
        told = json.dumps({**members, "pck_crl_issuer_chain": issued}).encode()
        examined = tdx.examine(replace(question, collateral={"collateral": told}))
        return {reason.code for reason in examined.reasons}

    assert codes(replace(intel.platform_ca, serial=77)) == set()
    assert codes(replace(intel.platform_ca, cn="Intel SGX PCK Processor CA")) == {"chain_invalid"}
    assert codes(replace(intel.platform_ca, signer=key())) == {"chain_invalid"}
    assert codes(intel.tcb_signer) == {"chain_invalid"}


def test_list_of_a_pck_itself_is_no_list_of_its_ca() -> None:
    intel = Intel()
    question, members = intel.question(), intel.members()
    members["pck_crl_issuer_chain"] = pem(intel._once("pck", intel.pck)).decode()
    told = {"collateral": json.dumps(members).encode()}
    examined = tdx.examine(replace(question, collateral=told))
    assert ("tdx 5 match", "chain_invalid") in {
        (reason.step, reason.code) for reason in examined.reasons
    }


# ---- what the ledger says

STEPS = (
    "1 trailing bytes", "1 format", "2 root", "3 collateral", "4 dates", "5 match", "6 dcap-qvl",
    "7 chain", "8 quoting enclave", "9 signature", "10 issuers", "11 revocation", "12 tcb",
)  # fmt: skip


def _steps(intel: Intel, **roles: bytes) -> dict[str, bool | None]:
    examined = tdx.examine(intel.question(**roles))
    return {check.step.removeprefix("tdx "): check.ok for check in examined.checks}


@pytest.mark.parametrize("attributes", [None, NO_OPINION], ids=["", "no opinion"])
def test_ledger_has_every_step_in_its_order(attributes: bytes | None) -> None:
    intel = Intel()
    if attributes is not None:
        intel.body["td_attributes"] = attributes
    assert tuple(_steps(intel)) == STEPS
    assert set(_steps(intel).values()) == {True}


def test_ledger_says_which_steps_a_refusal_left_out() -> None:
    intel = Intel()
    intel.tcb_info["fmspc"] = "00806f050000"  # nothing to go by for this platform's level
    steps = _steps(intel)
    assert tuple(steps) == STEPS
    assert {step for step, ok in steps.items() if ok is None} == {"6 dcap-qvl", "12 tcb"}
    alone = _steps(Intel(), collateral=b"{}")
    left_out = {step for step, ok in alone.items() if ok is None}
    assert left_out == {"6 dcap-qvl", "10-11", "12 tcb"}
    broken = Intel()
    broken.edits["quote"] = lambda raw: raw[:100]
    assert _steps(broken) == {"1 format": False, "2-13": None}
