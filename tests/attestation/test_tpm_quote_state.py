"""`tpm2-quote`: what a policy demands of the state, and where the worker's measurement stands."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from simulators.event_log import EventLog
from simulators.vtpm import NONCE, Vtpm, VtpmMaker

from attestation.anchors import NONE
from attestation.examined import Expected
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


def test_a_quote_without_a_nonce_is_refused_whatever_was_asked() -> None:
    """It answers every question ever asked, so it is nobody's answer."""
    assert _judge(_facts(_tpm().evidence(b""), expected=Expected())) == ["nonce_mismatch"]


def test_one_quote_of_several_without_a_nonce_is_refused() -> None:
    tpm = _tpm(banks=("sha256", "sha384"))
    evidence = tpm.evidence(quote_msg=None, quote_sig=None, pcrs=tpm.pcrs(("sha256", "sha384")))
    for bank, nonce in (("sha256", NONCE), ("sha384", b"")):
        evidence[f"quote_{bank}"], evidence[f"sig_{bank}"] = tpm.quote(nonce, bank)
    assert _judge(_facts(evidence, expected=Expected())) == ["nonce_mismatch"]


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
    assert _judge(examined.facts, bank="sha256") == ["bank_not_accepted"]
    assert _judge(examined.facts, pcrs={"0": [ZERO]}) == ["bank_not_accepted", "pcr_selection"]
    assert _judge(examined.facts, event_log="required") == ["event_log_missing"]
    assert _carries(examined.facts) == "pcr_selection"


def test_where_nothing_is_demanded_of_registers_no_bank_is_missed() -> None:
    """A rule without registers or bank is none for workers: it asks who signed, no more."""
    tpm = _tpm(banks=("sha1", "sha256"))
    message, signature = tpm.quote(NONCE, "sha1")
    evidence = tpm.evidence(quote_msg=message, quote_sig=signature, pcrs=tpm.pcrs(("sha1",)))
    assert _judge(_facts(evidence)) == []
    assert _rule().unsaid


def test_a_bank_that_is_not_quoted_is_refused() -> None:
    assert _judge(_facts(_tpm().evidence()), bank="sha384") == ["bank_not_accepted"]


def test_without_demands_any_bank_will_do_and_with_them_the_one_they_are_of() -> None:
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


def _booted(banks: tuple[str, ...] = ("sha256",), **facts: Any) -> tuple[Vtpm, EventLog]:
    """A machine whose log explains registers 0 and 4; the worker stands in 11 afterwards."""
    log = EventLog(banks)
    log.measure(0, b"firmware")
    log.measure(4, b"kernel")
    tpm = Vtpm(MAKER, banks=banks, **facts)
    tpm.boot(log)
    tpm.measure(11, WORKER)
    return tpm, log


def test_a_demanded_event_log_explains_all_but_the_workers_register() -> None:
    tpm, _ = _booted()
    assert _judge(_facts(tpm.evidence()), event_log="required") == []


@pytest.mark.parametrize("register", [0, 1, 4, 5, 10, 15, 16, 23])
def test_a_quoted_register_that_a_demanded_log_leaves_out_is_refused(register: int) -> None:
    tpm, _ = _booted()
    tpm.measure(register, b"\1" * 32)
    log = EventLog()
    log.events = [(2, 13, {"sha256": bytes(32)}, b"")]
    tpm.registers["sha256"][2] = log.registers("sha256")[2]
    evidence = tpm.evidence(event_log=log.encode())
    examined = SCHEME.examine(MAKER.question(evidence))
    assert examined.authentic is True  # what it extends, replays
    assert _judge(examined.facts) == []
    assert _judge(examined.facts, event_log="required") == ["event_log_mismatch"]


def test_a_demanded_log_that_was_cut_short_is_refused() -> None:
    tpm, log = _booted()
    cut = EventLog()
    cut.events = log.events[:1]
    evidence = tpm.evidence(event_log=cut.encode())
    assert SCHEME.examine(MAKER.question(evidence)).authentic is True
    assert _judge(_facts(evidence), event_log="required") == ["event_log_mismatch"]


