"""`azure-vtpm-snp`: genuine evidence is accepted, and each test below changes one fact of it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.amd import NOW, Amd, Chip
from simulators.hcl import Paravisor, jwk
from simulators.tpm import sign_quote
from simulators.vtpm import NONCE, pcrs_json, rsa_key

from attestation.examined import Examined, Expected, Question
from attestation.formats.hcl_report import VARIABLE_MAX, parse_hcl_report
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.azure_snp import SCHEME
from wire.errors import AttestationError, MalformedError, PolicyError

WORKER = hashlib.sha256(b"worker").digest()
ZERO = "00" * 32
RULE = {
    "min_tcb": {"Genoa": {}, "Turin": {}},
    "image": "any",
    "revocation": "as_supplied",
    "smt": True,
    "pcrs": {},
}


@cache
def _amd(owner: str = "amd") -> Amd:
    return Amd("Genoa", owner=owner)


@cache
def _chip(owner: str = "amd") -> Chip:
    return _amd(owner).chip()


def _vm(chip: Chip | None = None, key: Any = None) -> Paravisor:
    vm = Paravisor((chip or _chip()).report, key)
    vm.tpm.measure(11, WORKER)
    return vm


def _question(evidence: dict[str, bytes], chip: Chip | None = None, **changes: Any) -> Question:
    collateral = _amd().collateral(vcek=(chip or _chip()).cert)
    honest = {"collateral": collateral, "anchors": _amd().anchors, "now": NOW}
    return Question(evidence=evidence, **{**honest, "expected": Expected(nonce=NONCE), **changes})


def _examine(evidence: dict[str, bytes], **changes: Any) -> Examined:
    return SCHEME.examine(_question(evidence, **changes))


def _codes(examined: Examined) -> list[str]:
    assert examined.authentic is (not examined.reasons)
    return [reason.code for reason in examined.reasons]


# -- what is genuine ------------------------------------------------------------------------------


def test_a_fresh_quote_by_the_key_that_the_report_names_is_authentic_and_bound() -> None:
    examined = _examine(_vm().evidence())
    assert (_codes(examined), examined.bound) == ([], True)
    assert all(check.ok for check in examined.checks)
    assert examined.claims["tee"] == "SEV-SNP"
    assert examined.claims["quote_extra_data"] == NONCE.hex()
    assert examined.claims["runtime_user_data"] == "00" * 64
    assert examined.claims["vm_configuration"]["secure-boot"] is True
    kinds = {identity.split(":")[0] for identity in examined.identities}
    assert kinds == {"chip_id", "key"}
    assert sum(identity.startswith("key:") for identity in examined.identities) == 2


@pytest.mark.parametrize("facts", [{"version": 2}, {"hash_type": 2}, {"hash_type": 3}])
def test_every_known_form_of_the_report_is_read(facts: dict[str, Any]) -> None:
    assert _codes(_examine(_vm().evidence(**facts))) == []


def test_capabilities_of_version_2_stand_before_the_variable_data() -> None:
    assert _codes(_examine(_vm().evidence(data_version=2, extra=bytes(4)))) == []


def test_a_signature_in_the_tpms_own_form_is_the_same_signature() -> None:
    vm = _vm()
    evidence = vm.evidence()
    whole = sign_quote(vm.tpm.key, evidence["quote_msg"])
    assert _codes(_examine({**evidence, "quote_sig": whole})) == []


def test_variable_data_without_user_data_has_none() -> None:
    vm = _vm()
    del vm.variable["user-data"]
    examined = _examine(vm.evidence())
    assert (_codes(examined), examined.claims["runtime_user_data"]) == ([], None)


# -- from the report to the quote -----------------------------------------------------------------


def test_a_quote_of_another_vm_with_the_report_of_this_one_is_refused() -> None:
    other = _vm(key=rsa_key("another vm")).evidence()
    evidence = {**_vm().evidence(), "quote_msg": other["quote_msg"]}
    assert _codes(_examine({**evidence, "quote_sig": other["quote_sig"]})) == ["signature_invalid"]


def test_a_report_of_another_vm_with_the_quote_of_this_one_is_refused() -> None:
    other = _vm(key=rsa_key("another vm")).evidence()
    evidence = {**_vm().evidence(), "hcl_report": other["hcl_report"]}
    assert _codes(_examine(evidence)) == ["signature_invalid"]


def test_variable_data_that_names_another_key_than_the_report_vouches_for_is_refused() -> None:
    vm, attacker = _vm(), _vm(key=rsa_key("attacker"))
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    evidence = attacker.evidence(report_data=digest)
    assert _codes(_examine(evidence)) == ["report_data_mismatch"]


def test_one_changed_character_of_the_variable_data_is_refused() -> None:
    evidence = _vm().evidence()
    raw = evidence["hcl_report"].replace(b'"console-enabled":false', b'"console-enabled": true')
    raw = raw.replace(b'"console-enabled": true', b'"console-enabled":true ')
    assert raw != evidence["hcl_report"]
    assert _codes(_examine({**evidence, "hcl_report": raw})) == ["report_data_mismatch"]


def test_the_same_data_written_in_another_way_is_refused() -> None:
    vm = _vm()
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    spaced = json.dumps(vm.variable).encode()
    evidence = vm.evidence(variable=spaced, report_data=digest)
    assert _codes(_examine(evidence)) == ["report_data_mismatch"]


@pytest.mark.parametrize("hash_type", [1, 2, 3])
def test_report_data_that_goes_on_after_the_hash_is_refused(hash_type: int) -> None:
    vm = _vm()
    name = {1: "sha256", 2: "sha384", 3: "sha512"}[hash_type]
    digest = bytearray(hashlib.new(name, vm.variable_data()).digest().ljust(64, b"\0"))
    digest[63] ^= 1
    evidence = vm.evidence(hash_type=hash_type, report_data=bytes(digest))
    assert _codes(_examine(evidence)) == ["report_data_mismatch"]


def test_a_report_of_zero_data_is_refused() -> None:
    assert _codes(_examine(_vm().evidence(report_data=bytes(64)))) == ["report_data_mismatch"]


def test_a_hash_that_the_unsigned_field_names_must_be_the_one_reported() -> None:
    vm = _vm()
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    evidence = vm.evidence(hash_type=2, report_data=digest)
    assert _codes(_examine(evidence)) == ["report_data_mismatch"]


def test_the_endorsement_key_signs_no_quote() -> None:
    vm = _vm()
    vm.variable["keys"].reverse()
    assert _codes(_examine(vm.evidence())) == []
    vm.variable["keys"][0]["kid"], vm.variable["keys"][1]["kid"] = "HCLAkPub", "HCLEkPub"
    vm.variable["keys"][0]["key_ops"] = ["sign"]
    assert _codes(_examine(vm.evidence())) == ["signature_invalid"]


def test_any_flipped_bit_of_the_quote_is_refused() -> None:
    evidence = _vm().evidence()
    raw = evidence["quote_msg"]
    for bit in range(0, len(raw) * 8, 17):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        codes = _codes(_examine({**evidence, "quote_msg": bytes(flipped)}))
        assert codes[0] in ("signature_invalid", "evidence_malformed")


# -- the report -----------------------------------------------------------------------------------


def test_any_flipped_bit_of_the_signed_report_is_refused() -> None:
    evidence = _vm().evidence()
    for at in range(32, 32 + 0x2A0, 37):
        raw = bytearray(evidence["hcl_report"])
        raw[at] ^= 1
        assert _codes(_examine({**evidence, "hcl_report": bytes(raw)})) != []


def test_a_report_under_a_root_of_the_same_name_is_refused() -> None:
    chip = _chip("look-alike")
    evidence = _vm(chip).evidence()
    collateral = _amd("look-alike").collateral(vcek=chip.cert)
    assert "untrusted_root" in _codes(_examine(evidence, collateral=collateral))
    collateral["root"] = _amd().root
    assert "chain_invalid" in _codes(_examine(evidence, collateral=collateral))


@pytest.mark.parametrize("missing", ["vcek", "ca", "root"])
def test_a_report_without_its_chain_is_refused(missing: str) -> None:
    collateral = _amd().collateral(vcek=_chip().cert)
    del collateral[missing]
    code = "untrusted_root" if missing == "root" else "collateral_missing"
    assert code in _codes(_examine(_vm().evidence(), collateral=collateral))


def test_a_vcek_of_another_chip_is_refused() -> None:
    other = _amd().chip(hwid=bytes(range(64)))
    assert set(_codes(_examine(_vm().evidence(), chip=other))) == {
        "chip_id_mismatch", "signature_invalid"
    }  # fmt: skip


def test_a_report_of_a_version_that_is_not_known_is_refused() -> None:
    evidence = _vm().evidence()
    raw = bytearray(evidence["hcl_report"])
    raw[32] = 6
    examined = _examine({**evidence, "hcl_report": bytes(raw)})
    assert _codes(examined) == ["version_not_accepted"]


def test_a_certificate_that_the_evidence_brings_is_not_looked_at() -> None:
    assert SCHEME.evidence == (("hcl_report", "quote_msg", "quote_sig", "pcrs"), ())


# -- nonce and registers --------------------------------------------------------------------------


def test_a_quote_for_another_nonce_is_refused() -> None:
    examined = _examine(_vm().evidence(b"another"))
    assert (_codes(examined), examined.bound) == (["nonce_mismatch"], False)


def test_a_quote_for_no_nonce_is_refused_even_if_none_is_asked_for() -> None:
    assert _codes(_examine(_vm().evidence(b""), expected=Expected())) == ["nonce_mismatch"]


def test_user_data_is_not_the_nonce() -> None:
    """The paravisor's report is of boot time; what a guest put there then is not fresh."""
    vm = _vm()
    vm.variable["user-data"] = NONCE.hex().ljust(128, "0")
    assert _codes(_examine(vm.evidence(b"another"))) == ["nonce_mismatch"]


