"""Our own result token: default deny, never better than what stands behind it, and a round trip."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from simulators.tee import SoftwareTee, refused
from simulators.tpm import TpmTee

from attestation.ear import (
    AFFIRMING,
    FAILING,
    LIFE_MAX_S,
    REASONS_MAX,
    SUBMOD,
    Verifier,
    accepted_vector,
    ear_claims,
    refused_vector,
    status_of,
)
from attestation.ear_token import result_key_set, sign_result, verify_result
from attestation.formats.ear import VECTOR, parse_result, tier
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.result import _APPRAISER, AppraisedEvidence, Check, Reason, Refused, Trust
from attestation.schemes.ear import SCHEME
from wire.errors import PolicyError
from wire.ids import b64u, sha256_tag

TEE = SoftwareTee()
NOW = TEE.now
POLICY = sha256_tag(b"policy")
VERIFIER = Verifier("https://verifier.example", "anchorhold 1")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = result_key_set({"result-1": KEY.public_key()})
TRUSTS: tuple[Trust, ...] = ("hardware", "vtpm", "simulated", "software")
HARDWARE_KINDS = ("intel-tdx-quote", "amd-sev-snp-report", "azure-vtpm-snp", "aws-nitro-document")


def accepted(tee: SoftwareTee | TpmTee = TEE) -> AppraisedEvidence:
    verdict = tee.appraise()
    assert isinstance(verdict, AppraisedEvidence)
    return verdict


def like(verdict: AppraisedEvidence, **changes: Any) -> AppraisedEvidence:
    """A verdict as `appraise` would give it on hardware this machine has not."""
    members = {member.name: getattr(verdict, member.name) for member in fields(verdict)}
    return AppraisedEvidence(**{**members, **changes}, token=_APPRAISER)


def made(verdict: AppraisedEvidence | Refused, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"verifier": VERIFIER, "policy": POLICY, "now": NOW, "life_s": 300}
    return ear_claims(verdict, **{**facts, **changes})


def appraisal(verdict: AppraisedEvidence | Refused, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = made(verdict, **changes)["submods"][SUBMOD]
    return found


def test_every_claim_starts_at_failing_and_none_is_forgotten() -> None:
    assert tuple(FAILING) == VECTOR
    assert all(tier(value) != "affirming" for value in FAILING.values())
    assert status_of(FAILING) == "contraindicated"
    assert refused_vector(()) == FAILING


@pytest.mark.parametrize("trust", ["simulated", "software"])
@pytest.mark.parametrize("kind", [*HARDWARE_KINDS, "software", "tpm2"])
def test_trust_without_hardware_never_affirms_anything_about_hardware(
    trust: Trust, kind: str
) -> None:
    vector = accepted_vector(trust, kind, posture=True)
    affirmed = [name for name, value in vector.items() if tier(value) == "affirming"]
    assert affirmed == ["configuration"]
    assert status_of(vector) == "contraindicated"


@pytest.mark.parametrize(
    ("kind", "memory", "status"),
    [
        ("intel-tdx-quote", 2, "affirming"),
        ("amd-sev-snp-report", 2, "affirming"),
        ("azure-vtpm-tdx", 2, "affirming"),
        ("aws-nitro-document", 32, "warning"),
        ("a-later-kind", 96, "contraindicated"),
    ],
)
def test_hardware_affirms_what_its_kind_proves(kind: str, memory: int, status: str) -> None:
    vector = accepted_vector("hardware", kind, posture=True)
    for name in ("instance-identity", "configuration", "executables", "file-system", "hardware"):
        assert vector[name] == AFFIRMING
    assert vector["runtime-opaque"] == memory
    assert vector["storage-opaque"] == vector["sourced-data"] == 0
    assert status_of(vector) == status


def test_a_tpm_affirms_what_was_measured_and_no_machine() -> None:
    """Which machine it is in, nobody says: its key may be one that a policy lists."""
    vector = accepted_vector("vtpm", "tpm2-quote", posture=True)
    affirmed = {name for name, value in vector.items() if tier(value) == "affirming"}
    assert affirmed == {"configuration", "executables", "file-system"}
    for name in ("instance-identity", "hardware", "runtime-opaque"):
        assert vector[name] == FAILING[name]
    assert status_of(vector) == "contraindicated"


def test_only_hardware_is_named_as_a_device() -> None:
    verdict = like(accepted(), kind="tpm2-quote", trust="hardware", identities=("key:00",))
    assert "ueid" in made(verdict)
    for trust in ("vtpm", "simulated", "software"):
        assert "ueid" not in made(like(verdict, trust=trust))


def test_where_the_policy_demands_no_control_the_configuration_is_not_claimed() -> None:
    vector = accepted_vector("hardware", "intel-tdx-quote", posture=False)
    assert vector["configuration"] == 0
    assert status_of(vector) == "affirming"


@pytest.mark.parametrize(("demanded", "claimed"), [({}, 0), ({"seccomp": "applied"}, AFFIRMING)])
def test_only_a_posture_that_was_appraised_is_claimed(
    demanded: dict[str, str], claimed: int
) -> None:
    tee = SoftwareTee()
    tee.rule["posture"] = demanded
    verdict = accepted(tee)
    assert verdict.posture is not None
    assert verdict.controls == tuple(demanded)
    assert appraisal(verdict)["ear.trustworthiness-vector"]["configuration"] == claimed


@given(st.lists(st.sampled_from(["signature_invalid", "debug_enabled", "denied", "unheard_of"])))
def test_a_refusal_lifts_no_claim_whatever_its_reasons(codes: list[str]) -> None:
    vector = refused_vector(codes)
    assert all(vector[name] >= FAILING[name] for name in VECTOR)


@pytest.mark.parametrize(
    ("code", "claim", "value"),
    [
        ("signature_invalid", "hardware", 99),
        ("untrusted_root", "instance-identity", 99),
        ("alg_none", "hardware", 99),
        ("debug_enabled", "configuration", 96),
        ("posture_below_policy", "configuration", 96),
        ("measurement_not_accepted", "executables", 96),
        ("denied", "file-system", 96),
    ],
)
def test_a_reason_says_which_claim_failed(code: str, claim: str, value: int) -> None:
    assert refused_vector([code])[claim] == value


def test_an_accepted_development_worker_is_still_contraindicated() -> None:
    found = appraisal(accepted())
    assert found["ear.status"] == "contraindicated"
    assert found["ear.trustworthiness-vector"]["hardware"] == 97
    assert found["anchorhold.trust"] == "software"


def test_a_worker_on_real_hardware_is_affirmed_with_eat_names() -> None:
    verdict = like(
        accepted(),
        trust="hardware",
        kind="amd-sev-snp-report",
        identities=("chip_id:aabb",),
        claims={"amd-sev-snp-report": {"product": "Genoa", "policy_decoded": {"debug": False}}},
    )
    claims = made(verdict, nonce=bytes(32), audience="rp")
    assert claims["submods"][SUBMOD]["ear.status"] == "affirming"
    assert claims["oemid"] == 3704
    assert claims["hwmodel"] == b64u(b"Genoa")
    assert claims["dbgstat"] == "disabled"
    assert len(claims["ueid"]) == 44
    assert claims["eat_nonce"] == b64u(bytes(32))
    assert claims["aud"] == "rp"
    assert "aabb" not in json.dumps(claims)


@pytest.mark.parametrize("said", [{}, {"policy_decoded": "x"}, {"debug": None}, {"debug": True}])
def test_debug_is_called_disabled_only_where_the_evidence_says_so(said: dict[str, Any]) -> None:
    verdict = like(accepted(), trust="hardware", kind="intel-tdx-quote", claims={"k": said})
    assert "dbgstat" not in made(verdict)
    verdict = like(verdict, claims={"intel-tdx-quote": said})
    assert "dbgstat" not in made(verdict)


@pytest.mark.parametrize("trust", ["simulated", "software"])
def test_a_worker_without_hardware_has_no_device_names(trust: Trust) -> None:
    verdict = like(accepted(), trust=trust, kind="intel-tdx-quote", identities=("chip_id:aa",))
    assert not {"ueid", "oemid", "hwmodel", "dbgstat"} & set(made(verdict))


@pytest.mark.parametrize("ok", [False, None])
def test_a_check_that_failed_or_did_not_run_lifts_nothing(ok: bool | None) -> None:
    checks = (Check("1", ok=True, detail=""), Check("2", ok=ok, detail=""))
    verdict = like(accepted(), trust="hardware", kind="intel-tdx-quote", checks=checks)
    assert appraisal(verdict)["ear.trustworthiness-vector"] == FAILING
    assert appraisal(like(verdict, checks=()))["ear.status"] == "contraindicated"


def test_the_worker_and_its_keys_are_named() -> None:
    verdict = accepted()
    found = appraisal(verdict)
    kids = {suite: b64u(kid) for suite, kid in verdict.binding.kids().items()}
    assert found["cnf"] == {"kid": next(iter(kids.values())), "anchorhold.kids": kids}
    assert found["anchorhold.measurement"] == verdict.measurement
    assert found["anchorhold.binding"] == f"sha256:{verdict.bh.hex()}"
    assert found["ear.appraisal-policy-id"] == POLICY


def test_a_refusal_names_its_reasons_and_no_key() -> None:
    worker = SoftwareTee()
    worker.facts["aud"] = "elsewhere"
    verdict = refused(worker.appraise(), "audience_mismatch")
    found = appraisal(verdict)
    assert found["ear.status"] == "contraindicated"
    assert found["anchorhold.reasons"] == ["audience_mismatch"]
    assert "cnf" not in found


def test_a_debug_refusal_says_debug_enabled() -> None:
    verdict = Refused((Reason("debug_enabled", ""),), ())
    assert made(verdict)["dbgstat"] == "enabled"


def test_a_result_never_outlives_its_verdict_nor_its_life() -> None:
    verdict = accepted()
    assert made(verdict, life_s=60)["exp"] == NOW + 60
    assert made(like(verdict, expires=NOW + 5))["exp"] == NOW + 5
    for life_s in (0, LIFE_MAX_S + 1):
        with pytest.raises(ValueError, match="life_s"):
            made(verdict, life_s=life_s)


def test_our_claims_are_a_result_others_can_parse() -> None:
    for verdict in (accepted(), Refused((Reason("denied", ""),), ())):
        found = parse_result(made(verdict))
        assert found.developer == VERIFIER.developer
        assert tuple(found.submods) == (SUBMOD,)


def judge(token: str, **demands: Any) -> list[str]:
    found = verify_result(token, KEYS, NOW)
    assert found.authentic is True
    required, optional = SCHEME.rule_keys
    document = {"keys": [found.identities[0].replace("key:", "sha256:")], **demands}
    members = Members(document, "r", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    SCHEME.judge(ledger, found.facts, SCHEME.rule(members), NOW)
    return [reason.code for reason in ledger.reasons]


def test_a_token_makes_the_round_trip_and_meets_a_rule_of_our_own() -> None:
    verdict = like(accepted(), trust="hardware", kind="intel-tdx-quote")
    claims = made(verdict, nonce=bytes(32))
    token = sign_result(claims, KEY, "result-1")
    found = verify_result(token, KEYS, NOW, bytes(32))
    assert found.authentic is True
    assert found.bound is True
    assert found.claims == claims
    assert found.not_after == NOW + 300
    assert judge(token, vector={"hardware": "affirming"}, policies=[POLICY]) == []


def test_a_development_workers_token_is_authentic_and_not_accepted() -> None:
    token = sign_result(made(accepted()), KEY, "result-1")
    assert judge(token) == ["status_not_accepted"]


def test_a_token_ends_and_no_other_key_signs_it() -> None:
    token = sign_result(made(accepted()), KEY, "result-1")
    late = verify_result(token, KEYS, NOW + 300)
    assert [reason.code for reason in late.reasons] == ["token_expired"]
    other = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
    forged = sign_result(made(accepted()), other, "result-1")
    refused_ = verify_result(forged, KEYS, NOW)
    assert [reason.code for reason in refused_.reasons] == ["signature_invalid"]
    assert verify_result("é", KEYS, NOW).authentic is False


@pytest.mark.parametrize("kid", ["", "x" * 257])
def test_a_key_without_a_name_signs_nothing(kid: str) -> None:
    with pytest.raises(ValueError, match="kid"):
        sign_result(made(accepted()), KEY, kid)


def test_a_simulated_tpm_is_no_hardware() -> None:
    found = appraisal(accepted(TpmTee()))
    assert found["anchorhold.trust"] == "simulated"
    assert found["ear.status"] == "contraindicated"


def test_a_result_lists_the_first_reasons_of_a_refusal_each_once() -> None:
    codes = [f"code_{number}" for number in range(2 * REASONS_MAX)]
    reasons = tuple(Reason(code, "") for code in ("code_0", *codes))
    appraisal = made(Refused(reasons, ()))["submods"][SUBMOD]
    assert appraisal["anchorhold.reasons"] == codes[:REASONS_MAX]
