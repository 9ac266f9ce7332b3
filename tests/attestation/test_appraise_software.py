"""Each test changes exactly one fact of an honest worker, its evidence or the policy."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.tee import NOW, SoftwareTee, refused

from attestation.binding import Beacon, Kem, Model
from attestation.evidence import Evidence
from attestation.result import AppraisedEvidence, Refused
from wire.ids import b64u, sha256_tag
from wire.suites import HYBRID, X25519

OTHER = sha256_tag(b"something else")


@pytest.fixture
def tee() -> SoftwareTee:
    return SoftwareTee()


def test_honest_software_evidence_is_accepted_and_named_software(tee: SoftwareTee) -> None:
    verdict = tee.appraise()
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.trust == "software"
    assert verdict.kind == "software"
    assert verdict.measurement == tee.measurement()
    assert verdict.binding.raw == tee.binding()
    assert verdict.bh == verdict.binding.bh
    assert verdict.expires == NOW + 3600
    assert verdict.posture is not None
    assert verdict.posture.fields["seccomp"].state == "applied"
    assert all(check.ok is True for check in verdict.checks)
    steps = [int(check.step.split()[0]) for check in verdict.checks]
    assert steps == [*range(12), 15, 17, 18, 19, 20, 21, 22]  # 12-14 and 16 are the TPM's


def test_verdict_ends_with_the_policy_when_that_is_sooner(tee: SoftwareTee) -> None:
    tee.demands["expires"] = NOW + 60
    verdict = tee.appraise()
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.expires == NOW + 60


# ---------------------------------------------------------------- step 0


def test_step_0_refuses_under_an_expired_policy(tee: SoftwareTee) -> None:
    tee.demands["expires"] = NOW
    refused(tee.appraise(), "policy_expired")


def test_step_0_refuses_under_a_policy_of_the_future(tee: SoftwareTee) -> None:
    tee.demands["not_before"] = NOW + 1
    refused(tee.appraise(), "policy_not_yet_valid")


# ---------------------------------------------------------------- step 1


@pytest.mark.parametrize("raw", [b"{}", b"not json", b'{"v":1}', b"[" * 9 + b"]" * 9])
def test_step_1_refuses_what_is_no_binding(tee: SoftwareTee, raw: bytes) -> None:
    verdict = refused(tee.appraise(binding_raw=raw), "binding_malformed")
    assert verdict.checks[-1].ok is None  # the rest did not run, and says so


def test_step_1_refuses_another_role(tee: SoftwareTee) -> None:
    tee.facts["role"] = "group"
    refused(tee.appraise(), "role_not_accepted")


def test_step_1_refuses_a_version_below_the_policys(tee: SoftwareTee) -> None:
    policy = dataclasses.replace(tee.policy(), min_version=2)
    refused(tee.appraise(policy=policy), "version_not_accepted")


# ---------------------------------------------------------------- steps 2 to 4


def test_step_2_refuses_another_deployment(tee: SoftwareTee) -> None:
    tee.facts["aud"] = "another"
    verdict = refused(tee.appraise(), "audience_mismatch")
    assert verdict.reasons[0].detail == 'aud: found "another", expected "anchorhold-test"'


def test_step_3_refuses_at_the_second_of_expiry(tee: SoftwareTee) -> None:
    refused(tee.appraise(now=NOW + 3600), "binding_expired")
    assert isinstance(tee.appraise(now=NOW + 3599), AppraisedEvidence)


def test_step_3_refuses_a_binding_of_the_future_beyond_the_clock_skew(tee: SoftwareTee) -> None:
    tee.facts["nbf"] = NOW + 121
    refused(tee.appraise(), "binding_not_yet_valid")
    tee.facts["nbf"] = NOW + 120
    assert isinstance(tee.appraise(), AppraisedEvidence)


def test_step_3_refuses_a_binding_that_lives_longer_than_a_day(tee: SoftwareTee) -> None:
    tee.facts["exp"] = NOW + 24 * 3600 + 1
    tee.demands["expires"] = NOW + 48 * 3600
    refused(tee.appraise(), "binding_life_too_long")


def test_step_4_refuses_a_denied_binding(tee: SoftwareTee) -> None:
    bh = sha256_tag(tee.binding()).removeprefix("sha256:")
    tee.demands["deny"] = {"bh": [b64u(bytes.fromhex(bh))]}
    refused(tee.appraise(), "denied")


def test_step_4_refuses_a_denied_key(tee: SoftwareTee) -> None:
    tee.demands["deny"] = {"kids": [b64u(tee.kem(HYBRID).kid)]}
    refused(tee.appraise(), "denied")


def test_step_4_refuses_a_worker_when_only_its_unused_key_is_denied(tee: SoftwareTee) -> None:
    tee.facts["kems"] = [tee.kem(HYBRID), tee.kem(X25519)]
    tee.demands["deny"] = {"kids": [b64u(tee.kem(X25519).kid)]}
    refused(tee.appraise(), "denied")


def test_step_21_deny_wins_over_an_accepted_measurement(tee: SoftwareTee) -> None:
    tee.demands["deny"] = {"measurements": [tee.measurement()]}
    # Twice: the binding claims it and the evidence proves it.
    refused(tee.appraise(), "denied", "denied")


# ---------------------------------------------------------------- steps 5 to 7


def test_step_5_refuses_a_worker_without_a_hybrid_key(tee: SoftwareTee) -> None:
    tee.facts["kems"] = [tee.kem(X25519)]
    refused(tee.appraise(), "suite_not_accepted")


def test_step_5_accepts_x25519_where_the_policy_says_so(tee: SoftwareTee) -> None:
    tee.facts["kems"] = [tee.kem(X25519)]
    tee.demands["require_pq"] = False
    assert isinstance(tee.appraise(), AppraisedEvidence)


def test_step_5_refuses_a_worker_with_only_unknown_suites(tee: SoftwareTee) -> None:
    tee.facts["kems"] = [Kem("ffff-0001-0002", bytes(32))]
    tee.demands["require_pq"] = False
    refused(tee.appraise(), "suite_not_accepted")


def test_step_6_refuses_another_service_policy(tee: SoftwareTee) -> None:
    tee.facts["policy"] = OTHER
    refused(tee.appraise(), "service_policy_not_accepted")


def test_step_7_refuses_a_worker_without_an_accepted_model(tee: SoftwareTee) -> None:
    tee.facts["models"] = [Model("n", sha256_tag(b"weights"))]
    refused(tee.appraise(), "model_missing")


def test_step_7_refuses_other_weights_under_an_accepted_name(tee: SoftwareTee) -> None:
    tee.demands["models"] = [{"name": "m", "digest": OTHER}]
    refused(tee.appraise(), "model_digest_mismatch")


def test_step_7_accepts_the_named_weights(tee: SoftwareTee) -> None:
    tee.demands["models"] = [{"name": "m", "digest": sha256_tag(b"weights")}]
    assert isinstance(tee.appraise(), AppraisedEvidence)


# ---------------------------------------------------------------- step 8


def test_step_8_accepts_the_nonce_that_was_asked_for(tee: SoftwareTee) -> None:
    tee.facts["nonce"] = bytes(range(32))
    assert isinstance(tee.appraise(nonce=bytes(range(32))), AppraisedEvidence)


def test_step_8_refuses_another_nonce(tee: SoftwareTee) -> None:
    tee.facts["nonce"] = bytes(range(32))
    refused(tee.appraise(nonce=bytes(32)), "nonce_mismatch")


def test_step_8_refuses_evidence_without_the_nonce_that_was_asked_for(tee: SoftwareTee) -> None:
    refused(tee.appraise(nonce=bytes(32)), "nonce_mismatch")


def test_step_8_refuses_a_stale_beacon(tee: SoftwareTee) -> None:
    tee.facts["beacon"] = Beacon("log", 7, bytes(32))
    refused(tee.appraise(beacon_time=NOW - 601), "beacon_stale")
    assert isinstance(tee.appraise(beacon_time=NOW - 600), AppraisedEvidence)


def test_step_8_refuses_a_beacon_of_the_future(tee: SoftwareTee) -> None:
    tee.facts["beacon"] = Beacon("log", 7, bytes(32))
    refused(tee.appraise(beacon_time=NOW + 121), "beacon_stale")


def test_step_8_refuses_a_beacon_nobody_verified(tee: SoftwareTee) -> None:
    tee.facts["beacon"] = Beacon("log", 7, bytes(32))
    verdict = refused(tee.appraise(), "beacon_unverified")
    assert [check.ok for check in verdict.checks if check.step == "8 freshness"] == [None]


def test_step_8_refuses_a_missing_beacon_where_one_is_demanded(tee: SoftwareTee) -> None:
    tee.demands["freshness"] = {"require_beacon": True}
    refused(tee.appraise(), "beacon_missing")


# ---------------------------------------------------------------- step 10


def test_step_10_refuses_software_evidence_unless_the_policy_allows_it(tee: SoftwareTee) -> None:
    del tee.demands["allow_software"]
    refused(tee.appraise(), "software_not_allowed")


def test_step_10_refuses_evidence_of_a_kind_the_policy_does_not_accept(tee: SoftwareTee) -> None:
    verdict = refused(tee.appraise(evidence=[Evidence("tpm2", b"{}")]), "kind_not_accepted")
    assert verdict.checks[-1].ok is None


@pytest.mark.parametrize("kind", ["none", "", "SOFTWARE"])
def test_step_10_refuses_unknown_kinds(tee: SoftwareTee, kind: str) -> None:
    evidence = Evidence(kind, tee.evidence(tee.binding()).body)
    refused(tee.appraise(evidence=[evidence]), "kind_not_accepted")


def test_step_10_refuses_a_worker_without_evidence(tee: SoftwareTee) -> None:
    refused(tee.appraise(evidence=[]), "kind_not_accepted")


def test_step_10_refuses_two_items_of_one_kind(tee: SoftwareTee) -> None:
    item = tee.evidence(tee.binding())
    refused(tee.appraise(evidence=[item, item]), "evidence_repeated")


def test_step_10_ignores_an_item_of_an_unaccepted_kind_beside_a_good_one(tee: SoftwareTee) -> None:
    items = [Evidence("later", b"?"), tee.evidence(tee.binding())]
    verdict = tee.appraise(evidence=items)
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.trust == "software"


# ---------------------------------------------------------------- steps 11 to 20


def test_step_11_refuses_what_is_no_software_evidence(tee: SoftwareTee) -> None:
    verdict = refused(
        tee.appraise(evidence=[Evidence("software", b'{"statement":"","sig":""}')]),
        "evidence_malformed",
    )
    assert [check.ok for check in verdict.checks[-3:-1]] == [None, None]


def test_step_15_refuses_a_statement_by_another_root(tee: SoftwareTee) -> None:
    tee.signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    refused(tee.appraise(), "signature_invalid")


def test_step_15_accepts_any_root_the_rule_lists(tee: SoftwareTee) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    tee.rule["roots"].insert(0, b64u(other.public_key().public_bytes_raw()))
    assert isinstance(tee.appraise(), AppraisedEvidence)


def test_step_17_refuses_evidence_of_a_binding_with_a_swapped_key(tee: SoftwareTee) -> None:
    evidence = tee.evidence(tee.binding())
    tee.facts["kems"] = [SoftwareTee("attacker").kem(HYBRID)]
    refused(tee.appraise(evidence=[evidence]), "report_data_mismatch")


def test_step_17_refuses_evidence_of_a_binding_with_a_swapped_receipt_key(tee: SoftwareTee) -> None:
    evidence = tee.evidence(tee.binding())
    attacker = SoftwareTee("attacker")
    tee.posture_signer = attacker.sig
    tee.facts["sig_pk"] = attacker.facts["sig_pk"]
    refused(tee.appraise(evidence=[evidence]), "report_data_mismatch")


def test_step_17_refuses_zero_report_data(tee: SoftwareTee) -> None:
    tee.statement["report_data"] = bytes(64)
    refused(tee.appraise(), "report_data_mismatch")


def test_step_18_refuses_evidence_of_the_future(tee: SoftwareTee) -> None:
    tee.statement["ts"] = (NOW + 121) * 1000
    refused(tee.appraise(), "evidence_not_yet_valid")


def test_step_18_refuses_evidence_stocked_ahead_of_its_binding(tee: SoftwareTee) -> None:
    tee.statement["ts"] = (NOW - 3601) * 1000
    refused(tee.appraise(), "evidence_stale")


def test_step_19_refuses_parts_that_do_not_give_the_measurement(tee: SoftwareTee) -> None:
    tee.statement["parts"] = {**tee.parts, "model": OTHER}
    refused(tee.appraise(), "measurement_mismatch")


def test_step_20_refuses_a_binding_that_claims_another_image(tee: SoftwareTee) -> None:
    tee.facts["image"] = OTHER
    refused(tee.appraise(), "image_mismatch")


def test_step_21_refuses_a_measurement_the_policy_does_not_list(tee: SoftwareTee) -> None:
    tee.rule["measurements"] = [OTHER]
    verdict = refused(tee.appraise(), "measurement_not_accepted")
    said = verdict.reasons[0].detail
    assert said.startswith(f"measurement: found {tee.measurement()}, expected sha256:")
    assert OTHER[:23] in said


# ---------------------------------------------------------------- across steps


def test_one_rule_must_be_met_whole_not_two_by_halves(tee: SoftwareTee) -> None:
    """Right root in one rule and right measurement in another make no accepted worker."""
    other = b64u(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw())
    tee.demands["accept"] = [
        {**tee.rule, "measurements": [OTHER]},
        {**tee.rule, "roots": [other]},
    ]
    verdict = tee.appraise()
    assert isinstance(verdict, Refused)
    assert verdict.codes in {("measurement_not_accepted",), ("signature_invalid",)}


def test_any_rule_that_is_met_whole_is_enough(tee: SoftwareTee) -> None:
    tee.demands["accept"] = [{**tee.rule, "measurements": [OTHER]}, tee.rule]
    assert isinstance(tee.appraise(), AppraisedEvidence)


def test_a_refusal_names_every_failed_step_and_still_shows_the_claims(tee: SoftwareTee) -> None:
    tee.facts["aud"] = "another"
    tee.rule["measurements"] = [OTHER]
    verdict = refused(tee.appraise(), "audience_mismatch", "measurement_not_accepted")
    details = " ".join(check.detail for check in verdict.checks)
    assert tee.measurement() in details


def test_every_bit_of_the_statement_and_its_signature_counts(tee: SoftwareTee) -> None:
    from attestation.formats.software import encode_body, parse_body

    binding = tee.binding()
    honest = parse_body(tee.evidence(binding).body)
    policy, posture = tee.policy(), tee.posture()
    for target in ("raw", "sig"):
        data = getattr(honest, target)
        for at in range(len(data)):
            flipped = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            raw, sig = (flipped, honest.sig) if target == "raw" else (honest.raw, flipped)
            evidence = [Evidence("software", encode_body(raw, sig))]
            verdict = tee.appraise(
                binding_raw=binding, evidence=evidence, policy=policy, posture_raw=posture
            )
            assert isinstance(verdict, Refused), (target, at)


def test_every_byte_of_the_binding_counts(tee: SoftwareTee) -> None:
    binding = tee.binding()
    evidence, policy, posture = [tee.evidence(binding)], tee.policy(), tee.posture()
    for at in range(len(binding)):
        changed = binding[:at] + bytes([binding[at] ^ 1]) + binding[at + 1 :]
        verdict = tee.appraise(
            binding_raw=changed, evidence=evidence, policy=policy, posture_raw=posture
        )
        assert isinstance(verdict, Refused), at
