"""`tcg-event-log` and `cc-event-log`: replay against what is quoted, and which events are accepted.

The CC tests that need a TD quote use a vendor sample's ($ANCHORHOLD_VECTORS), whose RTMRs are what
hardware signed, or a simulated platform's.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from simulators.event_log import NO_ACTION, EventLog
from simulators.intel import DAY, QUOTING_ENCLAVES, Intel
from simulators.intel_parts import key as new_key

from attestation.anchors import INTEL, NONE
from attestation.examined import Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import cc_log, tcg_log
from wire.errors import PolicyError

GOOD, BAD = "ccel-gcp-cos113", "ccel-live-other-boot"


def _question(**evidence: bytes) -> Question:
    return Question(evidence=evidence, anchors=NONE, now=0)


def _quoted(**evidence: bytes) -> Question:
    return Question(evidence=evidence, anchors=INTEL, now=0)


def _log(*events: tuple[int, bytes]) -> EventLog:
    log = EventLog(("sha1", "sha256"))
    for register, data in events:
        log.measure(register, data)
    return log


def _judge(log: EventLog, rule: dict[str, Any]) -> list[str]:
    ledger = Ledger()
    facts = tcg_log.examine(_question(event_log=log.encode())).facts
    tcg_log.SCHEME.judge(ledger, facts, _rule(rule), 0)
    return [reason.code for reason in ledger.reasons]


def _rule(rule: dict[str, Any]) -> Any:
    required, optional = tcg_log.SCHEME.rule_keys
    members = Members(rule, "rule", required=required, optional=optional, error=PolicyError)
    return tcg_log.SCHEME.rule(members)


LOG = _log((0, b"firmware"), (4, b"kernel"), (4, b"command line"))
KERNEL = [event[2]["sha256"].hex() for event in LOG.events if event[0] == 4]
RULE = {"events": {"4": KERNEL}, "unchecked": [0]}


def test_a_log_alone_is_neither_authentic_nor_not() -> None:
    examined = tcg_log.examine(_question(event_log=LOG.encode()))
    assert (examined.authentic, examined.reasons, examined.bound) == (None, (), False)
    assert examined.claims["events"] == 3
    assert examined.claims["replay"]["sha256"] == {
        str(register): value.hex() for register, value in LOG.registers("sha256").items()
    }


def test_a_log_that_does_not_parse_or_is_absent_is_malformed() -> None:
    for evidence in ({}, {"event_log": LOG.encode()[:-1]}, {"event_log": b""}):
        examined = tcg_log.examine(_question(**evidence))
        assert [reason.code for reason in examined.reasons] == ["evidence_malformed"]


def test_logs_vouch_for_no_worker() -> None:
    assert tcg_log.SCHEME.carries is None
    assert cc_log.SCHEME.carries is None
    assert tcg_log.SCHEME.needs({}) == cc_log.SCHEME.needs({}) == ()


def test_a_log_of_listed_events_is_accepted() -> None:
    assert _judge(LOG, RULE) == []


def test_an_event_that_is_not_listed_is_refused() -> None:
    log = _log((0, b"firmware"), (4, b"kernel"), (4, b"another command line"))
    assert _judge(log, RULE) == ["event_not_accepted"]


def test_an_event_in_a_register_nobody_named_is_refused() -> None:
    log = _log((0, b"firmware"), (4, b"kernel"), (4, b"command line"), (9, b"initrd"))
    assert _judge(log, RULE) == ["register_not_accepted"]


@pytest.mark.parametrize("log", [_log(), _log((0, b"firmware"))])
def test_a_register_with_listed_events_and_none_in_the_log_is_refused(log: EventLog) -> None:
    """Or a log cut short would meet any demand."""
    assert _judge(log, RULE) == ["event_not_accepted"]


def test_an_event_that_extends_nothing_needs_no_listing() -> None:
    log = _log((0, b"firmware"), (4, b"kernel"), (4, b"command line"))
    log.add(9, NO_ACTION, {"sha1": bytes(20), "sha256": bytes(32)}, b"")
    assert _judge(log, RULE) == []


def test_a_log_without_the_demanded_bank_is_refused() -> None:
    log = EventLog.legacy()
    log.measure(0, b"firmware")
    assert _judge(log, RULE) == ["bank_not_accepted"]
    assert _judge(LOG, {"events": {}, "unchecked": [0, 4], "bank": "sha384"}) == [
        "bank_not_accepted"
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"bank": "sha1"},
        {"bank": "md5"},
        {"events": {"24": KERNEL}},
        {"events": {"04": KERNEL}},
        {"events": {"x": KERNEL}},
        {"events": {"4": []}},
        {"events": {"4": ["00"]}},
        {"events": {"4": [KERNEL[0].upper()]}},
        {"events": {"4": [KERNEL[0], KERNEL[0]]}},
        {"events": []},
        {"unchecked": [0, 4]},
        {"unchecked": [24]},
        {"unchecked": [-1]},
        {"unchecked": [True]},
        {"unchecked": "all"},
        {"unknown": 1},
    ],
)
def test_a_demand_that_is_not_understood_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        _rule({**RULE, **change})


def test_a_rule_must_say_what_it_does_not_check() -> None:
    for key in RULE:
        with pytest.raises(PolicyError):
            _rule({name: value for name, value in RULE.items() if name != key})


class Sample:
    """One vector."""

    def __init__(self, vectors: dict[str, Any], name: str) -> None:
        self.root, self.vector = vectors["root"], vectors[name]
        self.files = {role: (self.root / path).read_bytes() for role, path in self._paths()}

    def _paths(self) -> Any:
        return self.vector["files"].items()


@pytest.fixture(scope="module")
def good(vectors: dict[str, Any]) -> Sample:
    return Sample(vectors, GOOD)


@pytest.mark.parametrize("name", [GOOD, BAD])
def test_vendor_cc_logs_give_the_expected_verdict_and_claims(
    vectors: dict[str, Any], name: str
) -> None:
    sample = Sample(vectors, name)
    examined = cc_log.examine(_quoted(**sample.files))
    expected = sample.vector["expected"]
    assert examined.authentic is expected["authentic"]
    assert [reason.code for reason in examined.reasons] == expected["reasons"]
    assert expected["claims"].items() <= examined.claims.items()


def test_vendor_tcg_logs_give_the_expected_claims(vectors: dict[str, Any]) -> None:
    names = [name for name, vector in vectors.items() if name.startswith("eventlog-") and vector]
    assert names
    for name in names:
        sample = Sample(vectors, name)
        examined = tcg_log.examine(_question(**sample.files))
        assert examined.authentic is None
        assert sample.vector["expected"]["claims"].items() <= examined.claims.items(), name


def test_any_flipped_bit_of_a_digest_is_a_mismatch(good: Sample) -> None:
    parsed = cc_log.parse_cc_event_log(good.files["event_log"])
    for event in parsed.events:
        digest = event.digests["sha384"]
        flipped = bytes([digest[0] ^ 1]) + digest[1:]
        raw = good.files["event_log"].replace(digest, flipped, 1)
        examined = cc_log.examine(_quoted(**{**good.files, "event_log": raw}))
        assert [reason.code for reason in examined.reasons] == ["event_log_mismatch"]


@pytest.mark.parametrize("rtmr", range(4))
def test_a_quote_of_other_rtmrs_is_a_mismatch(good: Sample, rtmr: int) -> None:
    quote = bytearray(good.files["quote"])
    quote[48 + 328 + 48 * rtmr] ^= 1
    examined = cc_log.examine(_quoted(**{**good.files, "quote": bytes(quote)}))
    codes = [reason.code for reason in examined.reasons]
    assert codes == ["event_log_mismatch", "signature_invalid"]
    matches = examined.claims["rtmr_matches"]
    assert matches == {str(number): number != rtmr for number in range(4)}


def test_an_empty_log_does_not_match_measured_rtmrs(good: Sample) -> None:
    raw = EventLog.cc().encode()
    examined = cc_log.examine(_quoted(**{**good.files, "event_log": raw}))
    assert [reason.code for reason in examined.reasons] == ["event_log_mismatch"]


def test_a_cc_log_alone_is_neither_authentic_nor_not(good: Sample) -> None:
    examined = cc_log.examine(_question(event_log=good.files["event_log"]))
    assert (examined.authentic, examined.bound) == (None, False)
    expected = good.vector["expected"]["claims"]
    assert examined.claims == {name: expected[name] for name in ("events", "rtmr_replay")}


def test_a_quote_of_an_enclave_or_no_log_is_malformed(
    good: Sample, vectors: dict[str, Any]
) -> None:
    enclave = next(name for name, v in vectors.items() if _kind(v) == "intel-sgx-quote")
    sgx = Sample(vectors, enclave).files["quote"]
    for evidence in (
        {**good.files, "quote": sgx},
        {**good.files, "quote": b""},
        {"quote": good.files["quote"]},
    ):
        examined = cc_log.examine(_quoted(**evidence))
        assert [reason.code for reason in examined.reasons] == ["evidence_malformed"]


def test_a_matching_log_is_bound_to_nothing(good: Sample) -> None:
    asked = Question(
        evidence=good.files, anchors=INTEL, now=0, expected=Expected(bytes(64), bytes(32))
    )
    assert cc_log.examine(asked).bound is False


def test_a_cc_rule_speaks_of_rtmrs(good: Sample) -> None:
    facts = cc_log.examine(_quoted(**good.files)).facts
    required, optional = cc_log.SCHEME.rule_keys
    for unchecked, codes in (([0, 1, 2, 3], []), ([1, 2, 3], ["register_not_accepted"])):
        ledger = Ledger()
        rule = Members({"events": {}, "unchecked": unchecked}, "rule", required=required,
                       optional=optional, error=PolicyError)  # fmt: skip
        cc_log.SCHEME.judge(ledger, facts, cc_log.SCHEME.rule(rule), 0)
        assert [reason.code for reason in ledger.reasons] == codes


class Boot:
    """A TD on a simulated platform, and the log of what it measured."""

    def __init__(self) -> None:
        self.intel, self.log = Intel(), EventLog.cc()
        for register, data in ((1, b"settings"), (2, b"loader"), (3, b"kernel"), (4, b"worker")):
            self.log.measure(register, data)
        for register, value in self.log.registers("sha384").items():
            self.intel.body[f"rt_mr{register - 1}"] = value

    def question(self, **changes: Any) -> Question:
        evidence = {"quote": self.intel.quote(), "event_log": self.log.encode()}
        given = {"evidence": evidence, "anchors": self.intel.anchors(), "now": self.intel.now}
        return Question(**{**given, **changes})

    def examine(self, **changes: Any) -> list[str]:
        examined = cc_log.examine(self.question(**changes))
        assert examined.authentic is (not examined.reasons)
        return [reason.code for reason in examined.reasons]


def _other_key(boot: Boot) -> None:
    boot.intel.attestation_key, boot.intel.vouched_key = new_key(), boot.intel.attestation_key


def _other_platform(boot: Boot) -> None:
    boot.intel.pck.sgx = boot.intel.sgx_extension()
    chain = boot.intel.pck_chain()
    boot.intel.edits["cert_data"] = lambda _: chain
    boot.intel.pck.key = new_key()


def _signature(quote: bytes) -> bytes:
    at = 48 + 584 + 4
    return quote[:at] + bytes([quote[at] ^ 1]) + quote[at + 1 :]


FORGERIES: list[tuple[Any, str]] = [
    (lambda boot: boot.intel.edits.update(quote=_signature), "signature_invalid"),
    (_other_key, "attestation_key_not_bound"),
    (_other_platform, "signature_invalid"),
    (lambda boot: boot.intel.header.update(vendor=bytes(16)), "qe_vendor_unknown"),
    (lambda boot: boot.intel.edits.update(cert_data=lambda _: b"-"), "chain_invalid"),
]


def test_a_log_behind_a_genuine_quote_is_authentic_with_and_without_a_time() -> None:
    assert Boot().examine() == Boot().examine(now=0) == []


@pytest.mark.parametrize("now", [0, Intel().now])
@pytest.mark.parametrize(("forge", "code"), FORGERIES)
def test_a_log_behind_a_forged_quote_is_not(forge: Any, code: str, now: int) -> None:
    boot = Boot()
    forge(boot)
    assert code in boot.examine(now=now)


@pytest.mark.parametrize("now", [0, Intel().now])
@pytest.mark.parametrize(
    "fact",
    [
        {"mrsigner": hashlib.sha256(b"whoever has a platform").digest()},
        {"mrsigner": bytes.fromhex(QUOTING_ENCLAVES["sgx"][0])},
        {"isvprodid": b"\1\0"},
        {"isvprodid": b"\2\1"},
        {"attributes": bytes.fromhex("1700000000000000e700000000000000")},
    ],
)
def test_an_enclave_that_is_not_intels_quotes_nothing(fact: dict[str, bytes], now: int) -> None:
    """A platform certifies any enclave that may ask: its owner's too, or one in debug."""
    boot = Boot()
    boot.intel.qe_report.update(fact)
    assert boot.examine(now=now) == ["qe_identity_mismatch"]


