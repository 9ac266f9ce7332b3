"""The appraisal at its very limits, and what its account says of steps that passed or never ran."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from simulators.hardware_tee import AzureSnpTee, NitroTee, SnpTee, TdxTee
from simulators.tee import AUD, NOW, SoftwareTee
from simulators.tpm import TpmTee
from simulators.verdicts import accepted, refused_for, rejected

from attestation.binding import BINDING_LIFE_MAX_S, Beacon
from attestation.binding_steps import policy_window
from attestation.evidence import Evidence
from attestation.posture import Control, Posture, encode_posture, parse_record
from attestation.verify.jwt import check_audience, check_nonce
from wire.canonical import encode, parse_evj1
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from simulators.tee import Tee

    from attestation.result import AppraisedEvidence, Refused


def told(verdict: AppraisedEvidence | Refused, step: str) -> list[tuple[bool | None, str]]:
    return [(check.ok, check.detail) for check in verdict.checks if check.step == step]


# ---- limits


def test_a_policy_holds_from_its_first_second_to_before_its_last() -> None:
    policy = replace(SoftwareTee().policy(), not_before=NOW, expires=NOW + 10)
    for now in (NOW, NOW + 9):
        assert policy_window(policy, now) == f"{policy.id} number {policy.seq}"
    for now, code in ((NOW - 1, "policy_not_yet_valid"), (NOW + 10, "policy_expired")):
        with pytest.raises(AttestationError) as caught:
            policy_window(policy, now)
        assert caught.value.reasons == (code,)


def test_a_beacon_may_be_as_far_ahead_as_clocks_differ() -> None:
    tee = SoftwareTee()
    tee.facts["beacon"] = Beacon("log", 7, bytes(32))
    accepted(tee.appraise(beacon_time=NOW + 120))


def test_the_time_of_a_beacon_that_the_binding_does_not_name_is_of_no_use() -> None:
    accepted(SoftwareTee().appraise(beacon_time=NOW))


def test_a_statement_of_the_second_in_which_its_binding_ends_is_too_late() -> None:
    tee = SoftwareTee()
    tee.facts["exp"] = NOW + 60
    tee.statement["ts"] = (NOW + 59) * 1000
    accepted(tee.appraise())
    tee.statement["ts"] = (NOW + 60) * 1000
    refused_for(tee.appraise(), "evidence_stale")


def test_a_statement_may_be_exactly_as_old_and_as_new_as_its_binding_allows() -> None:
    tee = SoftwareTee()
    nbf, exp = tee.facts["nbf"], tee.facts["exp"]
    for made in (nbf - 3600, NOW + 120):
        assert made < exp
        tee.statement["ts"] = made * 1000
        accepted(tee.appraise())
    tee.statement["ts"] = (nbf - 3601) * 1000
    refused_for(tee.appraise(), "evidence_stale")


def test_a_posture_record_has_at_most_64_controls() -> None:
    fields = {f"c{number}": Control("applied") for number in range(64)}
    assert len(parse_record(encode_posture(Posture(bytes(16), fields))).fields) == 64
    fields["one_more"] = Control("applied")
    with pytest.raises(MalformedError):
        parse_record(encode_posture(Posture(bytes(16), fields)))


@pytest.mark.parametrize("version", [0, 2])
def test_a_posture_record_of_another_version_is_refused(version: int) -> None:
    record = parse_evj1(encode_posture(Posture(bytes(16), {})), 1000)
    assert record["v"] == 1
    with pytest.raises(MalformedError):
        parse_record(encode({**record, "v": version}))


def test_the_age_of_evidence_counts_to_the_start_of_its_binding_and_a_clocks_difference() -> None:
    tee = NitroTee()
    tee.rule["max_age_s"] = 119
    later = tee.facts["nbf"] + 1000
    assert later < tee.facts["exp"]
    refused_for(tee.appraise(now=later), "evidence_stale")
    tee.rule["max_age_s"] = 120
    accepted(tee.appraise(now=later))


# ---- the account


def test_the_account_names_what_each_step_relied_on() -> None:
    verdict = accepted(SoftwareTee().appraise())
    assert told(verdict, "5 suites") == [(True, "647a-0001-0002")]
    assert told(verdict, "7 models") == [(True, "m")]


@pytest.mark.parametrize("make", [SoftwareTee, TpmTee, SnpTee, TdxTee, NitroTee, AzureSnpTee])
def test_no_step_that_passed_is_silent(make: type[Tee]) -> None:
    assert [check.step for check in accepted(make().appraise()).checks if not check.detail] == []


@pytest.mark.parametrize("make", [SnpTee, NitroTee])
def test_steps_after_hardware_evidence_that_does_not_parse_are_told_as_not_run(
    make: type[SnpTee] | type[NitroTee],
) -> None:
    tee = make()
    (honest,) = tee.presented(tee.binding())
    role = "report" if make is SnpTee else "document"
    assert role in honest.body.decode()
    broken = Evidence(honest.kind, b'{"%s":"AAAA","parts":{}}' % role.encode())
    verdict = rejected(tee.appraise(evidence=[broken]))
    steps = [check.step for check in verdict.checks if check.ok is None]
    assert any(step.startswith(("12", "17")) for step in steps)


def test_the_endorsement_key_is_told_as_not_compared_where_no_certificate_holds() -> None:
    tee = TpmTee()
    tee.rule["roots"] = TpmTee().rule["roots"]
    tee.endorsement["end"] = -60
    verdict = rejected(tee.appraise())
    assert told(verdict, "13 endorsement key")[0][0] is None


def test_steps_after_a_statement_or_quote_that_does_not_parse_are_told_as_not_run() -> None:
    software, tpm = SoftwareTee(), TpmTee()
    for verdict in (
        software.appraise(evidence=[Evidence(software.kind, b"{}")]),
        tpm.appraise(evidence=[Evidence(tpm.kind, b"{}")], activation=None),
    ):
        assert told(rejected(verdict), "12-19") == [(None, "not run: the evidence does not parse")]


def test_a_binding_may_live_as_long_as_any_may() -> None:
    tee = SoftwareTee()
    tee.facts["exp"] = tee.facts["nbf"] + BINDING_LIFE_MAX_S
    accepted(tee.appraise())
    tee.facts["exp"] += 1
    refused_for(tee.appraise(), "binding_life_too_long")


def test_the_audience_that_a_token_is_for_is_told() -> None:
    assert check_audience({"aud": [AUD, "other"]}, AUD) == AUD


def test_two_equal_nonces_are_not_one() -> None:
    nonce = bytes(range(32))
    check_nonce([nonce.hex()], nonce)
    for found in ([nonce.hex()] * 2, [nonce.hex(), "other"], ["other", nonce.hex()]):
        with pytest.raises(AttestationError) as caught:
            check_nonce(found, nonce)
        assert caught.value.reasons == ("nonce_mismatch",)
