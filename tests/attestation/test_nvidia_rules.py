"""What policies demand of NVIDIA devices: each demand refuses the one fact that fails it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nvidia import Nvidia

from attestation.examined import Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes import nvidia_gpu, nvidia_list, nvidia_switch
from attestation.verify.fleet import Fleet
from attestation.verify.spdm import parse_device
from wire.errors import PolicyError

if TYPE_CHECKING:
    from simulators.nvidia_device import Device

    from attestation.rules.nvidia import NvidiaRule
    from attestation.scheme import Scheme

NONCE = bytes(range(32))
GPU: dict[str, Any] = {
    "architectures": ["HOPPER", "BLACKWELL"],
    "models": ["GH100", "GB100"],
    "driver_in": ["580.159.03"],
    "vbios_in": ["96.00.74.00.20"],
    "modes": ["spt"],
    "rim": "not_checked",
    "ocsp": "not_checked",
}
SWITCH: dict[str, Any] = {
    "architectures": ["LS10"],
    "models": ["LS_10"],
    "vbios_in": ["96.10.55.00.01"],
    "rim": "not_checked",
    "ocsp": "not_checked",
}


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


def rule(values: dict[str, Any], scheme: Scheme = nvidia_gpu.SCHEME) -> NvidiaRule:
    required, optional = scheme.rule_keys
    members = Members(values, "rule", required=required, optional=optional, error=PolicyError)
    parsed: NvidiaRule = scheme.rule(members)
    return parsed


def judged(
    device: Device, values: dict[str, Any], collateral: dict[str, bytes] | None = None
) -> Ledger:
    scheme = nvidia_switch.SCHEME if device.architecture == "LS10" else nvidia_gpu.SCHEME
    examined = scheme.examine(
        Question(
            evidence={"evidence": device.report(NONCE), "cert_chain": device.chain()},
            anchors=device.vendor.anchors,
            now=device.vendor.now,
            expected=Expected(nonce=NONCE),
            collateral=collateral or {},
        )
    )
    assert examined.authentic is True
    ledger = Ledger()
    scheme.judge(ledger, examined.facts, rule(values, scheme), device.vendor.now)
    return ledger


def codes(ledger: Ledger) -> list[str]:
    return [reason.code for reason in ledger.reasons]


def test_an_honest_gpu_meets_its_rule(vendor: Nvidia) -> None:
    ledger = judged(vendor.gpu(), GPU)
    assert ledger.accepted
    assert [check.step.split()[1] for check in ledger.checks] == [str(n) for n in range(10, 20)]


def test_an_honest_switch_meets_its_rule(vendor: Nvidia) -> None:
    assert judged(vendor.switch(), SWITCH).accepted


def test_what_is_not_checked_says_so_in_the_account(vendor: Nvidia) -> None:
    details = {check.step: check.detail for check in judged(vendor.gpu(), GPU).checks}
    assert details["nvidia 17 revocation"] == "not checked: the policy says so"
    assert details["nvidia 18 reference measurements"] == "not checked: the policy says so"


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("architectures", ["BLACKWELL"], "product_not_accepted"),
        ("models", ["GB100"], "product_not_accepted"),
        ("driver_in", ["580.159.04"], "driver_not_accepted"),
        ("vbios_in", ["96.00.74.00.1F"], "vbios_not_accepted"),
        ("modes", ["mpt"], "mode_not_accepted"),
        ("ocsp", "required", "revocation_not_checked"),
    ],
)
def test_each_demand_refuses_what_does_not_meet_it(
    vendor: Nvidia, key: str, value: Any, code: str
) -> None:
    assert codes(judged(vendor.gpu(), {**GPU, key: value})) == [code]


@pytest.mark.parametrize("key", ["models", "driver_in", "vbios_in", "modes"])
def test_any_must_be_said_and_then_accepts(vendor: Nvidia, key: str) -> None:
    ledger = judged(vendor.gpu(driver="999.1"), {**GPU, "driver_in": "any", key: "any"})
    assert ledger.accepted


@pytest.mark.parametrize("bit", [1, 2, 3])
def test_a_blackwell_in_a_debug_state_is_refused(vendor: Nvidia, bit: int) -> None:
    assert codes(judged(vendor.gpu("BLACKWELL", flags=1 | 1 << bit), GPU)) == ["debug_enabled"]


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({36: b"\0\0"}, "mpt"),
        ({36: b"\1\0"}, "spt"),
        ({36: b"\2\0"}, "ppcie"),
        ({36: b"\3\0"}, None),
        ({36: b"", 21: b"\x55"}, "mpt"),
        ({36: b"\2\0", 21: b"\xaa"}, "ppcie"),
        ({36: b"\0\0", 21: b"\xaa"}, None),  # the two contradict each other
    ],
)
def test_the_mode_is_the_reports(
    vendor: Nvidia, fields: dict[int, bytes], mode: str | None
) -> None:
    gpu = vendor.gpu()
    gpu.opaque |= fields
    assert judged(gpu, {**GPU, "modes": ["mpt", "spt", "ppcie", "unstated"]}).accepted is bool(mode)
    if mode is None:  # a mode whose meaning is not known is not even any mode
        assert codes(judged(gpu, {**GPU, "modes": "any"})) == ["mode_not_accepted"]
    else:
        assert judged(gpu, {**GPU, "modes": [mode]}).accepted


@pytest.mark.parametrize(("byte", "mode"), [(b"\xaa", "ppcie"), (b"\x55", "unstated")])
def test_older_firmware_states_only_protected_pcie(vendor: Nvidia, byte: bytes, mode: str) -> None:
    gpu = vendor.gpu()
    del gpu.opaque[36]
    gpu.opaque[21] = byte
    assert judged(gpu, {**GPU, "modes": [mode]}).accepted
    assert codes(judged(gpu, GPU)) == ["mode_not_accepted"]


@pytest.mark.parametrize("kind", [0, 27, 37, 255, 65535])
def test_an_unknown_report_field_is_refused_unless_the_policy_accepts_it(
    vendor: Nvidia, kind: int
) -> None:
    gpu = vendor.gpu()
    gpu.opaque[kind] = b"?"
    assert codes(judged(gpu, GPU)) == ["profile_violation"]
    assert judged(gpu, {**GPU, "unknown_fields": "accept"}).accepted


def test_revocation_that_was_checked_whole_meets_the_demand(vendor: Nvidia) -> None:
    gpu = vendor.gpu()
    responses = dict(zip(("ocsp", "ocsp_1", "ocsp_2"), vendor.revocation(gpu), strict=True))
    demand = {**GPU, "ocsp": "required"}
    assert judged(gpu, demand, responses).accepted
    for role in responses:
        fewer = {other: raw for other, raw in responses.items() if other != role}
        assert codes(judged(gpu, demand, fewer)) == ["revocation_not_checked"]


def test_revocation_of_another_gpu_does_not_count(vendor: Nvidia) -> None:
    gpu, other = vendor.gpu(), vendor.gpu()
    responses = dict(zip(("ocsp", "ocsp_1", "ocsp_2"), vendor.revocation(other), strict=True))
    assert codes(judged(gpu, {**GPU, "ocsp": "required"}, responses)) == ["revocation_not_checked"]


@pytest.mark.parametrize("key", sorted(GPU))
def test_a_rule_states_every_demand(key: str) -> None:
    with pytest.raises(PolicyError):
        rule({name: value for name, value in GPU.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architectures", []),
        ("architectures", "any"),
        ("architectures", ["LS10"]),
        ("architectures", ["AMPERE"]),
        ("models", []),
        ("models", "all"),
        ("driver_in", None),
        ("driver_in", [580]),
        ("vbios_in", ["96.00", "96.00"]),
        ("modes", ["devtools"]),
        ("modes", []),
        ("rim", "optional"),
        ("rim", True),
        ("rim", "required"),  # without saying whether its signers' revocation is checked
        ("rim_ocsp", "required"),  # with rim not checked
        ("ocsp", "stapled"),
        ("ocsp", None),
        ("ocsp_hold", "yes"),
        ("unknown_fields", True),
        ("count", 1),  # of a single GPU
        ("debug", True),
    ],
)
def test_a_rule_with_another_value_is_refused(key: str, value: Any) -> None:
    with pytest.raises(PolicyError):
        rule({**GPU, key: value})


@pytest.mark.parametrize("count", [0, 17, True, "8", "all", None, 1.0])
def test_a_list_rule_counts_from_one_to_sixteen(count: Any) -> None:
    with pytest.raises(PolicyError):
        rule({**GPU, "count": count}, nvidia_list.SCHEME)


@pytest.mark.parametrize("key", ["driver_in", "modes", "count"])
def test_a_switch_rule_has_no_gpu_demands(key: str) -> None:
    with pytest.raises(PolicyError):
        rule({**SWITCH, key: "any"}, nvidia_switch.SCHEME)


def python(source: str) -> str:
    """What a fresh interpreter prints."""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", source],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_verifiers_that_need_no_manifests_need_no_xml_library() -> None:
    source = (
        "import sys, attestation.schemes.nvidia_list\n"
        "print([name for name in ('lxml', 'signxml') if name in sys.modules])"
    )
    assert python(source) == "[]"


def test_a_rule_that_demands_manifests_without_the_library_is_not_met() -> None:
    source = (
        "import sys\n"
        "sys.modules['lxml'] = None  # as where the extra is not installed\n"
        "from attestation.ledger import Ledger\n"
        "from attestation.rules.nvidia import NvidiaRule, judge\n"
        "from attestation.verify.fleet import Fleet\n"
        "from simulators.nvidia import Nvidia\n"
        "fleet = Fleet((), None, (), Nvidia().anchors)\n"
        "none = frozenset()\n"
        "rule = NvidiaRule(none, none, none, none, none, True, False, False, False, False, None)\n"
        "judge(ledger := Ledger(), fleet, rule, 0)\n"
        "print([reason.code for reason in ledger.reasons])"
    )
    assert python(source) == "['rim_not_available', 'gpu_count']"


@pytest.mark.parametrize("models", ["any", ["GH100"]])
def test_a_device_of_no_known_family_is_of_no_accepted_model(vendor: Nvidia, models: Any) -> None:
    """An examination refuses it, and each step of the rule by itself says so too."""
    gpu = vendor.gpu(common="GA100 A01 GSP FMC LF")
    device = parse_device(gpu.report(NONCE), gpu.chain())
    ledger = Ledger()
    fleet = Fleet((device,), None, (), vendor.anchors)
    nvidia_gpu.SCHEME.judge(ledger, fleet, rule({**GPU, "models": models}), vendor.now)
    refused = {reason.step: reason.code for reason in ledger.reasons}
    assert refused["nvidia 10 architecture"] == "product_not_accepted"
    if models == "any":
        found = {check.step: check.detail for check in ledger.checks}
        assert found["nvidia 11 model"] == "an unknown product: any accepted by the policy"
    else:
        assert refused["nvidia 11 model"] == "product_not_accepted"
