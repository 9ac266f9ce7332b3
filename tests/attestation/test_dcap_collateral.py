"""Intel DCAP: time, collateral, revocation and spelling, one changed fact a test."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from simulators.intel import Intel
from simulators.intel_parts import DAY, Certificate, key, pem, sized, stamp
from simulators.intel_verdicts import refused

from attestation.formats.intel_collateral import ROLES
from attestation.schemes import tdx

PROCESSOR = "Intel SGX PCK Processor CA"


# ---- time


@pytest.mark.parametrize("which", ["root", "platform_ca", "pck", "tcb_signer"])
@pytest.mark.parametrize("edge", ["start", "end"])
def test_certificate_outside_its_time_is_refused(which: str, edge: str) -> None:
    intel = Intel()
    setattr(getattr(intel, which), edge, DAY if edge == "start" else -DAY)
    refused(intel, "certificate_not_valid_at_time")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    ("member", "days", "code"),
    [("nextUpdate", -1, "collateral_expired"), ("issueDate", 1, "collateral_not_yet_valid")],
)
def test_statement_outside_its_time_is_refused(
    statement: str, member: str, days: int, code: str
) -> None:
    intel = Intel()
    getattr(intel, statement)[member] = stamp(intel.now + days * DAY)
    refused(intel, code)


@pytest.mark.parametrize(
    ("window", "code"), [((-9, -1), "crl_expired"), ((1, 9), "crl_not_yet_valid")]
)
def test_crl_outside_its_time_is_refused(window: tuple[int, int], code: str) -> None:
    intel = Intel()
    intel.crl_window = (window[0] * DAY, window[1] * DAY)
    refused(intel, code)


# ---- collateral of something else


@pytest.mark.parametrize(("member", "value"), [("fmspc", "00806f050000"), ("pceId", "0001")])
def test_tcb_info_of_another_platform_family_is_refused(member: str, value: str) -> None:
    intel = Intel()
    intel.tcb_info[member] = value
    refused(intel, "collateral_fmspc_mismatch")


def test_tcb_info_of_another_tee_is_refused() -> None:
    intel = Intel()
    intel.tcb_info["id"] = "SGX"
    refused(intel, "collateral_fmspc_mismatch")


def test_pck_crl_of_the_other_ca_is_refused() -> None:
    intel = Intel()
    other = Certificate(PROCESSOR, key(), intel.root)
    intel.edits["pck_crl"] = lambda _: intel.crl(other, [])
    refused(intel, "crl_invalid")


def test_crl_signed_by_another_key_is_refused() -> None:
    intel = Intel()
    intel.crl_key = key()
    refused(intel, "crl_invalid")


def test_ca_that_may_not_sign_crls_is_refused() -> None:
    intel = Intel()
    intel.platform_ca.crl_sign = False
    refused(intel, "crl_invalid")


@pytest.mark.parametrize("crl", ["pck_crl", "root_ca_crl"])
@pytest.mark.parametrize("form", ["pem", "hex", "nothing"])
def test_crl_that_is_not_der_is_refused(crl: str, form: str) -> None:
    intel = Intel()
    forms = {
        "pem": lambda der: b"-----BEGIN X509 CRL-----\n" + der,
        "hex": lambda der: der.hex().encode(),
        "nothing": lambda _: b"",
    }
    intel.edits[crl] = forms[form]
    refused(intel, "collateral_malformed" if form == "nothing" else "crl_invalid")


@pytest.mark.parametrize(
    ("revoked", "serial"), [("pck", 14), ("root", 12), ("root", 13), ("root", 11)]
)
def test_revoked_certificate_is_refused(revoked: str, serial: int) -> None:
    """The PCK, its CA, the statements' signer, the root itself."""
    intel = Intel()
    getattr(intel, f"revoked_{revoked}").append(serial)
    if serial == intel.root.serial:  # a root on its own list: dcap-qvl's own word
        codes = {reason.code for reason in tdx.examine(intel.question()).reasons}
        assert "revoked" in codes
    else:
        refused(intel, "revoked")


