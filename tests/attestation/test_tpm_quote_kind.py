"""`tpm2-quote`: genuine quotes are accepted, and each test below changes one fact of one."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from simulators.event_log import EventLog
from simulators.tpm import AK_ATTRIBUTES, ecdsa_signature, public_area, sign_quote
from simulators.vtpm import (
    ISSUER_SERIAL,
    LEAF_SERIAL,
    NONCE,
    NOW,
    Vtpm,
    VtpmMaker,
    ec_key,
    pcrs_json,
    rsa_key,
)

from attestation.anchors import NONE, Anchors
from attestation.examined import FOREVER, Expected
from attestation.formats.tpm_structures import DECRYPT, FIXED_TPM, RESTRICTED, SIGN
from attestation.schemes.tpm_quote import SCHEME

if TYPE_CHECKING:
    from attestation.examined import Examined

MAKER = VtpmMaker()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
YEAR = 365 * 24 * 3600


def _tpm(**facts: Any) -> Vtpm:
    tpm = Vtpm(MAKER, **facts)
    tpm.measure(11, hashlib.sha256(b"worker").digest())
    return tpm


def _examine(evidence: dict[str, bytes], **changes: Any) -> Examined:
    return SCHEME.examine(MAKER.question(evidence, **changes))


def _codes(examined: Examined) -> list[str]:
    assert examined.authentic is (not examined.reasons)
    return [reason.code for reason in examined.reasons]


# -- what is genuine ------------------------------------------------------------------------------


def test_a_certified_quote_for_the_nonce_is_authentic_and_bound() -> None:
    examined = _examine(_tpm().evidence())
    assert (examined.authentic, examined.reasons, examined.bound) == (True, (), True)
    assert all(check.ok for check in examined.checks)
    assert [check.step.split()[1] for check in examined.checks] == ["1", "2", "3", "4", "5", "6"]
    assert examined.not_after == NOW + YEAR
    fingerprint = hashlib.sha256(_tpm().spki).hexdigest()
    assert examined.identities == (f"key:{fingerprint}",)


def test_an_rsa_attestation_key_signs_as_well() -> None:
    assert _codes(_examine(_tpm(key=rsa_key("ak")).evidence())) == []


def test_a_plain_rsa_signature_is_the_same_signature() -> None:
    evidence = _tpm(key=rsa_key("ak")).evidence()
    assert _codes(_examine({**evidence, "quote_sig": evidence["quote_sig"][6:]})) == []


def test_a_der_ecdsa_signature_is_the_same_signature() -> None:
    evidence = _tpm().evidence()
    r, s = _pair(evidence["quote_sig"])
    assert _codes(_examine({**evidence, "quote_sig": encode_dss_signature(r, s)})) == []


def test_the_public_area_may_come_without_its_length() -> None:
    evidence = _tpm().evidence()
    assert _codes(_examine({**evidence, "ak_public": evidence["ak_public"][2:]})) == []


def test_the_intermediate_may_be_pem() -> None:
    pem = load_der_x509_certificate(MAKER.issuer).public_bytes(Encoding.PEM)
    assert _codes(_examine(_tpm().evidence(), collateral=MAKER.collateral(intermediate=pem))) == []


def test_quotes_of_several_banks_are_all_verified() -> None:
    tpm = _tpm(banks=("sha1", "sha256", "sha384"))
    assert _codes(_examine(_banks(tpm))) == []
    for bank in ("sha1", "sha256", "sha384"):
        evidence = _banks(tpm)
        evidence[f"sig_{bank}"] = evidence["sig_sha1" if bank != "sha1" else "sig_sha256"]
        assert _codes(_examine(evidence)) == ["signature_invalid"]


def test_without_a_demand_nothing_is_bound() -> None:
    examined = _examine(_tpm().evidence(), expected=Expected())
    assert (examined.authentic, examined.bound) == (True, False)


def test_a_key_trusted_beforehand_needs_no_certificate() -> None:
    tpm = _tpm()
    examined = _examine(tpm.evidence(ak_cert=None), anchors=NONE, collateral={"ak_spki": tpm.spki})
    assert _codes(examined) == []
    assert examined.not_after == FOREVER


# -- signature and key ----------------------------------------------------------------------------


def test_any_flipped_bit_of_the_signed_bytes_is_refused() -> None:
    evidence = _tpm().evidence()
    raw = evidence["quote_msg"]
    for bit in range(0, len(raw) * 8, 3):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        codes = _codes(_examine({**evidence, "quote_msg": bytes(flipped)}))
        assert codes[0] in ("signature_invalid", "evidence_malformed")


def test_a_quote_by_another_key_is_refused() -> None:
    evidence = _tpm().evidence()
    forged = sign_quote(ec_key("attacker"), evidence["quote_msg"])
    assert _codes(_examine({**evidence, "quote_sig": forged})) == ["signature_invalid"]


def test_another_key_with_its_own_public_area_is_not_the_certified_one() -> None:
    honest, attacker = _tpm(), _tpm(key=ec_key("attacker"))
    evidence = attacker.evidence(ak_cert=honest.cert)
    assert _codes(_examine(evidence)) == ["ak_mismatch", "signature_invalid"]


@pytest.mark.parametrize("r", [0, None, P256_ORDER])
@pytest.mark.parametrize("s", [0, None, P256_ORDER])
def test_r_and_s_out_of_range_are_refused(r: int | None, s: int | None) -> None:
    if r is None and s is None:
        return
    evidence = _tpm().evidence()
    honest = _pair(evidence["quote_sig"])
    pair = (honest[0] if r is None else r, honest[1] if s is None else s)
    assert _codes(_examine({**evidence, "quote_sig": ecdsa_signature(*pair)})) == [
        "signature_invalid"
    ]


def test_a_sha1_signature_is_refused() -> None:
    evidence = _tpm().evidence()
    sha1 = evidence["quote_sig"][:2] + b"\x00\x04" + evidence["quote_sig"][4:]
    assert "signature_invalid" in _codes(_examine({**evidence, "quote_sig": sha1}))


def test_a_signature_by_another_scheme_than_the_keys_own_is_refused() -> None:
    tpm = _tpm(key=rsa_key("ak"))
    evidence = tpm.evidence()
    pss = b"\x00\x16" + evidence["quote_sig"][2:]
    assert _codes(_examine({**evidence, "quote_sig": pss})) == ["signature_invalid"]


@pytest.mark.parametrize("bit", [RESTRICTED, SIGN, FIXED_TPM])
def test_a_key_that_signs_more_than_its_tpm_made_is_refused(bit: int) -> None:
    evidence = _tpm().evidence()
    tpm = _tpm(attributes=AK_ATTRIBUTES & ~bit)
    changed = public_area(tpm.key, AK_ATTRIBUTES).replace(
        AK_ATTRIBUTES.to_bytes(4, "big"), (AK_ATTRIBUTES & ~bit).to_bytes(4, "big")
    )
    assert _codes(_examine({**evidence, "ak_public": changed})) == ["ak_attributes"]


def test_a_key_that_also_decrypts_is_refused() -> None:
    evidence = _tpm().evidence()
    changed = evidence["ak_public"].replace(
        AK_ATTRIBUTES.to_bytes(4, "big"), (AK_ATTRIBUTES | DECRYPT).to_bytes(4, "big")
    )
    assert _codes(_examine({**evidence, "ak_public": changed})) == ["ak_attributes"]


def test_a_certified_key_without_its_attributes_is_refused() -> None:
    assert _codes(_examine(_tpm().evidence(ak_public=None))) == ["ak_attributes"]


# -- roots and chain ------------------------------------------------------------------------------


def test_a_chain_rebuilt_under_a_root_of_the_same_name_is_refused() -> None:
    other = VtpmMaker("look-alike")
    tpm = Vtpm(other)
    assert _codes(_examine(tpm.evidence())) == ["chain_invalid"]
    assert _codes(_examine(tpm.evidence(), collateral=other.collateral())) == ["untrusted_root"]
    both = {"root": MAKER.root, "intermediate": other.issuer}
    assert _codes(_examine(tpm.evidence(), collateral=both)) == ["untrusted_root"]


def test_a_root_that_only_the_collateral_brings_is_no_anchor() -> None:
    assert _codes(_examine(_tpm().evidence(), anchors=NONE)) == ["untrusted_root"]


def test_an_intermediate_is_no_anchor() -> None:
    leaf = MAKER.certificate("vTPM root", "vTPM root", MAKER.root_key, MAKER.root_key, ca=False)
    assert _codes(_examine(_tpm(cert=leaf).evidence())) != []
    collateral = {"root": MAKER.issuer, "intermediate": MAKER.issuer}
    assert _codes(_examine(_tpm().evidence(), collateral=collateral)) == ["untrusted_root"]


def test_evidence_has_no_place_for_trust() -> None:
    roles = {*SCHEME.evidence[0], *SCHEME.evidence[1]}
    assert roles.isdisjoint(SCHEME.collateral)
    assert "ak_spki" in SCHEME.collateral
    assert not SCHEME.anchors.pins


def test_a_key_that_the_evidence_states_is_not_thereby_trusted() -> None:
    tpm = _tpm()
    evidence = {**tpm.evidence(ak_cert=None), "ak_spki": tpm.spki}
    assert _codes(_examine(evidence)) == ["collateral_missing"]


def test_another_key_than_the_trusted_one_is_refused() -> None:
    tpm, other = _tpm(), _tpm(key=ec_key("other"))
    examined = _examine(tpm.evidence(ak_cert=None), collateral={"ak_spki": other.spki})
    assert _codes(examined) == ["ak_mismatch", "signature_invalid"]


def test_a_trusted_key_beside_a_certificate_must_be_the_certified_one() -> None:
    tpm, other = _tpm(), _tpm(key=ec_key("other"))
    collateral = MAKER.collateral(ak_spki=other.spki)
    assert _codes(_examine(tpm.evidence(), collateral=collateral)) == ["unknown_signing_key"]
    collateral = MAKER.collateral(ak_spki=tpm.spki)
    assert _codes(_examine(tpm.evidence(), collateral=collateral)) == []


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        b"\x30",
        bytes(2000),
        _tpm(key=ec.generate_private_key(ec.SECP521R1())).spki,
        _tpm(key=rsa.generate_private_key(65537, 1024)).spki,
    ],
    ids=["nothing", "cut", "long", "p521", "rsa1024"],
)
def test_a_trusted_key_no_tpm_signs_with_is_refused(spki: bytes) -> None:
    examined = _examine(_tpm().evidence(ak_cert=None), collateral={"ak_spki": spki})
    assert _codes(examined) == ["unknown_signing_key"]


@pytest.mark.parametrize("missing", ["root", "intermediate"])
def test_a_chain_with_a_gap_is_refused(missing: str) -> None:
    collateral = {role: der for role, der in MAKER.collateral().items() if role != missing}
    code = {"root": "collateral_missing", "intermediate": "untrusted_root"}[missing]
    assert _codes(_examine(_tpm().evidence(), collateral=collateral)) == [code]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"ca": True}, "chain_invalid"),
        ({"eku": None}, "chain_invalid"),
        ({"eku": "1.3.6.1.5.5.7.3.1"}, "chain_invalid"),
        ({"signs": False}, "chain_invalid"),
        ({"start": 60}, "certificate_not_valid_at_time"),
        ({"end": -60}, "certificate_not_valid_at_time"),
        ({"extension": ("1.3.6.1.4.1.11129.2.1.21", True)}, "chain_invalid"),
    ],
)
def test_a_certificate_for_something_else_is_refused(facts: dict[str, Any], code: str) -> None:
    cert = MAKER.certify(ec_key("attestation"), **facts)
    assert _codes(_examine(_tpm(cert=cert).evidence())) == [code]


def test_an_extension_that_names_the_instance_is_no_hindrance() -> None:
    cert = MAKER.certify(
        ec_key("attestation"), extension=("1.3.6.1.4.1.11129.2.1.21", False), eku="2.23.133.8.1"
    )
    assert _codes(_examine(_tpm(cert=cert).evidence())) == []


# -- revocation -----------------------------------------------------------------------------------


def test_lists_that_revoke_nothing_pass_and_end_the_verdict() -> None:
    lists = {"crl_intermediate": MAKER.crl(), "crl_root": MAKER.crl("root", end=3600)}
    examined = _examine(_tpm().evidence(), collateral=MAKER.collateral(**lists))
    assert _codes(examined) == []
    assert examined.not_after == NOW + 3600
    assert examined.facts.key.revocation_checked


@pytest.mark.parametrize(
    ("role", "of", "facts", "code"),
    [
        ("crl_intermediate", "issuer", {"revoked": [LEAF_SERIAL]}, "revoked"),
        ("crl_root", "root", {"revoked": [ISSUER_SERIAL]}, "revoked"),
        ("crl_intermediate", "issuer", {"end": -60}, "crl_expired"),
        ("crl_intermediate", "root", {}, "crl_invalid"),
        ("crl_root", "issuer", {}, "crl_invalid"),
    ],
)
def test_a_list_that_is_brought_is_enforced(
    role: str, of: str, facts: dict[str, Any], code: str
) -> None:
    collateral = MAKER.collateral(**{role: MAKER.crl(of, **facts)})
    assert _codes(_examine(_tpm().evidence(), collateral=collateral)) == [code]


def test_a_list_that_no_certificate_of_the_chain_could_be_on_is_refused() -> None:
    cert = MAKER.certificate(
        "", "vTPM root", ec_key("attestation"), MAKER.root_key, ca=False, eku="2.23.133.8.3"
    )
    evidence = _tpm(cert=cert).evidence()
    short = {"root": MAKER.root, "crl_intermediate": MAKER.crl("root")}
    examined = _examine(evidence, collateral=short)
    assert (_codes(examined), examined.facts.key.revocation_checked) == ([], True)
    longer = {**short, "crl_root": MAKER.crl("root")}
    assert _codes(_examine(evidence, collateral=longer)) == ["crl_invalid"]


def test_a_list_in_hex_is_refused() -> None:
    collateral = MAKER.collateral(crl_intermediate=MAKER.crl().hex().encode())
    assert _codes(_examine(_tpm().evidence(), collateral=collateral)) == ["crl_invalid"]


# -- registers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", [0, 11, 16, 23])
def test_a_register_value_beside_the_quote_that_is_not_its_own_is_refused(register: int) -> None:
    tpm = _tpm()
    values = {**tpm.registers["sha256"], register: b"\1" * 32}
    evidence = tpm.evidence(pcrs=pcrs_json({"sha256": values}))
    assert _codes(_examine(evidence)) == ["pcr_digest_mismatch"]


def test_two_registers_swapped_are_refused() -> None:
    tpm = _tpm()
    values = dict(tpm.registers["sha256"])
    values[11], values[12] = values[12], values[11]
    evidence = tpm.evidence(pcrs=pcrs_json({"sha256": values}))
    assert _codes(_examine(evidence)) == ["pcr_digest_mismatch"]


def test_register_values_that_the_quote_does_not_select_are_refused() -> None:
    tpm = _tpm()
    message, signature = tpm.quote(NONCE, selected=range(11))
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature)
    assert _codes(_examine(evidence)) == ["pcr_selection"]


def test_the_digest_of_another_selection_with_the_same_values_is_refused() -> None:
    """CVE-2022-0317: the digest alone does not say which registers it is of."""
    tpm = _tpm()
    message, signature = tpm.quote(NONCE, selected=(8, 9))
    honest = {number: tpm.registers["sha256"][number] for number in (8, 9)}
    same_digest = {10: honest[8], 12: honest[9]}
    for values, codes in ((honest, []), (same_digest, ["pcr_selection"])):
        evidence = tpm.evidence(
            quote_msg=message, quote_sig=signature, pcrs=pcrs_json({"sha256": values})
        )
        assert _codes(_examine(evidence)) == codes


def test_selected_registers_that_are_not_given_are_refused() -> None:
    tpm = _tpm()
    evidence = tpm.evidence(pcrs=tpm.pcrs(selected=range(23)))
    assert _codes(_examine(evidence)) == ["pcr_selection"]


def test_a_quote_without_register_values_is_refused() -> None:
    assert _codes(_examine(_tpm().evidence(pcrs=None))) == ["pcr_selection"]


def test_values_cut_elsewhere_that_give_the_same_digest_are_refused() -> None:
    tpm = _tpm()
    values = dict(tpm.registers["sha256"])
    joined = values[0] + values[1]
    values[0], values[1] = joined[:31], joined[31:]
    evidence = tpm.evidence(pcrs=pcrs_json({"sha256": values}))
    assert _codes(_examine(evidence)) == ["evidence_malformed"]


def test_a_list_of_the_first_registers_is_that_of_a_quote_of_them() -> None:
    """Some clouds' guests quote registers 0 to 14 and list no others."""
    tpm = _tpm()
    values = [tpm.registers["sha256"][number].hex() for number in range(15)]
    listed = json.dumps({"alg": "sha256", "pcrs": values}).encode()
    message, signature = tpm.quote(NONCE, selected=range(15))
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=listed)
    assert _examine(evidence).authentic is True
    assert _codes(_examine(tpm.evidence(pcrs=listed))) == ["pcr_selection"]


