"""GPUs behind a CPU: only the GPUs that the CPU's evidence names, each once, count."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nvidia import Nvidia
from simulators.nvidia_device import Device, listing
from simulators.nvidia_verdicts import LEAST

from attestation.binding import report32
from attestation.composite import check_composite
from attestation.examined import Expected, Question
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nvidia_list import SCHEME
from wire.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.verify.fleet import Fleet

BINDING = b'{"v":1}'
RULE: dict[str, Any] = LEAST | {"architectures": ["HOPPER", "BLACKWELL"], "count": 2}


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


@pytest.fixture
def gpus(vendor: Nvidia) -> list[Device]:
    return [vendor.gpu(), vendor.gpu()]


def fleet_of(devices: Sequence[Device], binding: bytes = BINDING) -> Fleet:
    vendor = devices[0].vendor
    nonce = report32(binding)
    examined = SCHEME.examine(
        Question(
            evidence={"evidence_list": listing(devices, nonce)},
            anchors=vendor.anchors,
            now=vendor.now,
            expected=Expected(nonce=nonce),
        )
    )
    fleet: Fleet = examined.facts
    return fleet


def codes(fleet: Fleet, gpus: Sequence[str] | None, **changes: Any) -> list[str]:
    required, optional = SCHEME.rule_keys
    members = Members(
        {**RULE, **changes}, "rule", required=required, optional=optional, error=PolicyError
    )
    ledger = Ledger()
    check_composite(ledger, fleet, gpus, SCHEME.rule(members))
    assert [check.step.split()[1] for check in ledger.checks] == ["1", "2", "3", "4", "5"]
    assert ledger.accepted is not bool(ledger.reasons)
    return [reason.code for reason in ledger.reasons]


def names(devices: Sequence[Device]) -> list[str]:
    return [device.fingerprint for device in devices]


def test_the_gpus_that_the_binding_names_are_accepted(gpus: list[Device]) -> None:
    assert codes(fleet_of(gpus), names(gpus)) == []


def test_the_order_does_not_matter(gpus: list[Device]) -> None:
    assert codes(fleet_of(gpus), names(gpus)[::-1]) == []


@pytest.mark.parametrize("named", [None, (), []])
def test_gpus_that_the_cpu_does_not_name_are_refused(gpus: list[Device], named: Any) -> None:
    assert set(codes(fleet_of(gpus), named)) == {"gpu_not_bound_to_cpu", "gpu_count"}


def test_a_genuine_gpu_of_elsewhere_under_the_same_nonce_is_refused(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    elsewhere = fleet_of([gpus[0], vendor.gpu()])
    assert codes(elsewhere, names(gpus)) == ["gpu_not_bound_to_cpu"]


def test_a_gpu_named_but_not_shown_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    named = [*names(gpus), vendor.gpu().fingerprint]
    assert codes(fleet_of(gpus), named) == ["gpu_count", "gpu_not_bound_to_cpu"]


def test_a_gpu_shown_but_not_named_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    shown = fleet_of([*gpus, vendor.gpu()])
    assert codes(shown, names(gpus)) == ["gpu_count", "gpu_not_bound_to_cpu"]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_fewer_or_more_than_demanded_are_refused(gpus: list[Device], count: int) -> None:
    assert codes(fleet_of(gpus), names(gpus), count=count) == ["gpu_count"]


def test_one_gpu_shown_twice_is_refused(gpus: list[Device]) -> None:
    twice = fleet_of([gpus[0], gpus[0]])
    assert "gpu_repeated" in codes(twice, names(gpus))


def test_one_gpu_named_twice_is_refused(gpus: list[Device]) -> None:
    named = [gpus[0].fingerprint, gpus[0].fingerprint]
    assert "gpu_repeated" in codes(fleet_of(gpus), named)


def test_two_keys_of_one_chip_are_one_gpu(gpus: list[Device]) -> None:
    gpus[1].brom = gpus[0].brom
    assert codes(fleet_of(gpus), names(gpus)) == ["gpu_repeated"]


def test_a_gpu_of_another_architecture_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    mixed = [gpus[0], vendor.gpu("BLACKWELL")]
    assert codes(fleet_of(mixed), names(mixed)) == ["gpu_architecture_mixed"]


def test_a_switch_never_counts_as_a_gpu(vendor: Nvidia, gpus: list[Device]) -> None:
    mixed = [gpus[0], vendor.switch()]
    assert codes(fleet_of(mixed), names(mixed)) == ["product_not_accepted"]


def test_a_device_of_no_known_family_never_counts(gpus: list[Device]) -> None:
    fleet = fleet_of(gpus)
    strange = replace(fleet, devices=(fleet.devices[0], replace(fleet.devices[1], family=None)))
    assert codes(strange, names(gpus)) == ["product_not_accepted"]


def test_evidence_for_another_binding_is_not_bound(gpus: list[Device]) -> None:
    vendor = gpus[0].vendor
    examined = SCHEME.examine(
        Question(
            evidence={"evidence_list": listing(gpus, report32(b'{"v":2}'))},
            anchors=vendor.anchors,
            now=vendor.now,
            expected=Expected(nonce=report32(BINDING)),
        )
    )
    assert examined.bound is False
    assert {reason.code for reason in examined.reasons} == {"nonce_mismatch"}
