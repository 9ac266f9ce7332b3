"""`tpm2-quote`: what a policy demands of the state, and where the worker's measurement stands."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from simulators.event_log import EventLog
from simulators.vtpm import NONCE, Vtpm, VtpmMaker

from attestation.anchors import NONE
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.tpm_quote import SCHEME
from wire.errors import AttestationError, PolicyError

MAKER = VtpmMaker()
WORKER = hashlib.sha256(b"worker").digest()
ZERO = "00" * 32


def _tpm(**facts: Any) -> Vtpm:
    tpm = Vtpm(MAKER, **facts)
    tpm.measure(11, WORKER)
    return tpm


def _facts(evidence: dict[str, bytes], **changes: Any) -> Any:
    return SCHEME.examine(MAKER.question(evidence, **changes)).facts


def _rule(**demands: Any) -> Any:
    required, optional = SCHEME.rule_keys
    obj = {"pcrs": {}, "revocation": "as_supplied", **demands}
    members = Members(obj, "rule", required=required, optional=optional, error=PolicyError)
    return SCHEME.rule(members)


def _judge(facts: Any, **demands: Any) -> list[str]:
    ledger = Ledger()
    SCHEME.judge(ledger, facts, _rule(**demands), 0)
    assert ledger.accepted is (not ledger.reasons)
    return [reason.code for reason in ledger.reasons]


def test_a_quote_that_meets_every_demand_is_accepted() -> None:
    tpm = _tpm()
    value = tpm.registers["sha256"][11].hex()
    assert _judge(_facts(tpm.evidence()), pcrs={"11": [ZERO, value], "0": [ZERO]}) == []


def test_a_register_of_another_value_is_refused() -> None:
    assert _judge(_facts(_tpm().evidence()), pcrs={"11": [ZERO]}) == ["pcr_not_accepted"]


def test_a_demanded_register_that_is_not_quoted_is_refused() -> None:
    """A verifier that skipped an absent register would accept any value of it."""
    tpm = _tpm()
    message, signature = tpm.quote(NONCE, selected=(11,))
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=tpm.pcrs(selected=(11,)))
    assert _judge(_facts(evidence), pcrs={"4": [ZERO]}) == ["pcr_selection"]


@pytest.mark.parametrize("register", ["16", "23", "24", "-1", "011", "x"])
def test_a_register_that_proves_nothing_cannot_be_demanded(register: str) -> None:
    with pytest.raises(PolicyError):
        _rule(pcrs={register: [ZERO]})


def test_sha1_cannot_be_demanded_and_satisfies_no_demand() -> None:
    with pytest.raises(PolicyError):
        _rule(bank="sha1")
    tpm = _tpm(banks=("sha1", "sha256"))
    message, signature = tpm.quote(NONCE, "sha1")
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=tpm.pcrs(("sha1",)))
    examined = SCHEME.examine(MAKER.question(evidence))
    assert examined.authentic is True
    assert _judge(examined.facts) == ["bank_not_accepted"]
    assert _carries(examined.facts) == "pcr_selection"


def test_a_bank_that_is_not_quoted_is_refused() -> None:
    assert _judge(_facts(_tpm().evidence()), bank="sha384") == ["bank_not_accepted"]


def test_without_demands_any_sha2_bank_will_do_and_with_them_the_one_they_are_of() -> None:
    tpm = _tpm(banks=("sha256", "sha384"))
    message, signature = tpm.quote(NONCE, "sha384")
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=tpm.pcrs(("sha384",)))
    facts = _facts(evidence)
    assert _judge(facts) == []
    assert _judge(facts, bank="sha256") == ["bank_not_accepted"]
    assert _judge(facts, pcrs={"0": [ZERO]}) == ["bank_not_accepted", "pcr_selection"]
    assert _judge(facts, pcrs={"0": ["00" * 48]}, bank="sha384") == []
    assert _carries(facts) == "pcr_selection"


def test_a_key_without_certificate_must_be_listed() -> None:
    tpm = _tpm()
    facts = _facts(tpm.evidence(ak_cert=None), anchors=NONE, collateral={"ak_spki": tpm.spki})
    fingerprint = hashlib.sha256(tpm.spki).hexdigest()
    assert _judge(facts, aks=[fingerprint]) == []
    assert _judge(facts, aks="as_supplied") == []
    assert _judge(facts, aks=[ZERO]) == ["ak_not_accepted"]
    assert _judge(facts) == ["ak_not_accepted"]


def test_a_listed_key_needs_no_revocation_list() -> None:
    """It has no certificate that could be on one: its revocation is to list it no longer."""
    tpm = _tpm()
    facts = _facts(tpm.evidence(ak_cert=None), anchors=NONE, collateral={"ak_spki": tpm.spki})
    assert _judge(facts, aks="as_supplied", revocation="required") == []


def test_a_certified_key_needs_no_listing() -> None:
    assert _judge(_facts(_tpm().evidence()), aks=[ZERO]) == []


def test_revocation_that_was_not_checked_is_refused_unless_the_rule_says_so() -> None:
    tpm = _tpm()
    facts = _facts(tpm.evidence())
    assert _judge(facts, revocation="required") == ["revocation_not_checked"]
    half = MAKER.collateral(crl_intermediate=MAKER.crl())
    facts = _facts(tpm.evidence(), collateral=half)
    assert _judge(facts, revocation="required") == ["revocation_not_checked"]
    whole = {**half, "crl_root": MAKER.crl("root")}
    assert _judge(_facts(tpm.evidence(), collateral=whole), revocation="required") == []


def test_revocation_is_demanded_by_default() -> None:
    required, optional = SCHEME.rule_keys
    rule = SCHEME.rule(Members({"pcrs": {}}, "rule", required=required, optional=optional))
    assert rule.revocation is True


def test_a_demanded_event_log_that_is_absent_is_refused() -> None:
    assert _judge(_facts(_tpm().evidence()), event_log="required") == ["event_log_missing"]
    log = EventLog()
    log.measure(4, b"kernel")
    tpm = Vtpm(MAKER)
    tpm.boot(log)
    assert _judge(_facts(tpm.evidence()), event_log="required") == []


def test_without_a_trusted_key_the_judgement_refuses() -> None:
    facts = _facts(_tpm().evidence(), collateral={})
    ledger = Ledger()
    SCHEME.judge(ledger, facts, _rule(), 0)
    assert not ledger.accepted


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": []},
        {"pcrs": {"0": []}},
        {"pcrs": {"0": ["00"]}},
        {"pcrs": {"0": [ZERO, ZERO]}},
        {"pcrs": {"0": ["AA" * 32]}},
        {"pcrs": {"0": ZERO}},
        {"bank": 256},
        {"aks": ["00"]},
        {"aks": "any"},
        {"aks": [ZERO.replace("0", "A")]},
        {"revocation": "off"},
        {"event_log": True},
        {"unknown": 1},
    ],
)
def test_a_demand_that_is_not_understood_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        _rule(**change)


def test_a_rule_must_state_its_registers() -> None:
    required, optional = SCHEME.rule_keys
    with pytest.raises(PolicyError):
        Members({}, "rule", required=required, optional=optional, error=PolicyError)


# -- the worker's measurement ---------------------------------------------------------------------


def _carries(facts: Any, measurement: bytes = WORKER) -> str:
    carries = SCHEME.carries
    assert carries is not None
    try:
        return carries(facts, measurement)
    except AttestationError as refusal:
        return refusal.reasons[0]


def test_register_11_extended_once_with_the_measurement_carries_it() -> None:
    assert _carries(_facts(_tpm().evidence())) == "register 11 holds the measurement"


def test_another_measurement_is_not_carried() -> None:
    assert _carries(_facts(_tpm().evidence()), bytes(32)) == "pcr_mismatch"


def test_a_measurement_extended_twice_or_after_something_is_not_carried() -> None:
    tpm = _tpm()
    tpm.measure(11, WORKER)
    assert _carries(_facts(tpm.evidence())) == "pcr_mismatch"
    tpm = Vtpm(MAKER)
    tpm.measure(11, b"\1" * 32)
    tpm.measure(11, WORKER)
    assert _carries(_facts(tpm.evidence())) == "pcr_mismatch"


@pytest.mark.parametrize("register", [0, 7, 10, 12, 16, 23])
def test_the_measurement_in_another_register_is_not_carried(register: int) -> None:
    tpm = Vtpm(MAKER)
    tpm.measure(register, WORKER)
    assert _carries(_facts(tpm.evidence())) == "pcr_mismatch"


def test_a_measurement_register_that_is_not_quoted_carries_nothing() -> None:
    tpm = _tpm()
    message, signature = tpm.quote(NONCE, selected=range(11))
    evidence = tpm.evidence(
        quote_msg=message, quote_sig=signature, pcrs=tpm.pcrs(selected=range(11))
    )
    assert _carries(_facts(evidence)) == "pcr_selection"
