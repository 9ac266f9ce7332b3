"""The demands that rules share, and those on event logs, at their limits and in their words."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from simulators.event_log import EventLog
from simulators.hardware_tee import SnpTee, pem
from simulators.vtpm import VtpmMaker

from attestation.anchors import NONE
from attestation.examined import Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.posture import CONTROLS, FIELDS_MAX
from attestation.replay import RTMRS
from attestation.rules import demands
from attestation.rules.registers import RegisterRule, check_bank
from attestation.schemes import cc_log, tcg_log
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from attestation.scheme import Scheme

MAKER = VtpmMaker()
ROOT = pem(MAKER.root)
STRANGE = pem(
    MAKER.certificate("root", "root", MAKER.root_key, MAKER.root_key, extension=("1.2.3.4.5", True))
)


def members(key: str, value: object) -> Members:
    return Members({key: value}, "policy.accept", optional=(key,), error=PolicyError)


def tags(count: int) -> list[str]:
    return ["sha256:" + hashlib.sha256(b"%d" % number).hexdigest() for number in range(count)]


# ---- measurements


@pytest.mark.parametrize("count", [1, 256])
def test_a_rule_names_as_many_measurements_as_may_stand_side_by_side(count: int) -> None:
    assert demands.measurements(members("measurements", tags(count))) == set(tags(count))


@pytest.mark.parametrize("count", [0, 257])
def test_no_measurement_or_too_many_are_no_rule(count: int) -> None:
    with pytest.raises(PolicyError, match=r"policy\.accept\.measurements"):
        demands.measurements(members("measurements", tags(count)))


def test_a_policy_with_an_empty_list_of_measurements_is_refused() -> None:
    tee = SnpTee()
    tee.rule["measurements"] = []
    with pytest.raises(PolicyError, match="measurements"):
        tee.policy()


# ---- posture


def controls(count: int, state: str = "applied") -> dict[str, str]:
    return {f"c{number}": state for number in range(count)}


@pytest.mark.parametrize("count", [0, 1, len(CONTROLS)])
def test_a_posture_demand_is_taken_over_whole(count: int) -> None:
    known = dict.fromkeys(CONTROLS[:count], "applied")
    assert demands.posture(members("posture", known)) == known


@pytest.mark.parametrize(
    "value", [None, [], ["seccomp"], "seccomp", 1, True, [1] * (FIELDS_MAX + 1)]
)
def test_a_posture_demand_is_an_object(value: object) -> None:
    with pytest.raises(
        PolicyError, match=f"posture: found .*, expected an object of at most {FIELDS_MAX}"
    ):
        demands.posture(members("posture", value))


def test_a_posture_demand_has_no_more_controls_than_a_record() -> None:
    with pytest.raises(PolicyError, match=f"an object of at most {FIELDS_MAX} controls"):
        demands.posture(members("posture", controls(FIELDS_MAX + 1)))


@pytest.mark.parametrize("state", ["applied", "unavailable"])
def test_a_state_that_excludes_something_may_be_demanded(state: str) -> None:
    assert demands.posture(members("posture", {"seccomp": state})) == {"seccomp": state}


@pytest.mark.parametrize("state", ["refused", "", "Applied", None, True, ["applied"]])
def test_a_state_that_every_record_meets_is_no_demand(state: object) -> None:
    with pytest.raises(PolicyError, match=r"seccomp: found .*, expected applied or unavailable$"):
        demands.posture(members("posture", {"seccomp": state}))


def test_without_the_member_nothing_is_demanded() -> None:
    assert demands.posture(Members({}, "policy.accept", error=PolicyError)) == {}


# ---- roots


@pytest.mark.parametrize("length", [8191, 8192])
def test_a_root_may_be_as_long_as_the_limit(length: int) -> None:
    (der,) = demands.roots(members("roots", [ROOT.ljust(length, "\n")]))
    assert der == MAKER.root


@pytest.mark.parametrize(
    "root",
    [
        ROOT.ljust(8193, "\n"), ROOT + ROOT, "", "no certificate", None, 1, {},
        [ROOT], ROOT.replace("A", "\xe9", 1), STRANGE,
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_not_one_certificate_in_pem_is_no_root(root: object) -> None:
    with pytest.raises(PolicyError, match=r"roots: found .*, expected PEM texts"):
        demands.roots(members("roots", [root]))


@pytest.mark.parametrize("count", [0, 17])
def test_no_root_or_too_many_are_no_rule(count: int) -> None:
    with pytest.raises(PolicyError, match="roots"):
        demands.roots(members("roots", [ROOT] * count))


def test_sixteen_roots_are_taken() -> None:
    assert len(demands.roots(members("roots", [ROOT] * 16))) == 16


# ---- event logs: the rule


def parsed(scheme: Scheme, **rule: Any) -> Any:
    required, optional = scheme.rule_keys
    obj = {"events": {}, "unchecked": [], **rule}
    found = Members(obj, "rule", required=required, optional=optional, error=PolicyError)
    return scheme.rule(found)


def digests(count: int, size: int = 32) -> list[str]:
    return [f"{number:0{2 * size}x}" for number in range(count)]


@pytest.mark.parametrize(
    ("scheme", "size", "registers"), [(tcg_log.SCHEME, 32, 24), (cc_log.SCHEME, 48, RTMRS)]
)
def test_every_register_may_have_listed_events(scheme: Scheme, size: int, registers: int) -> None:
    listed = {str(number): digests(1, size) for number in range(registers)}
    assert parsed(scheme, events=listed).events == {
        number: {bytes(size)} for number in range(registers)
    }
    with pytest.raises(PolicyError):
        parsed(scheme, events={**listed, str(registers): digests(1, size)})
    with pytest.raises(PolicyError, match=f"an object of at most {registers} registers"):
        parsed(scheme, events={**listed, "01": digests(1, size)})


@pytest.mark.parametrize("value", [None, [], ["4"], "text", 4, True, [1] * 25])
def test_listed_events_are_an_object(value: object) -> None:
    with pytest.raises(PolicyError, match=r"events: found .*, expected an object of at most 24"):
        parsed(tcg_log.SCHEME, events=value)


@pytest.mark.parametrize(("bank", "size"), [("sha256", 32), ("sha384", 48), ("sha512", 64)])
def test_a_listed_event_has_its_banks_digits(bank: str, size: int) -> None:
    rule = parsed(tcg_log.SCHEME, bank=bank, events={"4": digests(2, size)})
    assert (rule.bank, rule.events[4]) == (bank, {bytes(size), bytes(size - 1) + b"\1"})
    for other in ("00" * (size - 1), "00" * (size + 1), "0" * (2 * size - 1), "AB" * size):
        with pytest.raises(PolicyError, match=f"digests of {2 * size} lower-case hex digits"):
            parsed(tcg_log.SCHEME, bank=bank, events={"4": [other]})


@pytest.mark.parametrize("count", [1, 2, 1024])
def test_a_register_may_have_one_listed_event_or_many(count: int) -> None:
    assert len(parsed(tcg_log.SCHEME, events={"4": digests(count)}).events[4]) == count


@pytest.mark.parametrize("count", [0, 1025])
def test_a_register_without_listed_events_or_with_too_many_is_no_rule(count: int) -> None:
    with pytest.raises(PolicyError):
        parsed(tcg_log.SCHEME, events={"4": digests(count)})


# ---- event logs: the judgement's words


def judged(log: EventLog, **rule: Any) -> list[tuple[str, bool | None, str]]:
    ledger = Ledger()
    question = Question(evidence={"event_log": log.encode()}, anchors=NONE, now=0)
    facts = tcg_log.examine(question).facts
    tcg_log.SCHEME.judge(ledger, facts, parsed(tcg_log.SCHEME, **rule), 0)
    return [(check.step, check.ok, check.detail) for check in ledger.checks]


def test_an_accepted_log_says_what_was_compared() -> None:
    log = EventLog()
    for register, data in ((0, b"firmware"), (4, b"kernel"), (4, b"line"), (5, b"table")):
        log.measure(register, data)
    listed = {
        "4": [hashlib.sha256(data).hexdigest() for data in (b"kernel", b"line")],
        "5": [hashlib.sha256(b"table").hexdigest()],
    }
    assert judged(log, events=listed, unchecked=[0]) == [
        ("log 1 bank", True, "sha256"),
        ("log 2 registers", True, "3 named"),
        ("log 3 events", True, "3 events of 2 registers are listed"),
    ]


def test_without_the_bank_the_steps_after_it_did_not_run() -> None:
    log = EventLog(("sha1",))
    log.measure(4, b"kernel")
    assert judged(log, unchecked=[4]) == [
        ("log 1 bank", False, "event log: found banks sha1, expected sha256"),
        ("log 2-3", None, "not run: the log lacks the bank that counts"),
    ]


def test_a_refusal_names_the_first_register_that_nobody_listed() -> None:
    log = EventLog()
    for register in (9, 5):
        log.measure(register, b"data")
    steps = judged(log, unchecked=[9])
    assert (
        "log 2 registers",
        False,
        "event log: found register 5 extended, expected only named ones",
    ) in steps


# ---- registers: the judgement's words


def test_a_bank_that_is_missing_is_named() -> None:
    rule = RegisterRule("sha384", {})
    with pytest.raises(AttestationError, match=r"expected bank sha384$"):
        check_bank(rule, lambda bank: {0: bytes(20)} if bank == "sha1" else {})


def test_where_no_bank_is_demanded_the_step_says_so() -> None:
    assert check_bank(RegisterRule("", {}), lambda _: {}) == "none is demanded"
    assert check_bank(RegisterRule("", {}), {"sha384": {0: bytes(48)}}.__getitem__) == (
        "none is demanded"
    )