# -- nonce ----------------------------------------------------------------------------------------


def test_a_quote_for_another_nonce_is_refused() -> None:
    examined = _examine(_tpm().evidence(hashlib.sha256(b"another").digest()))
    assert (_codes(examined), examined.bound) == (["nonce_mismatch"], False)


def test_a_quote_without_a_nonce_answers_no_nonce() -> None:
    for expected in (Expected(nonce=NONCE), Expected(nonce=b"")):
        assert _codes(_examine(_tpm().evidence(b""), expected=expected)) == ["nonce_mismatch"]


def test_a_quote_without_a_nonce_is_genuine_and_bound_to_nothing() -> None:
    examined = _examine(_tpm().evidence(b""), expected=Expected())
    assert (examined.authentic, examined.bound) == (True, False)
    assert examined.claims["extra_data"] == ""


def test_the_beginning_of_the_nonce_is_not_the_nonce() -> None:
    for nonce in (NONCE[:31], NONCE + b"\0"):
        assert _codes(_examine(_tpm().evidence(nonce))) == ["nonce_mismatch"]


def test_one_quote_for_the_nonce_does_not_vouch_for_another_without() -> None:
    tpm = _tpm(banks=("sha1", "sha256", "sha384"))
    evidence = _banks(tpm)
    message, signature = tpm.quote(b"an older nonce", "sha384")
    evidence.update({"quote_sha384": message, "sig_sha384": signature})
    assert _codes(_examine(evidence)) == ["nonce_mismatch"]


