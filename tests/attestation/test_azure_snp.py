"""`azure-vtpm-snp`: genuine evidence is accepted, and each test below changes one fact of it."""

from __future__ import annotations

import hashlib
import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.azure_vm import amd_of, chip_of, examine, started
from simulators.tpm import sign_quote
from simulators.verdicts import codes_of
from simulators.vtpm import NONCE, pcrs_json, rsa_key

from attestation.examined import Expected
from attestation.schemes.azure_snp import SCHEME


def test_a_fresh_quote_by_the_key_that_the_report_names_is_authentic_and_bound() -> None:
    examined = examine(started().evidence())
    assert (codes_of(examined), examined.bound) == ([], True)
    assert all(check.ok for check in examined.checks)
    assert examined.claims["tee"] == "SEV-SNP"
    assert examined.claims["quote_extra_data"] == NONCE.hex()
    assert examined.claims["runtime_user_data"] == "00" * 64
    assert examined.claims["vm_configuration"]["secure-boot"] is True
    kinds = {identity.split(":")[0] for identity in examined.identities}
    assert kinds == {"chip_id", "key"}
    assert sum(identity.startswith("key:") for identity in examined.identities) == 2


def test_a_signature_in_the_tpms_own_form_is_the_same_signature() -> None:
    vm = started()
    evidence = vm.evidence()
    whole = sign_quote(vm.tpm.key, evidence["quote_msg"])
    assert codes_of(examine({**evidence, "quote_sig": whole})) == []


def test_a_quote_of_another_vm_with_the_report_of_this_one_is_refused() -> None:
    other = started(key=rsa_key("another vm")).evidence()
    evidence = {**started().evidence(), "quote_msg": other["quote_msg"]}
    assert codes_of(examine({**evidence, "quote_sig": other["quote_sig"]})) == ["signature_invalid"]


def test_a_report_of_another_vm_with_the_quote_of_this_one_is_refused() -> None:
    other = started(key=rsa_key("another vm")).evidence()
    evidence = {**started().evidence(), "hcl_report": other["hcl_report"]}
    assert codes_of(examine(evidence)) == ["signature_invalid"]


def test_variable_data_that_names_another_key_than_the_report_vouches_for_is_refused() -> None:
    vm, attacker = started(), started(key=rsa_key("attacker"))
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    evidence = attacker.evidence(report_data=digest)
    assert codes_of(examine(evidence)) == ["report_data_mismatch"]


def test_one_changed_character_of_the_variable_data_is_refused() -> None:
    evidence = started().evidence()
    raw = evidence["hcl_report"].replace(b'"console-enabled":false', b'"console-enabled": true')
    raw = raw.replace(b'"console-enabled": true', b'"console-enabled":true ')
    assert raw != evidence["hcl_report"]
    assert codes_of(examine({**evidence, "hcl_report": raw})) == ["report_data_mismatch"]


def test_the_same_data_written_in_another_way_is_refused() -> None:
    vm = started()
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    spaced = json.dumps(vm.variable).encode()
    evidence = vm.evidence(variable=spaced, report_data=digest)
    assert codes_of(examine(evidence)) == ["report_data_mismatch"]


@pytest.mark.parametrize("hash_type", [1, 2, 3])
def test_report_data_that_goes_on_after_the_hash_is_refused(hash_type: int) -> None:
    vm = started()
    name = {1: "sha256", 2: "sha384", 3: "sha512"}[hash_type]
    digest = bytearray(hashlib.new(name, vm.variable_data()).digest().ljust(64, b"\0"))
    digest[63] ^= 1
    evidence = vm.evidence(hash_type=hash_type, report_data=bytes(digest))
    assert codes_of(examine(evidence)) == ["report_data_mismatch"]


def test_a_report_of_zero_data_is_refused() -> None:
    assert codes_of(examine(started().evidence(report_data=bytes(64)))) == ["report_data_mismatch"]


def test_a_hash_that_the_unsigned_field_names_must_be_the_one_reported() -> None:
    vm = started()
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    evidence = vm.evidence(hash_type=2, report_data=digest)
    assert codes_of(examine(evidence)) == ["report_data_mismatch"]


def test_the_endorsement_key_signs_no_quote() -> None:
    vm = started()
    vm.variable["keys"].reverse()
    assert codes_of(examine(vm.evidence())) == []
    vm.variable["keys"][0]["kid"], vm.variable["keys"][1]["kid"] = "HCLAkPub", "HCLEkPub"
    vm.variable["keys"][0]["key_ops"] = ["sign"]
    assert codes_of(examine(vm.evidence())) == ["signature_invalid"]


def test_a_flipped_bit_in_any_byte_of_the_quote_is_refused() -> None:
    evidence = started().evidence()
    raw = evidence["quote_msg"]
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << at % 8
        codes = codes_of(examine({**evidence, "quote_msg": bytes(flipped)}))
        assert codes[0] in ("signature_invalid", "evidence_malformed")


def test_a_flipped_bit_in_any_byte_of_the_signed_report_is_refused() -> None:
    evidence = started().evidence()
    for at in range(32, 32 + 0x2A0):
        raw = bytearray(evidence["hcl_report"])
        raw[at] ^= 1 << at % 8
        assert codes_of(examine({**evidence, "hcl_report": bytes(raw)})) != []


