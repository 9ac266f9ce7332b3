"""Intel DCAP: signatures, chains, time, collateral and revocation, one changed fact a test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from oracles import dcap as oracle
from simulators.intel import PCK, PROCESSOR, Intel
from simulators.intel_parts import DAY, Certificate, key, pem
from simulators.intel_verdicts import examine, refused

from attestation.anchors import INTEL, Anchors
from attestation.schemes import tdx

if TYPE_CHECKING:
    from collections.abc import Callable


P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(("tee", "version"), [("tdx", 4), ("tdx", 5), ("sgx", 3)])
def test_honest_platform_is_genuine_and_up_to_date(tee: str, version: int) -> None:
    intel = Intel(tee, version)
    examined = examine(intel)
    assert examined.authentic is True
    assert examined.claims["tcb_status"] == "UpToDate"
    assert examined.claims["quote_version"] == version
    assert examined.not_after == intel.now + 29 * DAY
    assert f"ppid:{intel.ppid.hex()}" in examined.identities
    assert all(check.ok for check in examined.checks)


def test_platform_under_the_processor_ca_is_genuine() -> None:
    examined = examine(Intel("sgx").processor())
    assert examined.authentic is True
    assert examined.claims["pck_issuer_cn"] == PROCESSOR
    assert examined.claims["pck_smt_enabled"] is None


def test_collateral_in_parts_gives_the_same_verdict() -> None:
    intel = Intel()
    question = replace(intel.question(), collateral=intel.roles())
    assert tdx.examine(question).authentic is True


# ---- signature and chain


FLIPS = {"header": 30, "body": 100, "signature": 640, "attestation_key": 700, "qe_report": 775}


@pytest.mark.parametrize("part", FLIPS)
def test_flipped_bit_in_a_signed_field_is_refused(part: str) -> None:
    intel = Intel()
    at = FLIPS[part]
    intel.edits["quote"] = lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
    codes = {"attestation_key": "attestation_key_not_bound"}
    refused(intel, codes.get(part, "signature_invalid"))


def test_replaced_attestation_key_with_the_old_qe_report_is_refused() -> None:
    intel = Intel()
    intel.vouched_key, intel.attestation_key = intel.attestation_key, key()
    refused(intel, "attestation_key_not_bound")


def test_chain_under_a_self_made_root_with_identical_names_is_refused() -> None:
    real, fake = Intel(), Intel()
    question = replace(fake.question(), anchors=real.anchors())
    examined = tdx.examine(question)
    assert "untrusted_root" in {reason.code for reason in examined.reasons}
    # Nor does it help to lay the genuine root, or the fake one, beside it.
    for root in (real.root_der(), fake.root_der()):
        collateral = {**question.collateral, "root": root}
        examined = tdx.examine(replace(question, collateral=collateral))
        assert "untrusted_root" in {reason.code for reason in examined.reasons}


def test_root_is_found_beside_a_chain_that_leaves_it_out() -> None:
    intel = Intel()
    anchor = intel.root_der()
    intel.edits["cert_data"] = lambda chain: chain[: chain.rindex(b"-----BEGIN")]
    assert tdx.examine(intel.question()).reasons[0].code == "untrusted_root"
    assert tdx.examine(intel.question(root=anchor)).authentic is True


@pytest.mark.parametrize("attributes", ["0000001000000000", "0000000000000000"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_which_of_two_pinned_roots_comes_first_does_not_decide(
    attributes: str, inside: bool, order: int
) -> None:
    """In one state dcap-qvl verifies, in the other this library by itself."""
    intel, other = Intel(), Intel()
    intel.body["td_attributes"] = bytes.fromhex(attributes)
    if not inside:
        intel.edits["cert_data"] = lambda chain: chain[: chain.rindex(b"-----BEGIN")]
    beside = pem(*(intel.root_der(), other.root_der())[::order])
    question = intel.question(root=beside)
    pins = intel.anchors().pins | other.anchors().pins
    question = replace(question, anchors=Anchors(pins, simulated=True))
    members = json.loads(question.collateral["collateral"])
    oracle.verify(question.evidence["quote"], members, intel.root_der(), intel.now)
    examined = tdx.examine(question)
    assert examined.reasons == ()
    assert examined.authentic is True
    # Neither may the one that issued nothing here, pinned alone.
    alone = tdx.examine(replace(question, anchors=other.anchors()))
    assert "untrusted_root" in {reason.code for reason in alone.reasons}


@pytest.mark.parametrize("order", [1, -1])
def test_root_issued_again_that_holds_ends_a_chain_beside_the_expired_one(order: int) -> None:
    intel = Intel()
    intel.edits["cert_data"] = lambda chain: chain[: chain.rindex(b"-----BEGIN")]
    expired = replace(intel.root, serial=76, end=-DAY).der(intel.now)
    question = intel.question(root=pem(*(intel.root_der(), expired)[::order]))
    pins = {*intel.anchors().pins, hashlib.sha256(expired).digest()}
    examined = tdx.examine(replace(question, anchors=Anchors(frozenset(pins), simulated=True)))
    assert examined.reasons == ()
    assert examined.authentic is True


@pytest.mark.parametrize("which", ["tcb_info_issuer_chain", "pck_crl_issuer_chain"])
def test_further_certificate_in_an_issuer_chain_is_refused(which: str) -> None:
    intel = Intel()
    question, members = intel.question(), intel.members()
    members[which] += pem(Intel().root_der()).decode()
    question = replace(question, collateral={"collateral": json.dumps(members).encode()})
    assert "chain_invalid" in {reason.code for reason in tdx.examine(question).reasons}


def test_further_certificate_in_the_pck_chain_is_refused() -> None:
    intel = Intel()
    more = pem(Intel().root_der())
    intel.edits["cert_data"] = lambda chain: chain.rstrip(b"\0") + more
    codes = {reason.code for reason in tdx.examine(intel.question()).reasons}
    assert codes <= {"chain_invalid", "untrusted_root"}
    assert codes


def test_no_pinned_roots_accept_nothing() -> None:
    question = replace(Intel().question(), anchors=Anchors(frozenset()))
    assert tdx.examine(question).reasons[0].code == "untrusted_root"


def test_simulated_platform_is_refused_under_the_vendors_root() -> None:
    question = replace(Intel().question(), anchors=INTEL)
    assert tdx.examine(question).reasons[0].code == "untrusted_root"


def test_der_chain_root_first_is_refused_even_under_the_pinned_root() -> None:
    intel = Intel()
    intel.edits["cert_data"] = lambda _: b"".join(
        (intel.root_der(), intel._once("ca", intel.platform_ca), intel._once("pck", intel.pck))
    )
    refused(intel, "chain_invalid")


def test_leaf_that_is_a_ca_is_refused() -> None:
    intel = Intel()
    intel.pck.ca = True
    question = intel.question()
    assert "chain_invalid" in {reason.code for reason in tdx.examine(question).reasons}


def test_ca_that_may_not_sign_certificates_is_refused() -> None:
    intel = Intel()
    intel.platform_ca.cert_sign = False
    refused(intel, "chain_invalid")


def test_issuer_that_is_no_ca_is_refused() -> None:
    intel = Intel()
    intel.platform_ca.ca, intel.platform_ca.path_length = False, None
    refused(intel, "chain_invalid")


def test_certificate_signed_by_another_key_is_refused() -> None:
    intel = Intel()
    intel.pck.signer = key()
    refused(intel, "chain_invalid")


def test_statement_signer_on_another_curve_is_refused() -> None:
    intel = Intel()
    question, members = intel.question(), intel.members()
    intel.tcb_signer.key = ec.generate_private_key(ec.SECP384R1())
    members |= {"tcb_info_issuer_chain": intel.statement_chain()}
    question = replace(question, collateral={"collateral": json.dumps(members).encode()})
    assert "chain_invalid" in {reason.code for reason in tdx.examine(question).reasons}


def test_certificate_with_another_hash_than_its_curve_has_is_refused() -> None:
    intel = Intel()
    intel.pck.hash = hashes.SHA384()
    codes = {reason.code for reason in tdx.examine(intel.question()).reasons}
    assert codes == {"chain_invalid"}


@pytest.mark.parametrize("which", ["r", "s"])
@pytest.mark.parametrize("value", [0, P256_N])
@pytest.mark.parametrize("at", [636, 636 + 128 + 6 + 384])
def test_signature_with_r_or_s_of_zero_or_n_is_refused(which: str, value: int, at: int) -> None:
    intel = Intel()
    at += 0 if which == "r" else 32
    intel.edits["quote"] = lambda raw: raw[:at] + value.to_bytes(32, "big") + raw[at + 32 :]
    refused(intel, "signature_invalid")


def test_swapped_r_and_s_are_refused() -> None:
    intel = Intel()
    intel.edits["quote"] = lambda raw: raw[:636] + raw[668:700] + raw[636:668] + raw[700:]
    refused(intel, "signature_invalid")


def test_quoting_enclave_of_another_vendor_is_refused() -> None:
    intel = Intel()
    intel.header["vendor"] = bytes(16)
    refused(intel, "qe_vendor_unknown")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mrsigner", bytes(32)),
        ("isvprodid", b"\x01\x00"),
        ("miscselect", b"\x01\x00\x00\x00"),
        ("attributes", bytes.fromhex("1700000000000000e700000000000000")),  # a debug enclave
    ],
)
def test_quoting_enclave_that_is_not_the_one_described_is_refused(field: str, value: bytes) -> None:
    intel = Intel()
    intel.qe_report[field] = value
    refused(intel, "qe_identity_mismatch")


def test_quoting_enclave_below_every_level_is_refused() -> None:
    intel = Intel()
    intel.qe_report["isvsvn"] = b"\x05\x00"
    refused(intel, "tcb_level_not_found")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_revoked_level_is_refused(statement: str) -> None:
    intel = Intel()
    getattr(intel, statement)["tcbLevels"][0]["tcbStatus"] = "Revoked"
    refused(intel, "tcb_revoked")


def test_sgx_qe_identity_for_a_tdx_quote_is_refused() -> None:
    intel = Intel()
    intel.qe_identity["id"] = "QE"
    refused(intel, "qe_identity_wrong_type")


def test_statement_signed_by_a_platforms_key_is_refused() -> None:
    intel = Intel()
    intel.tcb_signer = Certificate(PCK, intel.pck.key, intel.root, ca=False, serial=99)
    refused(intel, "chain_invalid")


# ---- a state that dcap-qvl never accepts: this library verifies by itself


def _flip(at: int) -> Callable[[Intel], None]:
    def change(intel: Intel) -> None:
        intel.edits["quote"] = lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]

    return change


def _other_signer(intel: Intel) -> None:
    intel.tcb_signer = Certificate(PCK, intel.pck.key, intel.root, ca=False, serial=99)


FAULTS: dict[str, Callable[[Intel], object]] = {
    "header": _flip(30),
    "body": _flip(100),
    "signature": _flip(640),
    "key": lambda intel: setattr(intel, "vouched_key", key()),
    "qe report": _flip(775),
    "vendor": lambda intel: intel.header.update(vendor=bytes(16)),
    "qe signer": lambda intel: intel.qe_report.update(mrsigner=bytes(32)),
    "pck signature": lambda intel: setattr(intel.pck, "signer", key()),
    "ca usage": lambda intel: setattr(intel.platform_ca, "cert_sign", False),
    "root time": lambda intel: setattr(intel.root, "end", -DAY),
    "pck time": lambda intel: setattr(intel.pck, "end", -DAY),
    "signer time": lambda intel: setattr(intel.tcb_signer, "end", -DAY),
    "signer": _other_signer,
    "signer signature": lambda intel: setattr(intel.tcb_signer, "signer", key()),
    "tcb info": lambda intel: intel.edits.update(tcb_info=lambda text: text + b" "),
    "qe identity": lambda intel: intel.edits.update(qe_identity=lambda text: text + b" "),
    "crl": lambda intel: setattr(intel, "crl_key", key()),
    "crl time": lambda intel: setattr(intel, "crl_window", (-2 * DAY, -DAY)),
    "pck revoked": lambda intel: intel.revoked_pck.append(14),
    "ca revoked": lambda intel: intel.revoked_root.append(12),
    "signer revoked": lambda intel: intel.revoked_root.append(13),
    "fmspc": lambda intel: intel.tcb_info.update(fmspc="00806f050000"),
    "no level": lambda intel: intel.tcb_info.update(tcbLevels=[]),
    "revoked level": lambda intel: intel.qe_identity["tcbLevels"][0].update(tcbStatus="Revoked"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("attributes", ["0100001000000000", "0000000000000000"])
def test_fault_is_found_in_a_td_whose_state_the_other_verifier_refuses(
    fault: str, attributes: str
) -> None:
    intel = Intel()
    intel.body["td_attributes"] = bytes.fromhex(attributes)
    assert examine(intel).authentic is True
    FAULTS[fault](intel)
    assert examine(intel).authentic is False


def test_nothing_rests_on_the_other_verifier_where_it_has_no_opinion() -> None:
    intel = Intel()
    intel.body["td_attributes"] = bytes(8)
    details = {check.step: check.detail for check in examine(intel).checks}
    assert not any("by dcap-qvl" in detail for detail in details.values())
    assert "tdx 11 revocation" in details
    steps = {check.step: check.detail for check in examine(Intel()).checks}
    assert steps["tdx 11 revocation"] == "by dcap-qvl"