def test_report_data_cannot_be_demanded_without_a_nonce() -> None:
    examined = _examine(_tpm().evidence(), expected=Expected(report_data=bytes(64)))
    assert (_codes(examined), examined.bound) == (["report_data_mismatch"], False)


# -- event log ------------------------------------------------------------------------------------


def _booted(banks: tuple[str, ...] = ("sha256",)) -> tuple[Vtpm, EventLog]:
    log = EventLog(banks)
    log.locality(3)
    for register in (0, 4, 7, 9):
        log.measure(register, b"event of %d" % register)
    tpm = Vtpm(MAKER, banks=banks)
    tpm.boot(log)
    return tpm, log


def test_a_log_that_replays_to_the_quoted_registers_is_authentic() -> None:
    examined = _examine(_booted()[0].evidence())
    assert _codes(examined) == []
    assert examined.checks[-1].step == "tpm 7 event log"
    assert examined.claims["events"] == 5


@pytest.mark.parametrize("register", [0, 4, 7, 9])
def test_a_log_of_another_boot_is_refused(register: int) -> None:
    tpm, log = _booted()
    log.measure(register, b"what was not measured")
    assert _codes(_examine(tpm.evidence())) == ["event_log_mismatch"]


def test_a_log_with_an_event_left_out_is_refused() -> None:
    tpm, log = _booted()
    log.measure(4, b"measured, and then denied")
    tpm.boot(log)
    evidence = tpm.evidence()
    log.events.pop()
    assert _codes(_examine({**evidence, "event_log": log.encode()})) == ["event_log_mismatch"]