def test_report_data_cannot_be_demanded_without_a_nonce() -> None:
    examined = _examine(_vm().evidence(), expected=Expected(report_data=bytes(64)))
    assert _codes(examined) == ["report_data_mismatch"]


def test_without_a_demand_nothing_is_bound() -> None:
    examined = _examine(_vm().evidence(), expected=Expected())
    assert (_codes(examined), examined.bound) == ([], False)


def test_a_register_value_that_is_not_quoted_is_refused() -> None:
    vm = _vm()
    values = {**vm.tpm.registers["sha256"], 11: b"\1" * 32}
    evidence = {**vm.evidence(), "pcrs": pcrs_json({"sha256": values})}
    assert _codes(_examine(evidence)) == ["pcr_digest_mismatch"]
    evidence["pcrs"] = vm.tpm.pcrs(selected=range(12))
    assert _codes(_examine(evidence)) == ["pcr_selection"]


# -- format ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"signature": b"HCLB"},
        {"version": 0},
        {"version": 3},
        {"request": 1},
        {"status": 1},
        {"kind": 4},
        {"kind": 1},
        {"kind": 3},
        {"hash_type": 0},
        {"hash_type": 4},
        {"data_version": 3},
        {"data_version": 2},
        {"size_error": 1},
        {"size_error": -1},
        {"length_error": 1},
        {"length_error": -1},
        {"length_error": 2**31},
        {"tail": b"\1"},
        {"extra": bytes(4)},
    ],
)
def test_a_report_of_another_form_is_refused(lie: dict[str, Any]) -> None:
    assert _codes(_examine(_vm().evidence(**lie))) == ["evidence_malformed"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda v: v.pop("keys"),
        lambda v: v.update(keys=[]),
        lambda v: v.update(keys={}),
        lambda v: v["keys"].pop(0),
        lambda v: v["keys"].append(v["keys"][0]),
        lambda v: v["keys"].append(jwk("HCLAkPub", "sign", rsa_key("second"))),
        lambda v: v["keys"].extend(jwk(f"{n}", "sign", rsa_key("second")) for n in range(4)),
        lambda v: v["keys"][0].pop("e"),
        lambda v: v["keys"][0].update(alg="none"),
        lambda v: v["keys"][0].update(kty="EC"),
        lambda v: v["keys"][0].update(key_ops=["sign", "encrypt"]),
        lambda v: v["keys"][0].update(key_ops=[]),
        lambda v: v["keys"][0].update(n="AQAB"),
        lambda v: v["keys"][0].update(n=v["keys"][0]["n"] + "="),
        lambda v: v["keys"][0].update(e="AA"),
        lambda v: v.update({"user-data": 7}),
        lambda v: v.update({"vm-configuration": []}),
        lambda v: v.update(unknown=1),
    ],
    ids=[
        "no-keys",
        "keys-empty",
        "keys-object",
        "no-ak",
        "ak-repeated",
        "two-aks",
        "five-keys",
        "no-exponent",
        "extra-member",
        "not-rsa",
        "two-operations",
        "no-operation",
        "short-modulus",
        "padded-modulus",
        "zero-exponent",
        "user-data-number",
        "configuration-array",
        "unknown-member",
    ],
)
def test_variable_data_of_another_form_is_refused(edit: Any) -> None:
    vm = _vm()
    edit(vm.variable)
    assert _codes(_examine(vm.evidence())) == ["evidence_malformed"]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"keys":1,"keys":2}', b"{", b"\xff", b" " * 20_000])
