"""`intel-tdx-quote`: genuine evidence of a state that a policy refuses, one changed fact a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from oracles import dcap as oracle
from simulators.intel import NOW, Intel
from simulators.intel_parts import DAY

from attestation.ledger import Ledger
from attestation.members import Members
from attestation.registers import rtmr_value
from attestation.rules import tdx as rules
from attestation.schemes import tdx
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from attestation.examined import Examined

SEPT_VE = 1 << 28


def rule(**demands: Any) -> rules.TdxRule:
    required, optional = rules.KEYS
    members = Members(
        {"image": "any", **demands},
        "policy.accept",
        required=required,
        optional=optional,
        error=PolicyError,
    )
    return rules.parse(members)


def judged(intel: Intel, now: int = NOW, **demands: Any) -> tuple[Examined, list[str]]:
    """Genuine, whatever the state; and the codes of what the rule refuses."""
    question = intel.question()
    examined = tdx.examine(question)
    assert examined.authentic is True, examined.reasons
    members = intel.members()
    oracle.verify(question.evidence["quote"], members, intel.root_der(), intel.now)
    ledger = Ledger()
    tdx.SCHEME.judge(ledger, examined.facts, rule(**demands), now)
    return examined, [reason.code for reason in ledger.reasons]


def with_bits(bits: int) -> Intel:
    intel = Intel("tdx", 5)
    intel.body["td_attributes"] = bits.to_bytes(8, "little")
    return intel


@pytest.mark.parametrize("version", [4, 5])
def test_up_to_date_td_is_accepted(version: int) -> None:
    assert judged(Intel("tdx", version))[1] == []


# ---- TD attributes


@pytest.mark.parametrize("bit", [0, 4, 5, 6])
def test_td_under_debug_or_profiling_is_refused(bit: int) -> None:
    assert judged(with_bits(SEPT_VE | 1 << bit))[1] == ["debug_enabled"]


def test_no_rule_allows_a_debugger() -> None:
    with pytest.raises(PolicyError):
        rule(td={"debug": True})
    with pytest.raises(PolicyError):
        rule(td={"attributes_eq": "0100001000000000"})


def test_sept_ve_disable_off_is_refused_unless_the_rule_says_otherwise() -> None:
    assert judged(with_bits(0))[1] == ["sept_ve_disable_off"]
    assert judged(with_bits(0), td={"sept_ve_disable": False})[1] == []


@pytest.mark.parametrize(
    ("bit", "key", "code"),
    [
        (29, "migratable", "td_migratable"),
        (30, "pks", "pks_enabled"),
        (31, "kl", "kl_enabled"),
        (63, "perfmon", "perfmon_enabled"),
    ],
)
def test_attribute_is_refused_unless_the_rule_allows_it(bit: int, key: str, code: str) -> None:
    assert judged(with_bits(SEPT_VE | 1 << bit))[1] == [code]
    assert judged(with_bits(SEPT_VE | 1 << bit), td={key: True})[1] == []


@pytest.mark.parametrize("bit", [8, 15, 18, 26, 32, 61, 62])
def test_unknown_attribute_bit_is_refused(bit: int) -> None:
    assert judged(with_bits(SEPT_VE | 1 << bit))[1] == ["td_attributes_not_accepted"]


@pytest.mark.parametrize("bit", [16, 27])
def test_harmless_attribute_bit_is_accepted(bit: int) -> None:
    assert judged(with_bits(SEPT_VE | 1 << bit))[1] == []


def test_exact_attributes_demand_all_64_bits() -> None:
    exact = {"attributes_eq": "0000001000000000"}
    assert judged(with_bits(SEPT_VE), td=exact)[1] == []
    assert judged(with_bits(SEPT_VE | 1 << 27), td=exact)[1] == ["td_attributes_not_accepted"]
    assert judged(with_bits(0), td=exact)[1] == ["td_attributes_not_accepted"]


@pytest.mark.parametrize("bit", [3, 4, 10, 13, 16, 20, 63])
def test_unknown_extended_feature_is_refused(bit: int) -> None:
    intel = Intel()
    intel.body["xfam"] = (0x602E7 | 1 << bit).to_bytes(8, "little")
    assert judged(intel)[1] == ["xfam_not_accepted"]


def test_extended_features_beyond_the_rules_mask_are_refused() -> None:
    assert judged(Intel(), td={"xfam_allow_mask": "e702060000000000"})[1] == []
    assert judged(Intel(), td={"xfam_allow_mask": "e702000000000000"})[1] == ["xfam_not_accepted"]


def test_service_td_is_refused_unless_it_is_named() -> None:
    intel = Intel("tdx", 5)
    intel.body["mr_service_td"] = b"\x07" * 48
    assert judged(intel)[1] == ["service_td_present"]
    assert judged(intel, td={"service_td": "none"})[1] == ["service_td_present"]
    assert judged(intel, td={"service_td": [(b"\x07" * 48).hex()]})[1] == []


def test_module_must_be_one_of_those_named() -> None:
    intel = Intel()
    assert judged(intel, td={"mr_seam": [intel.body["mr_seam"].hex()]})[1] == []
    assert judged(intel, td={"mr_seam": ["ab" * 48]})[1] == ["mr_seam_not_accepted"]


# ---- image


def image(intel: Intel, **other: str) -> dict[str, Any]:
    registers = {name: intel.body[name].hex() for name in ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2")}
    return {"any_of": [dict.fromkeys(registers, "ab" * 48), {**registers, **other}]}


def test_image_must_equal_one_whole_set() -> None:
    intel = Intel()
    assert judged(intel, image=image(intel))[1] == []
    for register in ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3", "mr_config_id", "mr_owner"):
        refused = judged(intel, image=image(intel, **{register: "cd" * 48}))[1]
        assert refused == ["image_not_accepted"]


def test_registers_of_two_sets_do_not_add_up() -> None:
    intel = Intel()
    sets = image(intel)["any_of"]
    sets[0]["mr_td"], sets[1]["mr_td"] = sets[1]["mr_td"], sets[0]["mr_td"]
    assert judged(intel, image={"any_of": sets})[1] == ["image_not_accepted"]


def test_measurement_of_zeros_is_refused_by_every_rule() -> None:
    intel = Intel()
    intel.body["mr_td"] = bytes(48)
    assert judged(intel)[1] == ["measurement_zero"]
    assert judged(intel, image=image(Intel()))[1] == ["measurement_zero"]


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, "all", {"any_of": []}, {"any_of": [{}]},
        {"any_of": [{"mr_td": "ab" * 48}]},
        {"any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), "00" * 48)]},
        {"any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr9"), "ab" * 48)]},
        {"any_of": [dict.fromkeys(("mr_td", "rt_mr0", "rt_mr1", "rt_mr2"), "AB" * 48)]},
    ],
    ids=range(10),
)  # fmt: skip
def test_image_that_names_no_whole_measurement_is_no_rule(value: object) -> None:
    with pytest.raises(PolicyError):
        rule(image=value)


# ---- TCB


def aged(status: str) -> Intel:
    intel = Intel()
    intel.tcb_info["tcbLevels"][0] |= {"tcbStatus": status, "advisoryIDs": ["INTEL-SA-00001"]}
    return intel


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("OutOfDate", "tcb_out_of_date"),
        ("ConfigurationNeeded", "tcb_configuration_needed"),
        ("SWHardeningNeeded", "tcb_sw_hardening_needed"),
        ("ConfigurationAndSWHardeningNeeded", "tcb_configuration_and_sw_hardening_needed"),
        ("OutOfDateConfigurationNeeded", "tcb_out_of_date_configuration_needed"),
    ],
)
def test_status_is_accepted_only_if_it_is_named(status: str, code: str) -> None:
    intel = aged(status)
    assert judged(intel)[1][0] == code
    named = {"statuses": ["UpToDate", status], "allow_advisories": ["INTEL-SA-00001"]}
    assert judged(intel, tcb=named)[1] == []
    assert judged(Intel(), tcb={"statuses": [status]})[1] == ["tcb_status_not_accepted"]


def test_advisory_is_accepted_only_if_it_is_named_and_denied_whatever_the_status() -> None:
    intel = aged("SWHardeningNeeded")
    statuses = ["SWHardeningNeeded"]
    assert judged(intel, tcb={"statuses": statuses})[1] == ["advisory_not_accepted"]
    both = {"statuses": statuses, "allow_advisories": ["INTEL-SA-00001"]}
    assert judged(intel, tcb=both)[1] == []
    denied = {**both, "deny_advisories": ["INTEL-SA-00001"]}
    assert judged(intel, tcb=denied)[1] == ["advisory_not_accepted"]
    assert judged(aged("UpToDate"))[1] == []
    current = {"deny_advisories": ["INTEL-SA-00001"]}
    assert judged(aged("UpToDate"), tcb=current)[1] == ["advisory_not_accepted"]


def test_module_that_is_out_of_date_is_refused() -> None:
    intel = Intel()
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)
    examined, codes = judged(intel)
    assert codes == ["tcb_out_of_date"]
    assert examined.claims["platform_tcb_status"] == "UpToDate"
    assert examined.claims["tdx_module_status"] == "OutOfDate"


def test_quoting_enclave_that_is_out_of_date_is_refused() -> None:
    intel = Intel()
    intel.qe_report["isvsvn"] = b"\x06\x00"
    examined, codes = judged(intel)
    assert codes == ["tcb_out_of_date", "advisory_not_accepted"]
    assert examined.claims["qe_tcb_status"] == "OutOfDate"


def test_td_launched_before_an_update_must_be_relaunched() -> None:
    intel = Intel("tdx", 5)
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)
    examined, codes = judged(intel)
    assert codes == ["tcb_td_relaunch_advised"]
    assert examined.claims["tcb_status"] == "TDRelaunchAdvised"
    assert judged(intel, tcb={"statuses": ["TDRelaunchAdvised"]})[1] == []


def test_a_relaunch_on_a_platform_that_needs_configuration_is_named_so() -> None:
    intel = Intel("tdx", 5)
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)
    intel.tcb_info["tcbLevels"][0] |= {"tcbStatus": "ConfigurationNeeded"}
    examined, codes = judged(intel)
    assert codes == ["tcb_td_relaunch_advised_configuration_needed"]
    assert examined.claims["tcb_status"] == "TDRelaunchAdvisedConfigurationNeeded"


@pytest.mark.parametrize("svn", ["tee_tcb_svn", "tee_tcb_svn2"])
@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([11, 1, 2], "tcb_level_not_found"),  # below every platform level
        ([2, 1, 4], "tcb_level_not_found"),  # below every level of the module
        ([11, 2, 4], "tdx_module_mismatch"),  # a module that Intel's statement does not know
    ],
)
def test_platform_or_module_without_a_level_is_not_genuine(
    svn: str, numbers: list[int], code: str
) -> None:
    intel = Intel("tdx", 5)
    intel.body[svn] = bytes(numbers) + bytes(13)
    examined = tdx.examine(intel.question())
    assert examined.authentic is False
    assert code in {reason.code for reason in examined.reasons}


@pytest.mark.parametrize(
    ("field", "value"), [("mr_signer_seam", b"\x01" * 48), ("seam_attributes", b"\x01" + bytes(7))]
)
def test_module_of_another_signer_or_in_debug_is_not_genuine(field: str, value: bytes) -> None:
    intel = Intel()
    intel.body[field] = value
    examined = tdx.examine(intel.question())
    assert "tdx_module_mismatch" in {reason.code for reason in examined.reasons}


def test_platform_below_every_level_is_not_genuine() -> None:
    intel = Intel()
    intel.tcb_info["tcbLevels"] = []
    examined = tdx.examine(intel.question())
    assert "tcb_level_not_found" in {reason.code for reason in examined.reasons}


def test_older_evaluation_number_than_demanded_is_refused() -> None:
    assert judged(Intel(), tcb={"min_eval_number": 18})[1] == []
    assert judged(Intel(), tcb={"min_eval_number": 19})[1] == ["tcb_eval_number_too_low"]
    intel = Intel()
    intel.qe_identity["tcbEvaluationDataNumber"] = 17  # the lower of the two counts
    assert judged(intel, tcb={"min_eval_number": 18})[1] == ["tcb_eval_number_too_low"]


def test_out_of_date_passes_within_the_days_of_grace_and_not_after() -> None:
    intel = Intel()
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)
    published = 1_731_456_000  # 2024-11-13, the newest level of the module
    grace = {"grace_days": 10}
    assert judged(intel, published + 10 * DAY - 1, tcb=grace)[1] == []
    assert judged(intel, published + 10 * DAY, tcb=grace)[1] == ["tcb_out_of_date"]
    assert judged(intel, published - 1, tcb=grace)[1] == ["tcb_out_of_date"]


@pytest.mark.parametrize(
    ("tcb", "end"),
    [
        ({"grace_days": 10}, 1_731_456_000 + 10 * DAY),
        ({"grace_days": 10, "statuses": ["OutOfDate"]}, None),
    ],
)
def test_a_judgement_that_rests_on_grace_ends_with_it(tcb: dict[str, Any], end: int | None) -> None:
    intel, ledger = Intel(), Ledger()
    intel.body["tee_tcb_svn"] = bytes([3, 1, 4]) + bytes(13)
    facts = tdx.examine(intel.question()).facts
    assert tdx.SCHEME.judge(ledger, facts, rule(tcb=tcb), 1_731_456_000) == end
    assert ledger.accepted


def test_nothing_passes_where_the_tcb_was_not_proved() -> None:
    intel = Intel()
    question = intel.question()
    examined = tdx.examine(question.__class__(question.evidence, question.anchors, NOW))
    ledger = Ledger()
    tdx.SCHEME.judge(ledger, examined.facts, rule(), NOW)
    assert [reason.code for reason in ledger.reasons] == ["tcb_not_proved"]
    assert not ledger.accepted


# ---- platform


def test_platform_lists_deny_and_allow() -> None:
    intel = Intel()
    fmspc, ppid = intel.fmspc.hex(), intel.ppid.hex()
    assert judged(intel, platform={"fmspc_deny": [fmspc]})[1] == ["platform_denied"]
    both = {"fmspc_deny": [fmspc], "fmspc_allow": [fmspc]}
    assert judged(intel, platform=both)[1] == ["platform_denied"]
    assert judged(intel, platform={"fmspc_allow": [fmspc], "ppid_allow": [ppid]})[1] == []
    other = {"fmspc_allow": ["00806f050000"]}
    assert judged(intel, platform=other)[1] == ["platform_not_accepted"]
    assert judged(intel, platform={"ppid_allow": ["ab" * 16]})[1] == ["platform_not_accepted"]


@pytest.mark.parametrize("flag", ["dynamic", "cached_keys", "smt"])
def test_platform_configuration_is_refused_where_it_is_on_or_unstated(flag: str) -> None:
    intel = Intel()
    assert judged(intel, platform={flag: "deny"})[1] == ["platform_not_accepted"]
    intel.configuration, intel.pck.sgx = (False, False, False), None
    assert judged(intel, platform={flag: "deny"})[1] == []
    unstated = Intel().processor()
    assert judged(unstated, platform={flag: "deny"})[1] == ["platform_not_accepted"]


@pytest.mark.parametrize(
    "demands",
    [
        {"tcb": {"statuses": []}}, {"tcb": {"statuses": ["Revoked"]}},
        {"tcb": {"statuses": ["Fine"]}}, {"tcb": {"minimum": 1}}, {"tcb": {"grace_days": 1000}},
        {"tcb": None}, {"td": {"debugging": False}}, {"td": {"pks": "no"}},
        {"td": {"service_td": []}}, {"td": {"service_td": "any"}}, {"td": {"mr_seam": []}},
        {"td": {"attributes_eq": "00"}}, {"td": {"xfam_allow_mask": "FF" * 8}},
        {"platform": {"fmspc_deny": []}}, {"platform": {"dynamic": False}},
        {"platform": {"ppid_allow": ["ab"]}}, {"other": 1},
    ],
    ids=range(17),
)  # fmt: skip
def test_demand_that_is_unknown_or_empty_is_no_rule(demands: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        rule(**demands)


def test_rule_without_an_image_is_no_rule() -> None:
    required, optional = rules.KEYS
    with pytest.raises(PolicyError):
        rules.parse(Members({}, "x", required=required, optional=optional, error=PolicyError))


# ---- the worker's measurement


def test_rtmr3_carries_the_measurement_extended_once_and_nothing_else() -> None:
    intel, measurement = Intel(), bytes(range(32))
    intel.body["rt_mr3"] = rtmr_value(measurement)
    facts = judged(intel)[0].facts
    assert tdx.SCHEME.carries is not None
    assert tdx.SCHEME.carries(facts, measurement)
    with pytest.raises(AttestationError) as caught:
        tdx.SCHEME.carries(facts, bytes(32))
    assert caught.value.reasons == ("measurement_mismatch",)
    intel.body["rt_mr3"] = bytes(48)
    with pytest.raises(AttestationError):
        tdx.SCHEME.carries(judged(intel)[0].facts, measurement)
