"""Steps 9 and 22: the posture record is the bound one, and as strong as the policy demands."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.tee import SoftwareTee, refused

from attestation.posture import Control
from attestation.result import AppraisedEvidence
from wire.ids import sha256_tag

OTHER = sha256_tag(b"something else")


@pytest.fixture
def tee() -> SoftwareTee:
    return SoftwareTee()


def test_step_9_refuses_when_the_bound_posture_is_withheld(tee: SoftwareTee) -> None:
    tee.rule["posture"] = {}
    refused(tee.appraise(posture_raw=None), "posture_missing")


def test_step_9_refuses_a_posture_the_binding_does_not_name(tee: SoftwareTee) -> None:
    tee.facts["posture"] = OTHER
    refused(tee.appraise(), "posture_mismatch", "posture_missing")


def test_step_9_refuses_a_posture_beside_a_binding_that_names_none(tee: SoftwareTee) -> None:
    tee.facts["posture"] = None
    tee.rule["posture"] = {}
    refused(tee.appraise(), "posture_mismatch")


def test_step_9_refuses_a_posture_signed_by_another_key(tee: SoftwareTee) -> None:
    tee.rule["posture"] = {}
    tee.posture_signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    refused(tee.appraise(), "posture_signature_invalid")


def test_step_9_refuses_a_posture_of_another_process_start(tee: SoftwareTee) -> None:
    tee.rule["posture"] = {}
    tee.posture_boot = bytes(16)
    refused(tee.appraise(), "posture_other_boot")


def test_step_9_refuses_what_is_no_posture(tee: SoftwareTee) -> None:
    tee.rule["posture"] = {}
    refused(tee.appraise(posture_raw=b"{}"), "posture_malformed")


def test_step_22_refuses_a_missing_posture_where_one_is_demanded(tee: SoftwareTee) -> None:
    tee.facts["posture"] = None
    refused(tee.appraise(posture_raw=None), "posture_missing")


@pytest.mark.parametrize("state", ["unavailable", "refused"])
def test_step_22_refuses_a_posture_weaker_than_demanded(tee: SoftwareTee, state: str) -> None:
    tee.controls["seccomp"] = Control(state)  # type: ignore[arg-type]
    verdict = refused(tee.appraise(), "posture_below_policy")
    assert verdict.reasons[0].detail == f"posture.seccomp: found {state}, expected applied"


def test_step_22_refuses_a_control_the_record_does_not_mention(tee: SoftwareTee) -> None:
    del tee.controls["seccomp"]
    refused(tee.appraise(), "posture_below_policy")


def test_step_22_accepts_a_control_the_kernel_lacks_where_the_policy_says_so(
    tee: SoftwareTee,
) -> None:
    tee.rule["posture"] = {"memfd_secret": "unavailable"}
    assert isinstance(tee.appraise(), AppraisedEvidence)
    tee.controls["memfd_secret"] = Control("refused", errno=1)
    refused(tee.appraise(), "posture_below_policy")