def test_a_log_that_claims_another_startup_locality_is_refused() -> None:
    tpm, log = _booted()
    del log.events[0]
    log.started_from = 0
    assert _codes(_examine(tpm.evidence())) == ["event_log_mismatch"]


def test_a_log_that_matches_in_one_bank_only_is_refused() -> None:
    tpm, log = _booted(("sha1", "sha256"))
    evidence = _banks(tpm, ("sha1", "sha256"))
    assert _codes(_examine(evidence)) == []
    log.events[1][2]["sha256"] = bytes(32)
    assert _codes(_examine({**evidence, "event_log": log.encode()})) == ["event_log_mismatch"]


def test_a_log_that_no_quoted_register_confirms_is_refused() -> None:
    tpm = _tpm()
    for log in (EventLog(("sha384",)), EventLog(("sha256",))):
        if log.banks == ("sha384",):
            log.measure(4, b"in a bank that is not quoted")
        evidence = tpm.evidence(event_log=log.encode())
        assert _codes(_examine(evidence)) == ["event_log_mismatch"]


# -- pieces ---------------------------------------------------------------------------------------


def _banks(tpm: Vtpm, banks: tuple[str, ...] = ("sha1", "sha256", "sha384")) -> dict[str, bytes]:
    evidence = tpm.evidence(quote_msg=None, quote_sig=None, pcrs=tpm.pcrs(banks))
    for bank in banks:
        evidence[f"quote_{bank}"], evidence[f"sig_{bank}"] = tpm.quote(NONCE, bank)
    return evidence


def _pair(signature: bytes) -> tuple[int, int]:
    """r and s of a TPMT_SIGNATURE on P-256."""
    r, s = int.from_bytes(signature[6:38], "big"), int.from_bytes(signature[40:72], "big")
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    return r, s


def test_the_policys_root_is_not_called_a_simulators() -> None:
    assert SCHEME.trust == "vtpm"
    assert Anchors(MAKER.anchors.pins).simulated is False
    assert SCHEME.needs(_tpm().evidence()) == ()
