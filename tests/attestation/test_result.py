"""The verdict's types: only the appraiser makes a verified one; an unrun check is no pass."""

from __future__ import annotations

import dataclasses

import pytest
from simulators.tee import SoftwareTee

from attestation.ledger import Ledger
from attestation.result import AppraisedEvidence, Check, Reason, Refused
from wire.errors import AttestationError, MalformedError


def verdict() -> AppraisedEvidence:
    found = SoftwareTee().appraise()
    assert isinstance(found, AppraisedEvidence)
    return found


def fields(found: AppraisedEvidence) -> dict[str, object]:
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


def test_a_verdict_cannot_be_constructed_by_hand() -> None:
    with pytest.raises(TypeError, match=r"made by attestation\.appraise\.appraise only"):
        AppraisedEvidence(**fields(verdict()))  # type: ignore[arg-type]


def test_a_guessed_token_does_not_help() -> None:
    with pytest.raises(TypeError):
        AppraisedEvidence(**fields(verdict()), token=object())  # type: ignore[arg-type]


def test_a_verdict_cannot_be_raised_to_another_trust() -> None:
    found = verdict()
    with pytest.raises(TypeError):
        dataclasses.replace(found, trust="hardware")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.trust = "hardware"  # type: ignore[misc]
    assert found.trust == "software"


def test_a_verdict_is_not_subclassed_by_accident_with_another_check() -> None:
    assert getattr(AppraisedEvidence, "__final__", False)


def test_a_refusal_lists_its_codes() -> None:
    refused = Refused((Reason("a", "1"), Reason("b", "2")), ())
    assert refused.codes == ("a", "b")


def test_a_step_that_did_not_run_is_never_a_pass() -> None:
    ledger = Ledger()
    assert ledger.run("1 one", lambda: "fine")
    assert ledger.accepted
    ledger.skip("2 two", "no input")
    assert not ledger.accepted
    assert ledger.checks[-1] == Check("2 two", None, "not run: no input")


def test_an_account_without_steps_accepts_nothing() -> None:
    assert not Ledger().accepted


def test_a_failed_step_takes_its_code_from_the_failure() -> None:
    def refuse() -> str:
        raise AttestationError("no", reasons=("nonce_mismatch",))

    def malformed() -> str:
        raise MalformedError("no")

    ledger = Ledger()
    assert not ledger.run("1", refuse)
    assert not ledger.run("2", malformed, "evidence_malformed")
    assert [reason.code for reason in ledger.reasons] == ["nonce_mismatch", "evidence_malformed"]


def test_a_reason_names_its_step_even_where_two_steps_say_the_same() -> None:
    def refuse(code: str) -> str:
        raise AttestationError("on the list", reasons=(code,))

    ledger = Ledger()
    ledger.run("4 deny list", lambda: refuse("denied"))
    ledger.run("21 measurement", lambda: refuse("measurement_not_accepted"))
    ledger.missing("16 activation", "activation_missing", "on the list")
    assert {reason.step: reason.code for reason in ledger.reasons} == {
        "4 deny list": "denied",
        "21 measurement": "measurement_not_accepted",
        "16 activation": "activation_missing",
    }
    assert [check.step for check in ledger.checks] == [reason.step for reason in ledger.reasons]


def test_an_unforeseen_failure_never_looks_like_a_verdict() -> None:
    def bug() -> str:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        Ledger().run("1", bug)