def test_variable_data_that_is_not_one_object_is_refused(data: bytes) -> None:
    assert len(b" " * 20_000) > VARIABLE_MAX
    assert _codes(_examine(_vm().evidence(variable=data))) == ["evidence_malformed"]


@pytest.mark.parametrize("role", ["hcl_report", "quote_msg", "quote_sig", "pcrs"])
def test_a_missing_role_is_refused(role: str) -> None:
    evidence = {name: data for name, data in _vm().evidence().items() if name != role}
    assert _codes(_examine(evidence)) == ["evidence_malformed"]
    assert SCHEME.needs(evidence) == ()


def test_every_truncation_of_the_report_is_refused() -> None:
    raw = _vm().evidence()["hcl_report"].rstrip(b"\0")
    for length in range(0, len(raw), 7):
        with pytest.raises(MalformedError):
            parse_hcl_report(raw[:length])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["hcl_report", "quote_msg", "quote_sig", "pcrs"]), st.data())
def test_mutated_evidence_gives_a_verdict_or_our_error(role: str, data: st.DataObject) -> None:
    evidence = _evidence()
    raw = bytearray(evidence[role])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _codes(_examine({**evidence, role: bytes(raw)}))


@cache
def _evidence() -> dict[str, bytes]:
    return _vm().evidence()