def test_a_demanded_log_without_events_explains_nothing() -> None:
    tpm, _ = _booted()
    evidence = tpm.evidence(event_log=EventLog().encode())
    assert _judge(_facts(evidence), event_log="required") == ["event_log_mismatch"]


@pytest.mark.parametrize(
    ("demands", "codes"),
    [
        ({}, ["event_log_missing"]),
        ({"bank": "sha256"}, ["event_log_missing"]),
        ({"bank": "sha384"}, ["bank_not_accepted", "event_log_missing"]),
    ],
)
def test_a_demanded_log_must_be_of_the_bank_that_counts(
    demands: dict[str, Any], codes: list[str]
) -> None:
    """A log of the SHA-1 bank alone, beside quotes of both."""
    log = EventLog(("sha1",))
    log.measure(4, b"kernel")
    tpm = Vtpm(MAKER, banks=("sha1", "sha256"))
    tpm.registers["sha1"] |= log.registers("sha1")
    one, other = tpm.quote(NONCE, "sha1"), tpm.quote(NONCE)
    evidence = tpm.evidence(
        quote_msg=None, quote_sig=None, quote_sha1=one[0], sig_sha1=one[1],
        quote_sha256=other[0], sig_sha256=other[1], pcrs=tpm.pcrs(("sha1", "sha256")),
        event_log=log.encode(),
    )  # fmt: skip
    examined = SCHEME.examine(MAKER.question(evidence))
    assert examined.authentic is True
    assert _judge(examined.facts, event_log="required", **demands) == codes


def test_each_bank_is_explained_for_itself() -> None:
    tpm, _ = _booted(("sha256", "sha384"))
    message, signature = tpm.quote(NONCE, "sha384")
    changes = {"quote_msg": message, "quote_sig": signature, "pcrs": tpm.pcrs(("sha384",))}
    assert _judge(_facts(tpm.evidence(**changes)), event_log="required", bank="sha384") == []
    tpm.registers["sha384"][7] = b"\1" * 48
    message, signature = tpm.quote(NONCE, "sha384")
    changes = {"quote_msg": message, "quote_sig": signature, "pcrs": tpm.pcrs(("sha384",))}
    facts = _facts(tpm.evidence(**changes))
    assert _judge(facts, event_log="required", bank="sha384") == ["event_log_mismatch"]


@pytest.mark.parametrize(
    ("register", "value", "codes"),
    [
        (1, bytes(32), []),
        (1, b"\xff" * 32, ["event_log_mismatch"]),
        (16, b"\xff" * 32, ["event_log_mismatch"]),
        (17, b"\xff" * 32, []),
        (22, b"\xff" * 32, []),
        (22, bytes(32), []),
        (23, b"\xff" * 32, ["event_log_mismatch"]),
        (17, bytes(31) + b"\1", ["event_log_mismatch"]),
        (1, bytes(31) + b"\3", ["event_log_mismatch"]),
    ],
)
def test_a_register_as_reset_needs_no_event(register: int, value: bytes, codes: list[str]) -> None:
    tpm, _ = _booted()
    tpm.registers["sha256"][register] = value
    assert _judge(_facts(tpm.evidence()), event_log="required") == codes


@pytest.mark.parametrize(("stated", "codes"), [(3, []), (4, ["event_log_mismatch"])])
def test_register_0_as_reset_holds_the_locality_that_the_log_states(
    stated: int, codes: list[str]
) -> None:
    log = EventLog()
    log.locality(stated)
    log.measure(4, b"kernel")
    tpm = Vtpm(MAKER)
    tpm.boot(log)
    tpm.registers["sha256"][0] = bytes(31) + b"\3"
    assert _judge(_facts(tpm.evidence()), event_log="required") == codes


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