# ---- spelling of the signed statements


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("change", ["spaces", "order", "tail", "head"])
def test_statement_spelled_again_or_with_text_around_it_is_refused(
    statement: str, change: str
) -> None:
    intel = Intel()
    changes = {
        "spaces": lambda text: json.dumps(json.loads(text)).encode(),
        "order": lambda text: json.dumps(json.loads(text), sort_keys=True).encode(),
        "tail": lambda text: text + b" ",
        "head": lambda text: b"\n" + text,
    }
    intel.edits[statement] = changes[change]
    refused(intel, "signature_invalid")


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_statement_with_a_key_twice_is_refused(statement: str) -> None:
    intel = Intel()
    text = json.dumps(getattr(intel, statement), separators=(",", ":"))
    twice = text.replace('"version":', '"version":3,"version":', 1).encode()
    intel.edits[statement] = lambda _: twice
    codes = {reason.code for reason in tdx.examine(intel.question()).reasons}
    assert codes == {"collateral_malformed"}


def test_collateral_with_a_member_twice_is_refused() -> None:
    intel = Intel()
    text = intel.collateral().replace(b'{"', b'{"tcb_info":"x","', 1)
    examined = tdx.examine(intel.question(collateral=text))
    assert [reason.code for reason in examined.reasons] == ["collateral_malformed"]


@pytest.mark.parametrize("around", ["tail", "member", "name"])
def test_wrapped_statement_with_anything_around_it_is_refused(around: str) -> None:
    intel = Intel()
    roles = intel.roles()
    raw = roles["tcb_info"]
    roles["tcb_info"] = {
        "tail": raw + b"{}",
        "member": raw[:-1] + b',"more":1}',
        "name": raw.replace(b"tcbInfo", b"tcbinfo", 1),
    }[around]
    examined = tdx.examine(replace(intel.question(), collateral=roles))
    assert [reason.code for reason in examined.reasons] == ["collateral_malformed"]


@pytest.mark.parametrize(
    ("statement", "member", "value"),
    [
        ("tcb_info", "version", 4),
        ("tcb_info", "tcbType", 1),
        ("tcb_info", "condition", True),
        ("qe_identity", "version", 1),
        ("qe_identity", "condition", True),
    ],
)
def test_statement_of_another_version_or_with_an_unknown_member_is_refused(
    statement: str, member: str, value: object
) -> None:
    intel = Intel()
    getattr(intel, statement)[member] = value
    codes = {reason.code for reason in tdx.examine(intel.question()).reasons}
    assert codes == {"collateral_malformed"}


def test_missing_part_of_the_collateral_is_refused() -> None:
    intel = Intel()
    for role in intel.roles():
        roles = intel.roles()
        del roles[role]
        examined = tdx.examine(replace(intel.question(), collateral=roles))
        assert [reason.code for reason in examined.reasons] == ["collateral_malformed"]


@pytest.mark.parametrize("role", ROLES)
def test_a_part_beside_the_whole_collateral_is_refused(role: str) -> None:
    intel = Intel()
    parts = intel.roles()
    question = intel.question(**{role: parts[role]})
    examined = tdx.examine(question)
    assert [reason.code for reason in examined.reasons] == ["collateral_malformed"]


def test_a_list_that_revokes_is_not_passed_over_for_one_that_does_not() -> None:
    intel = Intel()
    good = intel.collateral()
    intel.revoked_pck.append(14)
    revoking = intel.roles()["pck_crl"]
    examined = tdx.examine(intel.question(collateral=good, pck_crl=revoking))
    assert [reason.code for reason in examined.reasons] == ["collateral_malformed"]


def test_second_verifier_is_told_only_what_the_first_accepts() -> None:
    intel = Intel()
    intel.tcb_info["fmspc"] = "00806f050000"
    examined = tdx.examine(intel.question())
    step = next(check for check in examined.checks if check.step == "tdx 6 dcap-qvl")
    assert step.ok is None


def test_nested_certification_data_is_refused() -> None:
    intel = Intel()

    def nest(raw: bytes) -> bytes:
        at = 632 + 4 + 128
        inner = sized(6, raw[at:])
        return raw[:632] + (128 + len(inner)).to_bytes(4, "little") + raw[636:at] + inner

    intel.edits["quote"] = nest
    examined = tdx.examine(intel.question())
    assert [reason.code for reason in examined.reasons] == ["evidence_malformed"]


@pytest.mark.parametrize("count", [0, 5, 10_000])
def test_too_few_or_too_many_certificates_are_refused(count: int) -> None:
    intel = Intel()
    one = pem(intel.root_der())
    intel.edits["cert_data"] = lambda _: (one * count)[: 1 << 20]
    examined = tdx.examine(intel.question())
    assert [reason.code for reason in examined.reasons] == ["evidence_malformed"]
