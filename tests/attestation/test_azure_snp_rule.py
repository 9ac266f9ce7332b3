"""What a policy demands of an Azure VM on AMD's hardware, and where the measurement stands."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from simulators.amd import NOW
from simulators.azure_vm import WORKER, chip_of, examine, started
from simulators.hcl import Paravisor

from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.azure_snp import SCHEME
from wire.errors import AttestationError, PolicyError

ZERO = "00" * 32
RULE = {
    "min_tcb": {"Genoa": {}, "Turin": {}},
    "image": "any",
    "revocation": "as_supplied",
    "smt": True,
    "pcrs": {},
}


def _judge(evidence: dict[str, bytes], **demands: Any) -> list[str]:
    ledger = Ledger()
    facts = examine(evidence).facts
    SCHEME.judge(ledger, facts, _rule({**RULE, **demands}), NOW)
    return [reason.code for reason in ledger.reasons]


def _rule(demands: dict[str, Any]) -> Any:
    required, optional = SCHEME.rule_keys
    members = Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    return SCHEME.rule(members)


def test_a_vm_that_meets_every_demand_is_accepted() -> None:
    vm = started()
    value = vm.tpm.registers["sha256"][11].hex()
    assert _judge(vm.evidence(), pcrs={"11": [value]}) == []


def test_the_reports_own_state_is_judged() -> None:
    vm = started()
    debug = vm.evidence(report=_lied(vm, policy=chip_of().facts.policy | 1 << 19))
    assert _judge(debug) == ["debug_enabled"]
    old = vm.evidence(report=_lied(vm, platform_info=chip_of().facts.platform_info & ~(1 << 5)))
    assert _judge(old) == ["alias_check_not_complete"]


def _lied(vm: Paravisor, **lies: Any) -> bytes:
    digest = hashlib.sha256(vm.variable_data()).digest().ljust(64, b"\0")
    return chip_of().report(report_data=digest, **lies)


def test_a_register_of_another_value_is_refused() -> None:
    assert _judge(started().evidence(), pcrs={"11": [ZERO]}) == ["pcr_not_accepted"]
    assert _judge(started().evidence(), bank="sha384") == ["bank_not_accepted"]


def test_a_vm_without_secure_boot_is_refused_unless_the_rule_says_otherwise() -> None:
    vm = started()
    for change in ({"secure-boot": False}, {}):
        vm.variable["vm-configuration"] = change
        assert _judge(vm.evidence()) == ["vm_configuration_not_accepted"]
        assert _judge(vm.evidence(), vm_configuration={}) == []


def test_a_configuration_must_have_the_value_and_the_type_demanded() -> None:
    vm = started()
    vm.variable["vm-configuration"]["secure-boot"] = 1
    assert _judge(vm.evidence()) == ["vm_configuration_not_accepted"]
    wanted = {"vmUniqueId": "00000000-0000-4000-8000-000000000000"}
    assert _judge(started().evidence(), vm_configuration=wanted) == []
    wanted = {"vmUniqueId": "another"}
    assert _judge(started().evidence(), vm_configuration=wanted) == [
        "vm_configuration_not_accepted"
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": {"16": [ZERO]}},
        {"pcrs": {"23": [ZERO]}},
        {"bank": "sha1"},
        {"vm_configuration": []},
        {"vm_configuration": {"secure-boot": 1}},
        {"vm_configuration": {"secure-boot": None}},
        {"vm_configuration": {str(n): True for n in range(33)}},
        {"unknown": 1},
        {"debug": True},
    ],
)
def test_a_demand_that_is_not_understood_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        _rule({**RULE, **change})


@pytest.mark.parametrize("key", ["min_tcb", "image", "pcrs"])
def test_a_rule_must_state_its_image_floor_and_registers(key: str) -> None:
    with pytest.raises(PolicyError):
        _rule({name: value for name, value in RULE.items() if name != key})


def test_the_measurement_stands_in_register_11() -> None:
    carries = SCHEME.carries
    assert carries is not None
    assert (
        carries(examine(started().evidence()).facts, WORKER) == "register 11 holds the measurement"
    )
    for vm in (Paravisor(chip_of().report), started()):
        vm.tpm.measure(11, b"\1" * 32)
        with pytest.raises(AttestationError) as caught:
            carries(examine(vm.evidence()).facts, WORKER)
        assert caught.value.reasons == ("pcr_mismatch",)
