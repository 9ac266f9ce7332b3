"""A bundle is verified offline: whole, or with the failing check named and the right exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.bundles import HONEST, bundled, failed, judged, not_run, policy
from simulators.exchange import MEASUREMENT, NOW, Exchange, key, public, random
from simulators.log import SimulatedLog, flip, flip_leaf, flip_proof

from attestation.policy import parse_policy
from evidence.archive import parse_bundle
from evidence.report import AuditCheck, ExitCode, Report
from wire.errors import AnchorholdError, MalformedError
from wire.ids import b64u, sha256_tag

if TYPE_CHECKING:
    from evidence.entry import Logged


def test_an_honest_bundle_verifies_and_every_check_ran() -> None:
    report = judged(bundled())
    assert [check for check in report.checks if check.ok is not True] == []
    assert report.exit_code == ExitCode.OK == 0
    names = [check.id for check in report.checks if not check.id.startswith("evidence.")]
    assert names == [
        "format",
        "statement",
        "binding",
        "names",
        "signature",
        "time",
        "beacon",
        "attestation",
        "event",
        "checkpoint",
        "inclusion",
        "verdict",
        "one_history",
        "policy",
    ]
    assert sum(check.id.startswith("evidence.") for check in report.checks) >= 15


def test_every_check_names_the_bytes_it_relied_on() -> None:
    for check in judged(bundled()).checks:
        if not check.id.startswith("evidence.") and check.id != "policy":
            assert check.relied_on, check.id
            assert all("sha256:" in item for item in check.relied_on)


def test_years_later_the_same_bundle_still_verifies_under_a_policy_in_force() -> None:
    later = NOW + 3 * 365 * 86_400
    renewed = policy(not_before=later - 10, expires=later + 10)
    assert judged(bundled(), renewed, later).exit_code == ExitCode.OK


def test_software_trust_is_named_first_and_last() -> None:
    report = judged(bundled())
    assert report.trust == "software"
    lines = report.lines()
    assert "SOFTWARE TRUST" in lines[0]
    assert "SOFTWARE TRUST" in lines[-1]
    assert "SOFTWARE TRUST" in report.to_json()["warning"]


def test_software_trust_is_below_a_policy_that_does_not_allow_it() -> None:
    report = judged(bundled(), policy(allow_software=False))
    assert report.exit_code == ExitCode.BELOW_POLICY == 3
    assert failed(report) == {"evidence.10 kind"}
    assert report.trust is None
    assert "claims: software" in (report.warning or "")


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"expires": NOW}, "policy"),
        ({"not_before": NOW + 1, "expires": NOW + 9}, "policy"),
        ({"aud": "other"}, "evidence.2 audience"),
        ({"require_pq": True}, "evidence.5 suites"),
        ({"service_policies": ["sha256:" + "0" * 64]}, "evidence.6 service policy"),
        ({"models": [{"name": "other"}]}, "evidence.7 models"),
        ({"models": [{"name": "tiny", "digest": MEASUREMENT}]}, "evidence.7 models"),
        ({"deny": {"bh": [b64u(HONEST.bh)]}}, "evidence.4 deny list"),
        ({"deny": {"measurements": [MEASUREMENT]}}, "evidence.21 measurement"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_genuine_but_not_what_the_policy_wants_is_below_policy(
    changes: dict[str, Any], check: str
) -> None:
    report = judged(bundled(), policy(**changes))
    assert check in failed(report)
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_development_root_the_policy_does_not_know_is_invalid() -> None:
    rule = {"kind": "software", "roots": [b64u(public(key("stranger")))]}
    report = judged(bundled(), policy(accept=[rule | {"measurements": [MEASUREMENT]}]))
    assert "evidence.15 signature" in failed(report)
    assert report.exit_code == ExitCode.INVALID


# ---------------------------------------------------------------- damaged bundles


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"format":"anchorhold-receipt/2"}',
        bundled()[:-1],
        bundled() + b"\n}",
        bundled().replace(b'"posture":null', b'"posture":1'),
        bundled().replace(b'"posture":null', b'"posture":null,"posture":null'),
        bundled().replace(b'"info":{', b'"extra":1,"info":{'),
        b" " * 2_000_000,
        b"[" * 100_000,
    ],
    ids=range(12),
)
def test_what_is_not_a_bundle_is_unreadable(raw: bytes) -> None:
    report = judged(raw)
    assert report.exit_code == ExitCode.UNREADABLE == 4
    assert failed(report) == {"format"}
    assert report.lines()[-1].startswith("UNREADABLE")


@given(st.integers(0, 8 * len(bundled()) - 1))
@settings(max_examples=300, deadline=None)
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    raw = flip(bundled(), bit)
    try:
        if replace(parse_bundle(raw), info={}) == replace(parse_bundle(bundled()), info={}):
            return  # notes for people, which nothing believes
    except AnchorholdError:
        assert judged(raw).exit_code == ExitCode.UNREADABLE
        return
    assert judged(raw).exit_code in (ExitCode.INVALID, ExitCode.BELOW_POLICY)


LOGGED, VERDICT, EVIDENCE = HONEST.logged, HONEST.verdict, HONEST.evidence


@pytest.mark.parametrize(
    ("changes", "checks"),
    [
        ({"logged": flip_leaf(LOGGED, 600)}, {"event", "inclusion"}),
        ({"logged": flip_proof(LOGGED)}, {"inclusion"}),
        ({"logged": replace(LOGGED, index=0)}, {"inclusion", "verdict"}),
        ({"logged": replace(LOGGED, blind=flip(LOGGED.blind))}, {"event"}),
        ({"logged": replace(LOGGED, event=flip(LOGGED.event, 803))}, {"event"}),
        ({"logged": replace(LOGGED, checkpoint=VERDICT.checkpoint.upper())}, {"checkpoint"}),
        ({"verdict": flip_leaf(VERDICT, 600)}, {"verdict"}),
        ({"verdict": flip_proof(VERDICT)}, {"verdict"}),
        ({"verdict": LOGGED}, {"verdict"}),
        ({"evidence": [replace(EVIDENCE, body=EVIDENCE.body[:-1])]}, {"evidence.11 format"}),
    ],
    ids=range(10),
)
def test_a_damaged_part_fails_its_own_check(changes: dict[str, Any], checks: set[str]) -> None:
    report = judged(bundled(**changes))
    assert checks <= failed(report)
    assert report.exit_code == ExitCode.INVALID
    assert report.lines()[-2].startswith("INVALID") or report.lines()[-1].startswith("INVALID")


def test_a_flipped_statement_or_blind_is_invalid() -> None:
    for record in (
        replace(HONEST.record, statement=flip(HONEST.statement, 8 * len(HONEST.statement) - 1)),
        replace(HONEST.record, blind=flip(HONEST.blind)),
    ):
        assert judged(bundled(record=record)).exit_code == ExitCode.INVALID


def test_the_binding_of_another_worker_is_invalid() -> None:
    other = Exchange(sig=key("other worker"), binding_changes={"wid": "w2"})
    report = judged(bundled(binding=other.binding, evidence=[other.evidence]))
    assert {"names", "signature", "attestation"} <= failed(report)
    assert report.exit_code == ExitCode.INVALID


def test_evidence_for_another_binding_is_invalid() -> None:
    other = Exchange(binding_changes={"epoch": 1})
    report = judged(bundled(evidence=[other.evidence]))
    assert {"evidence.17 binding named", "attestation"} <= failed(report)
    assert report.exit_code == ExitCode.INVALID


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"wid": "w2"}, "names"),
        ({"boot": bytes(16)}, "names"),
        ({"kid": bytes(32)}, "names"),
        ({"service_policy": sha256_tag(b"other")}, "names"),
        ({"model_digest": sha256_tag(b"other")}, "names"),
        ({"model": "other"}, "names"),
        ({"bh": bytes(32)}, "names"),
        ({"t0": (NOW - 900) * 1000}, "time"),
        ({"t1": (NOW + 9000) * 1000}, "time"),
        ({"att_evidence": sha256_tag(b"other")}, "attestation"),
        ({"measurement": sha256_tag(b"other")}, "attestation"),
        ({"trust": "hardware"}, "attestation"),
        ({"att_type": "tpm2"}, "attestation"),
    ],
    ids=str,
)
def test_a_worker_that_signs_a_wrong_fact_is_caught(changes: dict[str, Any], check: str) -> None:
    exchange = Exchange(changes=changes)
    report = judged(bundled(exchange), exchange.policy)
    assert check in failed(report)
    assert report.exit_code == ExitCode.INVALID


def test_an_answer_under_a_key_in_its_grace_period_still_verifies() -> None:
    late = {"t0": (NOW + 3310) * 1000, "t1": (NOW + 3320) * 1000}
    exchange = Exchange(changes=late)
    assert judged(bundled(exchange), exchange.policy).exit_code == ExitCode.OK


def test_a_receipt_of_another_log_is_invalid() -> None:
    other = SimulatedLog(seed=b"other")
    pinned = policy(log={"origin": other.origin, "vkeys": [other.vkey]})
    report = judged(bundled(), pinned)
    assert {"checkpoint", "verdict"} <= failed(report)
    assert {"inclusion", "one_history"} <= not_run(report)
    assert report.exit_code == ExitCode.INVALID


# ---------------------------------------------------------------- what did not run is no pass


def test_a_policy_without_a_log_leaves_the_log_unchecked_and_below_policy() -> None:
    document = json.loads(HONEST.policy_raw)
    del document["log"]
    report = judged(bundled(), parse_policy(json.dumps(document).encode()))
    assert not_run(report) == {"checkpoint", "inclusion", "verdict", "one_history"}
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_missing_verdict_is_not_run_and_below_policy() -> None:
    report = judged(bundled(verdict=None))
    assert not_run(report) == {"verdict", "one_history"}
    assert failed(report) == set()
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_negative_verdict_is_invalid() -> None:
    log = SimulatedLog()
    bad = log.append("attest.verdict", HONEST._verdict() | {"ok": False})
    exchange = Exchange(log=log)
    report = judged(bundled(exchange, verdict=exchange.log.entry(bad.index)))
    assert "verdict" in failed(report)


def test_a_verdict_after_the_receipt_is_invalid() -> None:
    exchange = Exchange()
    late = exchange.log.append("attest.verdict", exchange._verdict())
    proof = exchange.log.consistency(exchange.logged.index + 1, exchange.log.size)
    report = judged(bundled(exchange, verdict=late, consistency=proof))
    assert "verdict" in failed(report)


def later_head() -> tuple[Exchange, Logged, tuple[bytes, ...]]:
    """An exchange whose verdict is proved under a later head, with the proof between the heads."""
    exchange = Exchange()
    exchange.log.append("test.event", {})
    verdict = exchange.log.entry(exchange.verdict.index)
    return exchange, verdict, exchange.log.consistency(2, 3)


def test_two_heads_need_a_consistency_proof() -> None:
    exchange, verdict, proof = later_head()
    assert judged(bundled(exchange, verdict=verdict, consistency=proof)).exit_code == ExitCode.OK
    report = judged(bundled(exchange, verdict=verdict))
    assert not_run(report) == {"one_history"}
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_wrong_consistency_proof_is_invalid() -> None:
    exchange, verdict, proof = later_head()
    report = judged(bundled(exchange, verdict=verdict, consistency=[flip(proof[0])]))
    assert failed(report) == {"one_history"}
    assert report.exit_code == ExitCode.INVALID


def test_two_heads_of_a_fork_are_invalid() -> None:
    exchange = Exchange()
    exchange.log.append("test.event", {})
    fork = exchange.log.forked(1)
    verdict = fork.entry(0, 2)
    assert verdict.checkpoint != exchange.logged.checkpoint
    report = judged(bundled(exchange, verdict=verdict))
    assert failed(report) == {"one_history"}
    assert report.exit_code == ExitCode.INVALID


def test_a_report_with_a_check_that_did_not_run_is_never_ok() -> None:
    for checks in (
        (AuditCheck("a", None, ""),),
        (AuditCheck("a", True, ""), AuditCheck("b", None, "")),
    ):
        assert Report(checks, "hardware", {}).exit_code == ExitCode.BELOW_POLICY


def test_hardware_trust_needs_no_warning() -> None:
    assert Report((AuditCheck("a", True, ""),), "hardware", {}).warning is None


def test_the_json_report_lists_every_check() -> None:
    report = judged(bundled())
    document = json.loads(json.dumps(report.to_json()))
    assert document["exit_code"] == 0
    assert [item["id"] for item in document["checks"]] == [check.id for check in report.checks]
    assert document["claims"]["rid"] == b64u(HONEST.claims.rid)


def test_a_bundle_holds_neither_prompt_nor_answer_nor_salt() -> None:
    raw = bundled()
    for secret in (b"What is an anchor", b"Something heavy", random("salt q"), random("salt r")):
        assert secret not in raw
        assert b64u(secret)[:-2].encode() not in raw


def test_a_writer_cannot_make_a_bundle_no_reader_takes() -> None:
    with pytest.raises(MalformedError):
        bundled(info={"nested": {"no": 1}})
