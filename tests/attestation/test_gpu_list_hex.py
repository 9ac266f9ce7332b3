"""GPU lists whose reports are hex text, as NVIDIA's older tools and many servers write them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nvidia_device import Device, raw_entry, text_entry
from simulators.nvidia_verdicts import NONCE, examine_list, judge_list
from simulators.verdicts import codes

from attestation.formats.gpu_list import parse_list
from attestation.formats.spdm import REPORT_MAX
from attestation.schemes.nvidia_list import SCHEME
from wire.errors import MalformedError

if TYPE_CHECKING:
    from simulators.nvidia import Nvidia


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def forms(gpus: list[Device]) -> dict[str, Any]:
    """The documents in which such senders hand out the same devices."""
    texts = [text_entry(gpu, NONCE) for gpu in gpus]
    raws = [raw_entry(gpu, NONCE) for gpu in gpus]
    request = {"nonce": NONCE.hex(), "arch": "HOPPER"}
    return {
        "servers": {**request, "evidence_list": texts},
        "a mixture": [texts[0], raws[1], gpus[2].entry(NONCE)],
        "collected": raws,
        "collected, sent on": {**request, "evidence_list": raws},
        "with a number": [{**item, "arch": 9} for item in raws],
        "upper case": [
            {**item, "attestationReportHexStr": item["attestationReportHexStr"].upper()}
            for item in raws
        ],
        "upper case text": [
            {**item, "evidence": b64(base64.b64decode(item["evidence"]).upper())} for item in texts
        ],
    }


@pytest.mark.parametrize("form", ["servers", "a mixture", "collected", "collected, sent on",
                                  "with a number", "upper case", "upper case text"])  # fmt: skip
def test_a_report_in_hex_says_the_same(vendor: Nvidia, gpus: list[Device], form: str) -> None:
    raw = json.dumps(forms(gpus)[form]).encode()
    examined = examine_list(vendor, raw)
    assert examined.authentic is True
    assert examined.bound is True
    assert examined.claims["gpus"] == [gpu.fingerprint for gpu in gpus]
    assert judge_list(examined, vendor) == []
    assert SCHEME.needs({"evidence_list": raw})


def test_the_request_for_one_device_is_a_list_of_one(vendor: Nvidia, gpus: list[Device]) -> None:
    item = {"nonce": NONCE.hex(), "arch": "HOPPER", **text_entry(gpus[0], NONCE)}
    examined = examine_list(vendor, json.dumps(item).encode())
    assert examined.authentic is True
    assert judge_list(examined, vendor, count=1) == []


def test_a_device_in_two_spellings_counts_once(vendor: Nvidia, gpus: list[Device]) -> None:
    items = [gpus[0].entry(NONCE), text_entry(gpus[0], NONCE), raw_entry(gpus[1], NONCE)]
    examined = examine_list(vendor, json.dumps(items).encode())
    assert judge_list(examined, vendor) == ["gpu_repeated"]


def test_one_forged_report_in_hex_spoils_the_list(vendor: Nvidia, gpus: list[Device]) -> None:
    items = [text_entry(gpu, NONCE) for gpu in gpus]
    report = bytearray(gpus[1].report(NONCE))
    report[-1] ^= 1
    items[1]["evidence"] = b64(report.hex().encode())
    assert codes(examine_list(vendor, json.dumps(items).encode())) == {"signature_invalid"}


def test_a_nonce_beside_a_report_in_hex_must_be_its_own(vendor: Nvidia, gpus: list[Device]) -> None:
    items = [text_entry(gpu, NONCE) for gpu in gpus]
    raw = json.dumps({"nonce": bytes(32).hex(), "evidence_list": items}).encode()
    assert codes(examine_list(vendor, raw)) == {"nonce_mismatch"}


def test_hex_of_hex_is_read_once_and_is_no_report(vendor: Nvidia, gpus: list[Device]) -> None:
    twice = gpus[0].report(NONCE).hex().encode().hex()
    chain = b64(gpus[0].chain())
    for item in (
        {"evidence": b64(twice.encode()), "certificate": chain},
        {"attestationReportHexStr": twice, "certChainBase64Encoded": chain},
    ):
        (entry,) = parse_list(json.dumps(item).encode())
        assert entry.report == bytes.fromhex(twice)
        refused = codes(examine_list(vendor, json.dumps(item).encode()))
        assert "version_not_accepted" in refused


@pytest.mark.parametrize(
    "text", ["", "1", "11e", "1g", "11 e0", "0x11e0", "aAbB", "11\n", "½½", "-1"]
)
def test_hex_has_one_spelling(text: str) -> None:
    item = {"attestationReportHexStr": text, "certChainBase64Encoded": "AA=="}
    with pytest.raises(MalformedError, match="attestationReportHexStr"):
        parse_list(json.dumps([item]).encode())


@pytest.mark.parametrize("text", ["1", "11e", "aAbB"])
def test_hex_in_base64_has_one_spelling(text: str) -> None:
    item = {"evidence": b64(text.encode()), "certificate": "AA=="}
    with pytest.raises(MalformedError, match="evidence"):
        parse_list(json.dumps([item]).encode())


@pytest.mark.parametrize("text", ["11 e0", "0x11e0", "11e0\n", "11e0g"])
def test_text_that_is_no_hex_is_a_report_of_another_version(
    vendor: Nvidia, gpus: list[Device], text: str
) -> None:
    item = {"evidence": b64(text.encode()), "certificate": b64(gpus[0].chain())}
    (entry,) = parse_list(json.dumps(item).encode())
    assert entry.report == text.encode()
    assert examine_list(vendor, json.dumps(item).encode()).authentic is False


@pytest.mark.parametrize("over", [0, 1, 2])
def test_a_report_in_hex_has_the_limit_of_any(over: int) -> None:
    text = "00" * (REPORT_MAX + over)
    for item in (
        {"evidence": b64(text.encode()), "certificate": "AA=="},
        {"attestationReportHexStr": text, "certChainBase64Encoded": "AA=="},
    ):
        raw = json.dumps([item]).encode()
        if over:
            with pytest.raises(MalformedError, match=f"at most {REPORT_MAX} bytes"):
                parse_list(raw)
        else:
            assert len(parse_list(raw)[0].report) == REPORT_MAX


def refused(gpu: Device) -> dict[str, Any]:
    """Items of which nobody knows which report or chain is meant."""
    new, old = text_entry(gpu, NONCE), raw_entry(gpu, NONCE)
    return {
        "both": {**new, **old},
        "two reports": {**new, "attestationReportHexStr": old["attestationReportHexStr"]},
        "two chains": {**old, "certificate": new["certificate"]},
        "crossed": {
            "evidence": new["evidence"], "certChainBase64Encoded": old["certChainBase64Encoded"],
        },
        "crossed back": {
            "attestationReportHexStr": old["attestationReportHexStr"],
            "certificate": new["certificate"],
        },
        "no chain": {"attestationReportHexStr": old["attestationReportHexStr"]},
        "no report": {"certChainBase64Encoded": old["certChainBase64Encoded"]},
        "a number": {**old, "attestationReportHexStr": 11},
        "base64": {**old, "attestationReportHexStr": b64(gpu.report(NONCE))},
        "an unknown member": {**old, "failed": []},
    }  # fmt: skip


@pytest.mark.parametrize("form", ["both", "two reports", "two chains", "crossed", "crossed back",
                                  "no chain", "no report", "a number", "base64",
                                  "an unknown member"])  # fmt: skip
def test_an_item_of_two_meanings_is_malformed(
    vendor: Nvidia, gpus: list[Device], form: str
) -> None:
    items = [gpus[1].entry(NONCE), refused(gpus[0])[form]]
    assert codes(examine_list(vendor, json.dumps(items).encode())) == {"evidence_malformed"}


def test_a_report_under_its_old_name_twice_is_malformed(gpus: list[Device]) -> None:
    item = json.dumps(raw_entry(gpus[0], NONCE))
    raw = f'[{item[:-1]},"attestationReportHexStr":"11"}}]'.encode()
    with pytest.raises(MalformedError):
        parse_list(raw)


def test_sixteen_devices_in_hex_are_a_list(gpus: list[Device]) -> None:
    # Sizes of a Hopper's report with all that it may tell, and of its chain.
    item = {"evidence": b64(bytes(4274).hex().encode()), "certificate": b64(bytes(4827))}
    raw = json.dumps({"nonce": NONCE.hex(), "evidence_list": [item] * 16}).encode()
    assert len(parse_list(raw)) == 16
