"""The GPUs of one node as a list: the list is as genuine as its least device."""

from __future__ import annotations

import base64
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


def test_the_same_gpu_twice_is_no_three_gpus(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine(vendor, listing([*gpus[:2], gpus[0]], NONCE))
    assert examined.authentic is True
    assert judged(examined, vendor) == ["gpu_repeated"]
    assert judged(examined, vendor, count="any") == []  # nothing rests on the number


@pytest.mark.parametrize("what", ["brom", "serial"])
def test_two_keys_of_one_chip_or_serial_number_are_no_two_gpus(
    vendor: Nvidia, gpus: list[Device], what: str
) -> None:
    setattr(gpus[1], what, getattr(gpus[0], what))
    assert judged(examine(vendor, listing(gpus, NONCE)), vendor) == ["gpu_repeated"]


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
    assert codes(examine(vendor, stated(gpus, 1, **facts))) == {code}


def test_what_agrees_changes_nothing(vendor: Nvidia, gpus: list[Device]) -> None:
    facts = {
        "version": "1.0",
        "driver_version": gpus[1].driver,
        "vbios_version": gpus[1].vbios.lower(),
    }
    assert examine(vendor, stated(gpus, 1, **facts)).authentic is True


def forms(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The documents in which tools hand out the same entries."""
    bare = [{key: item[key] for key in ("evidence", "certificate")} for item in entries]
    nonce = NONCE.hex()
    return {
        "array": entries,
        "bare items": bare,
        "service": {"nonce": nonce, "arch": "HOPPER", "evidence_list": bare},
        "service 3": {"nonce": nonce, "evidence_list": bare, "claims_version": "3.0"},
        "command": {"evidences": entries, "result_code": 0, "result_message": "Ok"},
        "evidences": {"evidences": entries},
        "containers": {
            "device_evidence_list": [{**item, "arch": "Hopper", "uuid": "GPU-1"} for item in bare]
        },
        "lower case": [{**item, "arch": "hopper", "nonce": nonce.upper()} for item in entries],
    }


@pytest.mark.parametrize("form", list(forms([])))
def test_every_form_in_which_tools_hand_out_a_list_says_the_same(
    vendor: Nvidia, gpus: list[Device], form: str
) -> None:
    entries = [gpu.entry(NONCE) for gpu in gpus]
    examined = examine(vendor, json.dumps(forms(entries)[form]).encode())
    assert examined.authentic is True
    assert examined.claims["gpus"] == [gpu.fingerprint for gpu in gpus]
    assert judged(examined, vendor) == []


def test_one_item_alone_is_a_list_of_one(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine(vendor, json.dumps(gpus[0].entry(NONCE)).encode())
    assert examined.authentic is True
    assert judged(examined, vendor, count=1) == []
    assert judged(examined, vendor, count=3) == ["gpu_count"]


def refused_forms(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Documents in which a device could be missing, or that say what we do not understand."""
    bare = {key: items[0].get(key) for key in ("evidence", "certificate")}
    return {
        "a code that says no": {"evidences": items, "result_code": 1},
        "a negative code": {"evidences": items, "result_code": -1},
        "a code that is true": {"evidences": items, "result_code": True},
        "a code in text": {"evidences": items, "result_code": "0"},
        "a message that is none": {"evidences": items, "result_message": 0},
        "a message of control bytes": {"evidences": items, "result_message": "\n"},
        "an unknown member": {"evidences": items, "failed": []},
        "another form's member": {"evidences": items, "nonce": NONCE.hex()},
        "two lists": {"evidences": items, "evidence_list": items},
        "two other lists": {"evidences": items, "device_evidence_list": items},
        "no array": {"evidences": items[0]},
        "an empty array": {"evidences": []},
        "no nonce": {"evidence_list": items},
        "a shared member too many": {"device_evidence_list": items, "arch": "HOPPER"},
        "an unknown name": {"devices": items},
        "an item and a list": {**items[0], "evidences": items},
        "a list in a list": [items],
        "a uuid that is no text": [{**items[0], "uuid": 7}],
        "an unknown architecture": [{**items[0], "arch": "hoppers"}],
        "a number for all": {"nonce": NONCE.hex(), "arch": 9, "evidence_list": [bare]},
    }


@pytest.mark.parametrize("form", list(refused_forms([{}])))
def test_a_form_that_could_hide_a_device_is_malformed(
    vendor: Nvidia, gpus: list[Device], form: str
) -> None:
    items = [gpu.entry(NONCE) for gpu in gpus]
    raw = json.dumps(refused_forms(items)[form]).encode()
    assert codes(examine(vendor, raw)) == {"evidence_malformed"}


@pytest.mark.parametrize(
    ("key", "limit"), [("evidence", 16 * 1024), ("certificate", 64 * 1024)]
)  # fmt: skip
@pytest.mark.parametrize("over", [0, 1, 2, 3, 30])
def test_a_part_of_an_item_has_its_limit(key: str, limit: int, over: int) -> None:
    item = {"evidence": "AA==", "certificate": "AA=="}
    item[key] = base64.b64encode(bytes(limit + over)).decode()
    raw = json.dumps([item]).encode()
    if over:
        with pytest.raises(MalformedError, match=rf"\.{key}: .* expected at most {limit} bytes"):
            parse_list(raw)
    else:
        (entry,) = parse_list(raw)
        assert len(entry.report if key == "evidence" else entry.chain) == limit


@pytest.mark.parametrize("text", ["AA==\n", "AB==", "A", "AAA", "A A=", "====", "AA", "-_8="])
def test_a_report_has_one_spelling(text: str) -> None:
    with pytest.raises(MalformedError, match="evidence"):
        parse_list(json.dumps([{"evidence": text, "certificate": "AA=="}]).encode())


def test_a_list_under_a_name_twice_is_malformed(vendor: Nvidia, gpus: list[Device]) -> None:
    raw = b'{"evidences":%b,"evidences":%b}' % (listing(gpus[:1], NONCE), listing(gpus, NONCE))
    assert codes(examine(vendor, raw)) == {"evidence_malformed"}


# ---------------------------------------------------------------- switches


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
    examined = examine(vendor, raw, expected=Expected(nonce=NONCE, arch=asked))
    if stated or asked:
        assert examined.authentic is True
        assert examined.claims["architectures"] == ["LS10"]
        assert judged(examined, vendor, **SWITCHES) == []
    else:
        assert codes(examined) == {"product_not_accepted"}


def test_a_list_of_switches_never_meets_a_rule_for_gpus(
    vendor: Nvidia, switches: list[Device]
) -> None:
    examined = examine(vendor, listing(switches, NONCE))
    assert examined.authentic is True
    for named in (["HOPPER"], ["HOPPER", "BLACKWELL"]):
        assert judged(examined, vendor, architectures=named, count=2) == ["product_not_accepted"]


def test_gpus_called_switches_are_refused(vendor: Nvidia, gpus: list[Device]) -> None:
    entries = [{**gpu.entry(NONCE), "arch": "LS10"} for gpu in gpus]
    examined = examine(vendor, json.dumps(entries).encode())
    assert codes(examined) == {"product_not_accepted"}


def test_switches_called_gpus_are_refused(vendor: Nvidia, switches: list[Device]) -> None:
    entries = [{**switch.entry(NONCE), "arch": "HOPPER"} for switch in switches]
    asked = Expected(nonce=NONCE, arch="LS10")
    examined = examine(vendor, json.dumps(entries).encode(), expected=asked)
    assert codes(examined) == {"product_not_accepted"}


def test_a_list_of_which_one_item_only_is_called_a_switch_is_refused(
    vendor: Nvidia, switches: list[Device]
) -> None:
    entries = [switch.entry(NONCE) for switch in switches]
    del entries[1]["arch"]
    asked = Expected(nonce=NONCE, arch="LS10")
    examined = examine(vendor, json.dumps(entries).encode(), expected=asked)
    assert codes(examined) == {"product_not_accepted"}


def test_the_same_switch_twice_is_no_two_switches(vendor: Nvidia, switches: list[Device]) -> None:
    examined = examine(vendor, listing([switches[0]] * 2, NONCE))
    assert examined.authentic is True
    assert judged(examined, vendor, architectures=["LS10"], count=2) == ["gpu_repeated"]


# ---------------------------------------------------------------- what the list itself checks


def test_every_step_of_the_list_is_told(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine(vendor, listing(gpus, NONCE))
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
    examined = examine(vendor, b"[")
    assert [(check.step, check.ok) for check in examined.checks] == [("spdm 0 list", False)]
    assert (examined.authentic, examined.not_after, examined.bound) == (False, 0, False)
    assert examined.kind == SCHEME.kind
    assert not examined.claims


def test_a_list_with_a_report_that_does_not_parse_claims_nothing(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    raw = stated(gpus, 2, evidence=base64.b64encode(b"\x11 no report").decode())
    examined = examine(vendor, raw)
    assert codes(examined) == {"evidence_malformed"}
    assert (examined.kind, examined.facts) == (SCHEME.kind, None)
    assert not examined.claims


def test_a_chain_of_a_leaf_alone_keeps_the_other_devices_identities(
    vendor: Nvidia, gpus: list[Device]
) -> None:
    leaf = gpus[2].certificates()[0].pem
    raw = stated(gpus, 2, certificate=base64.b64encode(leaf).decode())
    examined = examine(vendor, raw)
    assert codes(examined) == {"chain_invalid"}
    assert len(examined.identities) == 8


def test_a_list_without_its_role_is_malformed(vendor: Nvidia) -> None:
    examined = examine(vendor, b"", evidence={})
    assert codes(examined) == {"evidence_malformed"}
    assert SCHEME.needs({}) == ()
    assert SCHEME.further is not None
    assert SCHEME.further({}, {}) == ()


def test_how_many_nonces_were_found_is_said(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine(vendor, stated(gpus, 1, nonce="00" * 32))
    (reason,) = examined.reasons
    assert reason.detail == "GPU list: found 2 nonces, expected one for all"


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
