"""Kinds as a whole, at the limits of their rules, and until when what they found holds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.amd import Amd
from simulators.event_log import EventLog
from simulators.hcl import Paravisor, td_report
from simulators.intel import NOW, Intel
from simulators.intel_parts import DAY, stamp
from simulators.vtpm import NONCE

from attestation.examined import FOREVER, Expected, Question
from attestation.formats.dcap_quote import parse_quote
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import azure_tdx, cc_log, corim, ear, nitro, sgx, snp, tdx, tpm_quote
from wire.errors import PolicyError

if TYPE_CHECKING:
    from attestation.scheme import Scheme

MEASUREMENT = hashlib.sha384(b"mr_td").digest()


def judged(intel: Intel, now: int = NOW, **demands: Any) -> list[str]:
    required, optional = tdx.SCHEME.rule_keys
    least = {"tcb": {"statuses": ["UpToDate"]}, "image": "any"}
    members = Members(
        {**least, **demands}, "rule", required=required, optional=optional, error=PolicyError
    )
    examined = tdx.examine(intel.question())
    assert examined.authentic is True, examined.reasons
    ledger = Ledger()
    tdx.SCHEME.judge(ledger, examined.facts, tdx.SCHEME.rule(members), now)
    return [reason.code for reason in ledger.reasons]


@pytest.mark.parametrize("which", ["root", "platform_ca", "pck", "tcb_signer"])
@pytest.mark.parametrize("collateral", [True, False], ids=["with", "without"])
def test_a_quote_holds_until_the_first_of_its_certificates_ends(
    which: str, collateral: bool
) -> None:
    intel = Intel()
    getattr(intel, which).end = 7 * DAY
    question = intel.question()
    if not collateral:
        question = replace(question, collateral={})
    found = tdx.examine(question)
    if collateral or which != "tcb_signer":
        assert found.not_after == intel.now + 7 * DAY


@pytest.mark.parametrize("statement", ["tcb_info", "qe_identity"])
def test_a_quote_holds_until_the_first_statement_ends(statement: str) -> None:
    intel = Intel()
    getattr(intel, statement)["nextUpdate"] = stamp(intel.now + 3 * DAY)
    assert tdx.examine(intel.question()).not_after == intel.now + 3 * DAY


def test_a_quote_holds_until_the_first_list_ends() -> None:
    intel = Intel()
    intel.crl_window = (-DAY, 2 * DAY)
    assert tdx.examine(intel.question()).not_after == intel.now + 2 * DAY


def test_a_measurement_may_hold_a_zero_byte_and_not_be_all_zero() -> None:
    intel = Intel()
    intel.body["mr_td"] = b"\0" + MEASUREMENT[1:]
    assert judged(intel) == []
    intel.body["mr_td"] = bytes(48)
    assert judged(intel) == ["measurement_zero"]


def test_grace_begins_in_the_second_in_which_the_newer_level_is_published() -> None:
    intel = Intel()
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)  # the module alone is old
    outdated = tdx.examine(intel.question()).facts.tcb.outdated_since
    demands = {"tcb": {"statuses": ["UpToDate"], "grace_days": 1}}
    assert judged(intel, outdated, **demands) == []
    assert judged(intel, outdated + DAY - 1, **demands) == []
    assert judged(intel, outdated + DAY, **demands) == ["tcb_out_of_date"]
    assert judged(intel, outdated - 1, **demands) == ["tcb_out_of_date"]


@pytest.mark.parametrize(
    ("scheme", "role"),
    [
        (snp.SCHEME, "report"),
        (nitro.SCHEME, "document"),
        (tdx.SCHEME, "quote"),
        (ear.SCHEME, "token"),
        (corim.SCHEME, "corim"),
        (tpm_quote.SCHEME, "message"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_steps_after_evidence_that_does_not_parse_are_told_as_not_run(
    scheme: Any, role: str
) -> None:
    amd = Amd("Genoa")
    found = scheme.examine(Question(evidence={role: b"no evidence"}, anchors=amd.anchors, now=NOW))
    assert found.authentic is False
    assert [check.ok for check in found.checks].count(False) >= 1
    assert None in [check.ok for check in found.checks]


def asked_of_a_vm(intel: Intel) -> Question:
    def report(report_data: bytes) -> bytes:
        intel.body["report_data"] = report_data
        return td_report(report_data, intel.body["mr_td"])

    roles = Paravisor(report).evidence(NONCE, kind=4)
    return Question(
        evidence={**roles, "td_quote": intel.quote()},
        anchors=intel.anchors(),
        now=intel.now,
        collateral={"collateral": intel.collateral()},
        expected=Expected(nonce=NONCE),
    )


def test_evidence_of_a_vm_is_bound_only_if_it_was_asked_to_be_and_is_genuine() -> None:
    honest = asked_of_a_vm(Intel())
    asked = azure_tdx.examine(honest)
    assert (asked.authentic, asked.bound) == (True, True)
    unasked = azure_tdx.examine(replace(honest, expected=Expected()))
    assert (unasked.authentic, unasked.bound) == (True, False)
    forged = azure_tdx.examine(replace(honest, anchors=Intel().anchors()))
    assert (forged.authentic, forged.bound) == (False, False)


PUBLISHED = 1_731_456_000  # 2024-11-13, the newest levels


def with_grace(scheme: Scheme, facts: Any, **demands: Any) -> tuple[int | None, Ledger]:
    required, optional = scheme.rule_keys
    least = {"tcb": {"grace_days": 10}, **demands}
    members = Members(least, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    return scheme.judge(ledger, facts, scheme.rule(members), PUBLISHED), ledger


def test_a_judgement_of_an_enclave_ends_with_the_grace_that_it_rests_on() -> None:
    intel = Intel("sgx")
    intel.components, intel.pcesvn = [3, 3, *intel.components[2:]], 11
    del intel.tcb_info["tcbLevels"][1]["advisoryIDs"]
    facts = sgx.examine(intel.question()).facts
    end, ledger = with_grace(sgx.SCHEME, facts, enclave="any")
    assert (end, ledger.accepted) == (PUBLISHED + 10 * DAY, True)


def test_a_judgement_of_a_vm_ends_with_the_grace_that_it_rests_on() -> None:
    intel = Intel()
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)
    facts = azure_tdx.examine(asked_of_a_vm(intel)).facts
    end, ledger = with_grace(azure_tdx.SCHEME, facts, image="any", pcrs={})
    assert (end, ledger.accepted) == (PUBLISHED + 10 * DAY, True)


@pytest.mark.parametrize("which", ["root", "platform_ca", "pck"])
def test_a_chain_without_collateral_holds_until_its_first_certificate_ends(which: str) -> None:
    intel = Intel()
    getattr(intel, which).end = 5 * DAY
    ledger, question = Ledger(), intel.question()
    quote = parse_quote(question.evidence["quote"])
    end = tdx.run_alone(ledger, "alone", quote, question, intel.now)
    assert (end, ledger.accepted) == (intel.now + 5 * DAY, True)
    elsewhere = replace(question, anchors=Intel().anchors())
    assert tdx.run_alone(ledger, "alone", quote, elsewhere, intel.now) == FOREVER
    assert not ledger.accepted


def test_a_log_behind_a_quote_holds_until_the_first_certificate_ends_if_a_time_is_asked() -> None:
    intel, log = Intel(), EventLog.cc()
    intel.pck.end = 5 * DAY
    for register in (1, 2, 3, 4):
        log.measure(register, b"event")
    for register, value in log.registers("sha384").items():
        intel.body[f"rt_mr{register - 1}"] = value
    evidence = {"quote": intel.quote(), "event_log": log.encode()}
    asked = Question(evidence=evidence, anchors=intel.anchors(), now=intel.now)
    found = cc_log.examine(asked)
    assert (found.authentic, found.not_after) == (True, intel.now + 5 * DAY)
    assert cc_log.examine(replace(asked, now=0)).not_after == FOREVER