def test_a_report_under_a_root_of_the_same_name_is_refused() -> None:
    chip = chip_of("look-alike")
    evidence = started(chip).evidence()
    collateral = amd_of("look-alike").collateral(vcek=chip.cert)
    assert "untrusted_root" in codes_of(examine(evidence, collateral=collateral))
    collateral["root"] = amd_of().root
    assert "chain_invalid" in codes_of(examine(evidence, collateral=collateral))


@pytest.mark.parametrize("missing", ["vcek", "ca", "root"])
def test_a_report_without_its_chain_is_refused(missing: str) -> None:
    collateral = amd_of().collateral(vcek=chip_of().cert)
    del collateral[missing]
    code = "untrusted_root" if missing == "root" else "collateral_missing"
    assert code in codes_of(examine(started().evidence(), collateral=collateral))


def test_a_vcek_of_another_chip_is_refused() -> None:
    other = amd_of().chip(hwid=bytes(range(64)))
    assert set(codes_of(examine(started().evidence(), chip=other))) == {
        "chip_id_mismatch", "signature_invalid"
    }  # fmt: skip


def test_a_report_of_a_version_that_is_not_known_is_refused() -> None:
    evidence = started().evidence()
    raw = bytearray(evidence["hcl_report"])
    raw[32] = 6
    examined = examine({**evidence, "hcl_report": bytes(raw)})
    assert codes_of(examined) == ["version_not_accepted"]


def test_a_certificate_that_the_evidence_brings_is_not_looked_at() -> None:
    assert SCHEME.evidence == (("hcl_report", "quote_msg", "quote_sig", "pcrs"), ())


def test_a_quote_for_another_nonce_is_refused() -> None:
    examined = examine(started().evidence(b"another"))
    assert (codes_of(examined), examined.bound) == (["nonce_mismatch"], False)


def test_a_quote_for_no_nonce_is_refused_even_if_none_is_asked_for() -> None:
    assert codes_of(examine(started().evidence(b""), expected=Expected())) == ["nonce_mismatch"]


def test_user_data_is_not_the_nonce() -> None:
    """The paravisor's report is of boot time; what a guest put there then is not fresh."""
    vm = started()
    vm.variable["user-data"] = NONCE.hex().ljust(128, "0")
    assert codes_of(examine(vm.evidence(b"another"))) == ["nonce_mismatch"]


def test_report_data_cannot_be_demanded_without_a_nonce() -> None:
    examined = examine(started().evidence(), expected=Expected(report_data=bytes(64)))
    assert codes_of(examined) == ["report_data_mismatch"]


def test_without_a_demand_nothing_is_bound() -> None:
    examined = examine(started().evidence(), expected=Expected())
    assert (codes_of(examined), examined.bound) == ([], False)


def test_a_register_value_that_is_not_quoted_is_refused() -> None:
    vm = started()
    values = {**vm.tpm.registers["sha256"], 11: b"\1" * 32}
    evidence = {**vm.evidence(), "pcrs": pcrs_json({"sha256": values})}
    assert codes_of(examine(evidence)) == ["pcr_digest_mismatch"]
    evidence["pcrs"] = vm.tpm.pcrs(selected=range(12))
    assert codes_of(examine(evidence)) == ["pcr_selection"]


def test_values_of_a_bank_that_the_quote_does_not_cover_are_nobodys() -> None:
    """Tools list every bank that a TPM keeps, whatever was quoted."""
    vm = started()
    values = {"sha1": {11: b"\1" * 20}, "sha256": vm.tpm.registers["sha256"]}
    evidence = vm.evidence()
    found = examine({**evidence, "pcrs": pcrs_json(values)})
    assert codes_of(found) == []
    assert found.claims["pcrs"] == examine(evidence).claims["pcrs"]
    del values["sha256"]
    assert codes_of(examine({**evidence, "pcrs": pcrs_json(values)})) == ["pcr_selection"]


@pytest.mark.parametrize("role", ["hcl_report", "quote_msg", "quote_sig", "pcrs"])
def test_a_missing_role_is_refused(role: str) -> None:
    evidence = {name: data for name, data in started().evidence().items() if name != role}
    assert codes_of(examine(evidence)) == ["evidence_malformed"]
    assert SCHEME.needs(evidence) == ()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["hcl_report", "quote_msg", "quote_sig", "pcrs"]), st.data())
def test_mutated_evidence_gives_a_verdict_or_our_error(role: str, data: st.DataObject) -> None:
    evidence = _evidence()
    raw = bytearray(evidence[role])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    codes_of(examine({**evidence, role: bytes(raw)}))


@cache
def _evidence() -> dict[str, bytes]:
    return started().evidence()


def test_what_the_report_inside_needs_is_asked_for_under_this_kinds_names() -> None:
    found = SCHEME.needs(started().evidence())
    assert [need.role for need in found] == ["vcek", "ca", "crl"]
    assert {need.role for need in found} <= set(SCHEME.collateral)