# -- state ----------------------------------------------------------------------------------------


def _judge(evidence: dict[str, bytes], **demands: Any) -> list[str]:
    ledger = Ledger()
    facts = _examine(evidence).facts
    SCHEME.judge(ledger, facts, _rule({**RULE, **demands}), NOW)
    return [reason.code for reason in ledger.reasons]


def _rule(demands: dict[str, Any]) -> Any:
    required, optional = SCHEME.rule_keys
    members = Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    return SCHEME.rule(members)


def test_a_vm_that_meets_every_demand_is_accepted() -> None:
    vm = _vm()
    value = vm.tpm.registers["sha256"][11].hex()
    assert _judge(vm.evidence(), pcrs={"11": [value]}) == []


def test_the_reports_own_state_is_judged() -> None:
    vm = _vm()
    debug = vm.evidence(report=_lied(vm, policy=_chip().facts.policy | 1 << 19))
    assert _judge(debug) == ["debug_enabled"]
    old = vm.evidence(report=_lied(vm, platform_info=_chip().facts.platform_info & ~(1 << 5)))
    assert _judge(old) == ["alias_check_not_complete"]


def _lied(vm: Paravisor, **lies: Any) -> bytes:
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    return _chip().report(report_data=digest, **lies)


def test_a_register_of_another_value_is_refused() -> None:
    assert _judge(_vm().evidence(), pcrs={"11": [ZERO]}) == ["pcr_not_accepted"]
    assert _judge(_vm().evidence(), bank="sha384") == ["bank_not_accepted"]


def test_a_vm_without_secure_boot_is_refused_unless_the_rule_says_otherwise() -> None:
    vm = _vm()
    for change in ({"secure-boot": False}, {}):
        vm.variable["vm-configuration"] = change
        assert _judge(vm.evidence()) == ["vm_configuration_not_accepted"]
        assert _judge(vm.evidence(), vm_configuration={}) == []


def test_a_configuration_must_have_the_value_and_the_type_demanded() -> None:
    vm = _vm()
    vm.variable["vm-configuration"]["secure-boot"] = 1
    assert _judge(vm.evidence()) == ["vm_configuration_not_accepted"]
    wanted = {"vmUniqueId": "00000000-0000-4000-8000-000000000000"}
    assert _judge(_vm().evidence(), vm_configuration=wanted) == []
    wanted = {"vmUniqueId": "another"}
    assert _judge(_vm().evidence(), vm_configuration=wanted) == ["vm_configuration_not_accepted"]


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": {"16": [ZERO]}},
        {"pcrs": {"23": [ZERO]}},
        {"bank": "sha1"},
        {"vm_configuration": []},
        {"vm_configuration": {"secure-boot": 1}},
        {"vm_configuration": {"secure-boot": None}},
        {"vm_configuration": {str(n): True for n in range(33)}},
        {"unknown": 1},
        {"debug": True},
    ],
)
def test_a_demand_that_is_not_understood_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        _rule({**RULE, **change})


@pytest.mark.parametrize("key", ["min_tcb", "image", "pcrs"])
def test_a_rule_must_state_its_image_floor_and_registers(key: str) -> None:
    with pytest.raises(PolicyError):
        _rule({name: value for name, value in RULE.items() if name != key})


def test_the_measurement_stands_in_register_11() -> None:
    carries = SCHEME.carries
    assert carries is not None
    assert carries(_examine(_vm().evidence()).facts, WORKER) == "register 11 holds the measurement"
    for vm in (Paravisor(_chip().report), _vm()):
        vm.tpm.measure(11, b"\1" * 32)
        with pytest.raises(AttestationError) as caught:
            carries(_examine(vm.evidence()).facts, WORKER)
        assert caught.value.reasons == ("pcr_mismatch",)


def test_what_the_report_inside_needs_is_asked_for_under_this_kinds_names() -> None:
    found = SCHEME.needs(_vm().evidence())
    assert [need.role for need in found] == ["vcek", "ca", "crl"]
    assert {need.role for need in found} <= set(SCHEME.collateral)
