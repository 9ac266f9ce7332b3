"""Kinds as a whole, at the limits of their rules, and until when what they found holds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from simulators.amd import Amd
from simulators.intel import NOW, Intel
from simulators.intel_parts import DAY, stamp

from attestation.examined import Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import corim, ear, nitro, snp, tdx, tpm_quote
from wire.errors import PolicyError

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
