"""The GPUs of one node as a list: the list is as genuine as its least device."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nvidia_device import Device, listing
from simulators.nvidia_verdicts import NONCE, examine, examine_list, judge_list, stated
from simulators.verdicts import codes

from attestation.examined import Expected
from attestation.schemes.nvidia_list import SCHEME

if TYPE_CHECKING:
    from simulators.nvidia import Nvidia


def test_an_honest_list_is_authentic_and_accepted(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine_list(vendor, listing(gpus, NONCE))
    assert examined.authentic is True
    assert examined.bound is True
    assert examined.claims["gpus"] == [gpu.fingerprint for gpu in gpus]
    assert len(examined.identities) == 9
    assert judge_list(examined, vendor) == []


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_another_number_of_gpus_is_refused(vendor: Nvidia, gpus: list[Device], count: int) -> None:
    assert judge_list(examine_list(vendor, listing(gpus, NONCE)), vendor, count=count) == [
        "gpu_count"
    ]


def test_any_number_must_be_said(vendor: Nvidia, gpus: list[Device]) -> None:
    assert judge_list(examine_list(vendor, listing(gpus, NONCE)), vendor, count="any") == []


def test_one_gpu_that_fails_a_demand_refuses_the_list(vendor: Nvidia, gpus: list[Device]) -> None:
    gpus[1].driver = "1.0"
    examined = examine_list(vendor, listing(gpus, NONCE))
    assert judge_list(examined, vendor, driver_in=["580.159.03"]) == ["driver_not_accepted"]


def test_the_same_gpu_twice_is_no_three_gpus(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine_list(vendor, listing([*gpus[:2], gpus[0]], NONCE))
    assert examined.authentic is True
    assert judge_list(examined, vendor) == ["gpu_repeated"]
    assert judge_list(examined, vendor, count="any") == []  # nothing rests on the number


@pytest.mark.parametrize("what", ["brom", "serial"])
def test_two_keys_of_one_chip_or_serial_number_are_no_two_gpus(
    vendor: Nvidia, gpus: list[Device], what: str
) -> None:
    setattr(gpus[1], what, getattr(gpus[0], what))
    assert judge_list(examine_list(vendor, listing(gpus, NONCE)), vendor) == ["gpu_repeated"]


def test_a_switch_in_the_list_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine_list(vendor, listing([*gpus, vendor.switch()], NONCE))
    assert codes(examined) == {"product_not_accepted"}


def test_a_report_for_another_nonce_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    entries = [gpu.entry(NONCE) for gpu in gpus]
    entries[2] = gpus[2].entry(NONCE[::-1])
    assert codes(examine_list(vendor, json.dumps(entries).encode())) == {"nonce_mismatch"}


def test_two_nonces_are_refused_even_where_none_is_expected(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    entries = [gpus[0].entry(NONCE), gpus[1].entry(NONCE[::-1])]
    examined = examine_list(vendor, json.dumps(entries).encode(), expected=Expected())
    assert codes(examined) == {"nonce_mismatch"}
    assert examined.claims["nonce"] == NONCE.hex()


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"nonce": "00" * 32}, "nonce_mismatch"),
        ({"arch": "BLACKWELL"}, "gpu_architecture_mismatch"),
        ({"driver_version": "580.159.02"}, "profile_violation"),
        ({"vbios_version": "96.00.74.00.21"}, "profile_violation"),
    ],
)
def test_what_is_stated_beside_a_report_must_agree_with_it(
    vendor: Nvidia, gpus: list[Device], facts: dict[str, Any], code: str
) -> None:
    assert codes(examine_list(vendor, stated(gpus, 1, **facts))) == {code}


def test_what_agrees_changes_nothing(vendor: Nvidia, gpus: list[Device]) -> None:
    facts = {
        "version": "1.0",
        "driver_version": gpus[1].driver,
        "vbios_version": gpus[1].vbios.lower(),
    }
    assert examine_list(vendor, stated(gpus, 1, **facts)).authentic is True


@pytest.fixture
def switches(vendor: Nvidia) -> list[Device]:
    return [vendor.switch() for _ in range(2)]


SWITCHES: dict[str, Any] = {"architectures": ["LS10"], "count": 2}


@pytest.mark.parametrize("stated", ["LS10", "ls10", None])
@pytest.mark.parametrize("asked", ["LS10", "ls10", None])
def test_a_list_of_switches_must_be_called_one(
    vendor: Nvidia, switches: list[Device], stated: str | None, asked: str | None
) -> None:
    entries = [{**switch.entry(NONCE), "arch": stated} for switch in switches]
    raw = json.dumps(entries).encode()
    examined = examine_list(vendor, raw, expected=Expected(nonce=NONCE, arch=asked))
    if stated or asked:
        assert examined.authentic is True
        assert examined.claims["architectures"] == ["LS10"]
        assert judge_list(examined, vendor, **SWITCHES) == []
    else:
        assert codes(examined) == {"product_not_accepted"}


def test_a_list_of_switches_never_meets_a_rule_for_gpus(
    vendor: Nvidia, switches: list[Device]
) -> None:
    examined = examine_list(vendor, listing(switches, NONCE))
    assert examined.authentic is True
    for named in (["HOPPER"], ["HOPPER", "BLACKWELL"]):
        assert judge_list(examined, vendor, architectures=named, count=2) == [
            "product_not_accepted"
        ]


def test_gpus_called_switches_are_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    entries = [{**gpu.entry(NONCE), "arch": "LS10"} for gpu in gpus]
    examined = examine_list(vendor, json.dumps(entries).encode())
    assert codes(examined) == {"product_not_accepted"}


def test_switches_called_gpus_are_refused(vendor: Nvidia, switches: list[Device]) -> None:
    entries = [{**switch.entry(NONCE), "arch": "HOPPER"} for switch in switches]
    asked = Expected(nonce=NONCE, arch="LS10")
    examined = examine_list(vendor, json.dumps(entries).encode(), expected=asked)
    assert codes(examined) == {"product_not_accepted"}


def test_a_list_of_which_one_item_only_is_called_a_switch_is_refused(
    vendor: Nvidia, switches: list[Device]
) -> None:
    entries = [switch.entry(NONCE) for switch in switches]
    del entries[1]["arch"]
    asked = Expected(nonce=NONCE, arch="LS10")
    examined = examine_list(vendor, json.dumps(entries).encode(), expected=asked)
    assert codes(examined) == {"product_not_accepted"}


def test_the_same_switch_twice_is_no_two_switches(vendor: Nvidia, switches: list[Device]) -> None:
    examined = examine_list(vendor, listing([switches[0]] * 2, NONCE))
    assert examined.authentic is True
    assert judge_list(examined, vendor, architectures=["LS10"], count=2) == ["gpu_repeated"]


def test_every_step_of_the_list_is_told(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine_list(vendor, listing(gpus, NONCE))
    told = {check.step: check.detail for check in examined.checks}
    assert told["spdm 0 list"] == "3 devices"
    assert told["spdm 9 one list"] == "3 devices under one nonce"
    claims = examined.claims
    assert (claims["count"], claims["nonce"]) == (3, NONCE.hex())
    assert claims["devices"][1] == {
        "driver_version": gpus[1].driver,
        "vbios_version": gpus[1].vbios,
        "device_serial": gpus[1].serial,
        "fwid": gpus[1].fwid.hex(),
        "fwid_matches_leaf": True,
    }


def test_a_list_that_does_not_parse_says_where(vendor: Nvidia) -> None:
    examined = examine_list(vendor, b"[")
    assert [(check.step, check.ok) for check in examined.checks] == [("spdm 0 list", False)]
    assert (examined.authentic, examined.not_after, examined.bound) == (False, 0, False)
    assert examined.kind == SCHEME.kind
    assert not examined.claims


def test_a_list_with_a_report_that_does_not_parse_claims_nothing(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    raw = stated(gpus, 2, evidence=base64.b64encode(b"\x11 no report").decode())
    examined = examine_list(vendor, raw)
    assert codes(examined) == {"evidence_malformed"}
    assert (examined.kind, examined.facts) == (SCHEME.kind, None)
    assert not examined.claims


def test_a_chain_of_a_leaf_alone_keeps_the_other_devices_identities(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    leaf = gpus[2].certificates()[0].pem
    raw = stated(gpus, 2, certificate=base64.b64encode(leaf).decode())
    examined = examine_list(vendor, raw)
    assert codes(examined) == {"chain_invalid"}
    assert len(examined.identities) == 8


def test_a_list_without_its_role_is_malformed(vendor: Nvidia) -> None:
    examined = examine_list(vendor, b"", evidence={})
    assert codes(examined) == {"evidence_malformed"}
    assert SCHEME.needs({}) == ()
    assert SCHEME.further is not None
    assert SCHEME.further({}, {}) == ()


def test_how_many_nonces_were_found_is_said(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine_list(vendor, stated(gpus, 1, nonce="00" * 32))
    (reason,) = examined.reasons
    assert reason.detail == "GPU list: found 2 nonces, expected one for all"


def test_more_gpus_than_a_node_has_are_malformed(vendor: Nvidia, gpus: list[Device]) -> None:
    raw = json.dumps([gpus[0].entry(NONCE)] * 17).encode()
    assert codes(examine_list(vendor, raw)) == {"evidence_malformed"}


def test_every_shared_certificate_is_asked_about_once(vendor: Nvidia, gpus: list[Device]) -> None:
    needs = SCHEME.needs({"evidence_list": listing(gpus, NONCE)})
    asked = [need for need in needs if need.source == "nvidia-ocsp"]
    manifests = [need for need in needs if need.source == "nvidia-rim"]
    assert len(asked) == 5  # three boot ROMs, the provisioner, the family
    assert [need.role for need in manifests] == ["rim", "rim_1"]
    assert len({need.role for need in needs}) == len(needs)
    assert set(SCHEME.collateral) >= {need.role for need in needs}


def test_a_list_with_one_report_that_does_not_parse_has_no_facts(vendor: Nvidia) -> None:
    entries = json.loads(listing([vendor.gpu(), vendor.gpu()], NONCE))
    entries[1]["evidence"] = base64.b64encode(b"\x11" * 99).decode()
    examined = examine_list(vendor, json.dumps(entries).encode())
    assert examined.authentic is False
    assert examined.facts is None
    assert examined.claims == {}


def test_the_account_of_two_devices_says_which_one(vendor: Nvidia) -> None:
    raw = listing([vendor.gpu(), vendor.gpu()], NONCE)
    found = {check.step for check in examine_list(vendor, raw).checks}
    alone = {check.step for check in examine(vendor.gpu()).checks}
    assert "spdm 5 signature of device 0" in found
    assert "spdm 5 signature of device 1" in found
    assert "spdm 5 signature" in alone


def test_a_list_claims_the_architectures_in_it(vendor: Nvidia) -> None:
    gpus = [vendor.gpu("BLACKWELL"), vendor.gpu(), vendor.gpu()]
    found = examine_list(vendor, listing(gpus, NONCE)).claims
    assert found["architectures"] == ["BLACKWELL", "HOPPER"]
    assert found["nonce"] == NONCE.hex()


def test_a_node_brings_as_many_manifests_and_answers_as_it_may_and_no_more() -> None:
    for role, count in (("rim", 16), ("ocsp", 64)):
        roles = {name for name in SCHEME.collateral if name.startswith(role)}
        wanted = {role, *(f"{role}_{number}" for number in range(1, count))}
        assert roles - {"ocsp_nonce"} == wanted