def test_how_old_a_quoting_enclave_is_only_collateral_says() -> None:
    boot = Boot()
    boot.intel.qe_report["isvsvn"] = bytes(2)
    assert boot.examine() == []


def test_only_a_pinned_root_makes_a_quote_genuine() -> None:
    assert Boot().examine(anchors=INTEL) == ["untrusted_root"]


def test_a_root_that_the_chain_lacks_may_stand_beside_it() -> None:
    boot = Boot()
    boot.intel.edits["cert_data"] = lambda pem: pem[: pem.rindex(b"-----BEGIN")]
    assert boot.examine() == ["untrusted_root"]
    assert boot.examine(collateral={"root": boot.intel.root_der()}) == []


def test_a_chain_that_ended_counts_only_where_no_time_is_asked() -> None:
    boot = Boot()
    late = boot.intel.now + 8000 * DAY
    assert boot.examine(now=late) == ["certificate_not_valid_at_time"]
    assert boot.examine(now=0) == []


def test_a_debugger_could_have_measured_anything() -> None:
    required, optional = cc_log.SCHEME.rule_keys
    members = Members({"events": {}, "unchecked": [0, 1, 2, 3]}, "rule", required=required,
                      optional=optional, error=PolicyError)  # fmt: skip
    rule = cc_log.SCHEME.rule(members)
    for first, codes in ((0, []), (1, ["debug_enabled"])):
        boot, ledger = Boot(), Ledger()
        attributes = boot.intel.body["td_attributes"]
        boot.intel.body["td_attributes"] = bytes([first]) + attributes[1:]
        examined = cc_log.examine(boot.question())
        assert examined.authentic
        cc_log.SCHEME.judge(ledger, examined.facts, rule, boot.intel.now)
        assert [reason.code for reason in ledger.reasons] == codes


def _kind(vector: Any) -> str:
    return vector["kind"] if isinstance(vector, dict) else ""
