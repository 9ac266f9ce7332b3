"""TPM evidence offline: genuine as far as a file can show, and never more than that."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.claims import honest_claims, receipt_event
from simulators.exchange import Exchange, random
from simulators.log import SimulatedLog, flip
from simulators.tpm import TpmTee

from attestation.posture import Control
from evidence.bundle import build_bundle, verify_bundle
from evidence.events import (
    ATTEST_VERDICT,
    INFER_RECEIPT,
    attest_verdict_event,
)
from evidence.receipt import sign_statement
from evidence.record import ReceiptRecord
from evidence.report import ExitCode, Report
from wire.ids import bh_of, sha256_tag

if TYPE_CHECKING:
    from attestation.evidence import Evidence


@dataclass
class Answered:
    """One answered request of a worker with a simulated TPM."""

    tee: TpmTee

    def __post_init__(self) -> None:
        tee, log = self.tee, SimulatedLog()
        tee.demands["log"] = {"origin": log.origin, "vkeys": [log.vkey]}
        self.binding = tee.binding()
        self.evidence: Evidence = tee.evidence(self.binding)
        bh, digest = bh_of(self.binding), sha256_tag(self.evidence.body)
        verdict = log.append(
            ATTEST_VERDICT,
            attest_verdict_event(
                bh=bh, ok=True, kind="tpm2", evidence=[digest], policy=sha256_tag(b"policy")
            ),
        )
        facts = tee.facts
        honest = Exchange().claims
        claims = honest_claims(
            self.binding,
            self.evidence,
            rid=honest.rid,
            th=honest.th,
            kid=facts["kems"][0].kid,
            op=honest.op,
            t0=tee.now * 1000,
            t1=tee.now * 1000 + 5,
            req=honest.req,
            resp=honest.resp,
        )
        statement = sign_statement(claims, tee.sig, bh, claims.rid, facts["sig_pk"])
        body = receipt_event(claims, statement, random("blind"))
        logged = log.append(INFER_RECEIPT, body)
        self.record = ReceiptRecord(statement, random("blind"), logged)
        self.verdict = log.entry(verdict.index)

    def judged(self, **changes: Any) -> Report:
        parts: dict[str, Any] = {
            "binding": self.binding,
            "evidence": [self.evidence],
            "posture": self.tee.posture(),
            "verdict": self.verdict,
        }
        raw = build_bundle(self.record, **(parts | changes))
        return verify_bundle(raw, self.tee.policy(), self.tee.now)


def outcomes(report: Report, ok: bool | None) -> set[str]:
    return {check.id for check in report.checks if check.ok is ok}


@pytest.fixture
def answered() -> Answered:
    return Answered(TpmTee())


def test_only_the_live_activation_is_not_run_and_that_is_below_policy(answered: Answered) -> None:
    report = answered.judged()
    assert outcomes(report, False) == set()
    assert outcomes(report, None) == {"evidence.16 activation", "attestation"}
    assert report.exit_code == ExitCode.BELOW_POLICY
    [check] = [item for item in report.checks if item.id == "evidence.16 activation"]
    assert "activation_missing" in check.detail
    assert "claims: simulated" in (report.warning or "")


def test_a_forged_quote_is_invalid_not_merely_below_policy(answered: Answered) -> None:
    document = json.loads(answered.evidence.body)
    forged = replace(
        answered.evidence,
        body=answered.evidence.body.replace(
            document["sig"].encode(), (document["sig"][:-8] + "AAAAAAAA").encode()
        ),
    )
    report = answered.judged(evidence=[forged])
    assert "evidence.15 signature" in outcomes(report, False)
    assert report.exit_code == ExitCode.INVALID


def test_a_flipped_posture_is_invalid(answered: Answered) -> None:
    report = answered.judged(posture=flip(answered.tee.posture(), 400))
    assert "evidence.9 posture record" in outcomes(report, False)
    assert report.exit_code == ExitCode.INVALID


def test_a_missing_posture_is_below_policy(answered: Answered) -> None:
    report = answered.judged(posture=None)
    assert outcomes(report, False) >= {"evidence.9 posture record", "evidence.22 posture"}
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_posture_weaker_than_demanded_is_below_policy() -> None:
    tee = TpmTee()
    tee.controls["seccomp"] = Control("unavailable")
    report = Answered(tee).judged()
    assert outcomes(report, False) == {"evidence.22 posture"}
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_policy_that_refuses_simulated_tpms_is_named() -> None:
    tee = TpmTee()
    tee.demands["allow_simulated"] = False
    report = Answered(tee).judged()
    assert outcomes(report, False) == {"evidence.10 kind"}
    assert report.exit_code == ExitCode.BELOW_POLICY
