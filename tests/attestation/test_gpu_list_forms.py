"""The documents in which tools hand out the GPUs of a node: what is read, and what is no list."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.nvidia_device import Device, listing
from simulators.nvidia_verdicts import NONCE, examine_list, judge_list, stated
from simulators.verdicts import codes

from attestation.formats.gpu_list import parse_list
from attestation.schemes.nvidia_list import SCHEME
from wire.errors import MalformedError

if TYPE_CHECKING:
    from simulators.nvidia import Nvidia


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
    examined = examine_list(vendor, json.dumps(forms(entries)[form]).encode())
    assert examined.authentic is True
    assert examined.claims["gpus"] == [gpu.fingerprint for gpu in gpus]
    assert judge_list(examined, vendor) == []


def test_one_item_alone_is_a_list_of_one(vendor: Nvidia, gpus: list[Device]) -> None:
    examined = examine_list(vendor, json.dumps(gpus[0].entry(NONCE)).encode())
    assert examined.authentic is True
    assert judge_list(examined, vendor, count=1) == []
    assert judge_list(examined, vendor, count=3) == ["gpu_count"]


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
    assert codes(examine_list(vendor, raw)) == {"evidence_malformed"}


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
    assert codes(examine_list(vendor, raw)) == {"evidence_malformed"}


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
    examined = examine_list(vendor, stated(gpus, 0, **facts))
    assert codes(examined) == {"evidence_malformed"}
    assert examined.facts is None


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"[1]", b"null", b'{"nonce":"00","evidence_list":[]}', b"[" * 99]
)
def test_a_document_of_another_form_is_malformed(vendor: Nvidia, raw: bytes) -> None:
    assert codes(examine_list(vendor, raw)) == {"evidence_malformed"}
    assert SCHEME.needs({"evidence_list": raw}) == ()


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_arbitrary_bytes_are_only_ever_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_list(raw)
