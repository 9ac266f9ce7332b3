"""The GPUs of one node as a list: the list is as genuine as its least device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nvidia import Nvidia
from simulators.nvidia_device import Device, listing

from attestation.examined import Examined, Expected, Question
from attestation.formats.gpu_list import parse_list
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nvidia_list import SCHEME
from wire.errors import MalformedError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

NONCE = bytes(range(32))
RULE: dict[str, Any] = {
    "architectures": ["HOPPER"],
    "models": "any",
    "driver_in": "any",
    "vbios_in": "any",
    "modes": "any",
    "rim": "not_checked",
    "ocsp": "not_checked",
    "count": 3,
}


@pytest.fixture(scope="module")
def vendor() -> Nvidia:
    return Nvidia()


@pytest.fixture
def gpus(vendor: Nvidia) -> list[Device]:
    return [vendor.gpu() for _ in range(3)]


def examine(vendor: Nvidia, raw: bytes, **changes: Any) -> Examined:
    facts: dict[str, Any] = {
        "evidence": {"evidence_list": raw},
        "anchors": vendor.anchors,
        "now": vendor.now,
        "expected": Expected(nonce=NONCE),
        **changes,
    }
    return SCHEME.examine(Question(**facts))


def codes(examined: Examined) -> set[str]:
    return {reason.code for reason in examined.reasons}


def stated(gpus: Sequence[Device], number: int, **facts: Any) -> bytes:
    """The list with one entry that states these facts."""
    entries = [gpu.entry(NONCE) for gpu in gpus]
    entries[number] |= facts
    return json.dumps(entries).encode()


def judged(examined: Examined, vendor: Nvidia, **changes: Any) -> list[str]:
    required, optional = SCHEME.rule_keys
    members = Members(
        {**RULE, **changes}, "rule", required=required, optional=optional, error=PolicyError
    )
    ledger = Ledger()
    SCHEME.judge(ledger, examined.facts, SCHEME.rule(members), vendor.now)
    return [reason.code for reason in ledger.reasons]


def test_an_honest_list_is_authentic_and_accepted(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine(vendor, listing(gpus, NONCE))
    assert examined.authentic is True
    assert examined.bound is True
    assert examined.claims["gpus"] == [gpu.fingerprint for gpu in gpus]
    assert len(examined.identities) == 9
    assert judged(examined, vendor) == []


@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_another_number_of_gpus_is_refused(vendor: Nvidia, gpus: list[Device], count: int) -> None:
    assert judged(examine(vendor, listing(gpus, NONCE)), vendor, count=count) == ["gpu_count"]


def test_any_number_must_be_said(vendor: Nvidia, gpus: list[Device]) -> None:
    assert judged(examine(vendor, listing(gpus, NONCE)), vendor, count="any") == []


def test_one_gpu_that_fails_a_demand_refuses_the_list(vendor: Nvidia, gpus: list[Device]) -> None:
    gpus[1].driver = "1.0"
    examined = examine(vendor, listing(gpus, NONCE))
    assert judged(examined, vendor, driver_in=["580.159.03"]) == ["driver_not_accepted"]


def test_the_same_gpu_twice_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    raw = listing([*gpus[:2], gpus[0]], NONCE)
    assert codes(examine(vendor, raw)) == {"gpu_repeated"}


def test_two_keys_of_one_chip_are_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    gpus[1].brom = gpus[0].brom
    assert codes(examine(vendor, listing(gpus, NONCE))) == {"gpu_repeated"}


def test_two_leaves_of_one_serial_number_are_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    gpus[1].serial = gpus[0].serial
    assert codes(examine(vendor, listing(gpus, NONCE))) == {"gpu_repeated"}


def test_a_switch_in_the_list_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine(vendor, listing([*gpus, vendor.switch()], NONCE))
    assert codes(examined) == {"product_not_accepted"}


def test_a_report_for_another_nonce_is_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    entries = [gpu.entry(NONCE) for gpu in gpus]
    entries[2] = gpus[2].entry(NONCE[::-1])
    assert codes(examine(vendor, json.dumps(entries).encode())) == {"nonce_mismatch"}


def test_two_nonces_are_refused_even_where_none_is_expected(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    entries = [gpus[0].entry(NONCE), gpus[1].entry(NONCE[::-1])]
    examined = examine(vendor, json.dumps(entries).encode(), expected=Expected())
    assert codes(examined) == {"nonce_mismatch"}


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
    assert codes(examine(vendor, stated(gpus, 1, **facts))) == {code}


def test_what_agrees_changes_nothing(vendor: Nvidia, gpus: list[Device]) -> None:
    facts = {
        "version": "1.0",
        "driver_version": gpus[1].driver,
        "vbios_version": gpus[1].vbios.lower(),
    }
    assert examine(vendor, stated(gpus, 1, **facts)).authentic is True


@pytest.mark.parametrize(
    "facts",
    [
        {"nonce": "00" * 31},
        {"nonce": 7},
        {"arch": "AMPERE"},
        {"arch": ["HOPPER"]},
        {"version": "2.0"},
        {"evidence": ""},
        {"evidence": "not base64"},
        {"evidence": None},
        {"certificate": "QUJD\n"},
        {"certificate": 1},
        {"driver_version": ""},
        {"extra": 1},
    ],
)
def test_an_entry_of_another_form_is_malformed(
    vendor: Nvidia, gpus: list[Device], facts: dict[str, Any]
) -> None:
    examined = examine(vendor, stated(gpus, 0, **facts))
    assert codes(examined) == {"evidence_malformed"}
    assert examined.facts is None


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"[1]", b"null", b'{"nonce":"00","evidence_list":[]}', b"[" * 99]
)
def test_a_document_of_another_form_is_malformed(vendor: Nvidia, raw: bytes) -> None:
    assert codes(examine(vendor, raw)) == {"evidence_malformed"}
    assert SCHEME.needs({"evidence_list": raw}) == ()


def test_more_gpus_than_a_node_has_are_malformed(vendor: Nvidia, gpus: list[Device]) -> None:
    raw = json.dumps([gpus[0].entry(NONCE)] * 17).encode()
    assert codes(examine(vendor, raw)) == {"evidence_malformed"}


def test_every_shared_certificate_is_asked_about_once(vendor: Nvidia, gpus: list[Device]) -> None:
    needs = SCHEME.needs({"evidence_list": listing(gpus, NONCE)})
    asked = [need for need in needs if need.source == "nvidia-ocsp"]
    manifests = [need for need in needs if need.source == "nvidia-rim"]
    assert len(asked) == 5  # three boot ROMs, the provisioner, the family
    assert [need.role for need in manifests] == ["rim", "rim_1"]
    assert len({need.role for need in needs}) == len(needs)
    assert set(SCHEME.collateral) >= {need.role for need in needs}


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_arbitrary_bytes_are_only_ever_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_list(raw)
