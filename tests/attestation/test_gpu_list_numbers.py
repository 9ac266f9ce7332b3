"""A number as a GPU's architecture, as some senders write it, states nothing and hides nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from simulators.nvidia import Nvidia

from attestation.examined import Examined, Expected, Question
from attestation.formats.gpu_list import parse_list
from attestation.schemes.nvidia_list import SCHEME
from wire.errors import MalformedError

NONCE = bytes(range(32))


def document(entry: dict[str, Any], **stated: Any) -> bytes:
    return json.dumps({"nonce": NONCE.hex(), "evidence_list": [entry], **stated}).encode()


def examined(vendor: Nvidia, raw: bytes) -> Examined:
    question = Question(
        evidence={"evidence_list": raw},
        anchors=vendor.anchors,
        now=vendor.now,
        collateral={},
        expected=Expected(nonce=NONCE),
    )
    return SCHEME.examine(question)


@pytest.mark.parametrize("stated", [{}, {"arch": "HOPPER"}])
@pytest.mark.parametrize("number", [0, 6, 9, -1])
def test_a_number_states_no_architecture(number: int, stated: dict[str, str]) -> None:
    entry = Nvidia().gpu("HOPPER").entry(NONCE) | {"arch": number}
    (found,) = parse_list(document(entry, **stated))
    assert found.arch == stated.get("arch")


def test_a_gpu_with_a_number_is_as_genuine_as_its_report() -> None:
    vendor = Nvidia()
    entry = vendor.gpu("BLACKWELL").entry(NONCE) | {"arch": 6}
    found = examined(vendor, document(entry, arch="BLACKWELL"))
    assert found.authentic is True
    assert found.claims["architectures"] == ["BLACKWELL"]


def test_what_is_stated_of_all_must_be_true_of_one_with_a_number() -> None:
    vendor = Nvidia()
    entry = vendor.gpu("BLACKWELL").entry(NONCE) | {"arch": 6}
    found = examined(vendor, document(entry, arch="HOPPER"))
    assert found.authentic is False


def test_a_switch_is_no_gpu_whatever_number_it_has() -> None:
    vendor = Nvidia()
    entry = vendor.switch().entry(NONCE) | {"arch": 6}
    assert examined(vendor, document(entry)).authentic is False


@pytest.mark.parametrize("arch", [True, 6.0, "6", [6], {}, "RUBIN", ""])
def test_anything_else_that_is_no_architecture_is_refused(arch: object) -> None:
    entry = Nvidia().gpu("HOPPER").entry(NONCE) | {"arch": arch}
    with pytest.raises(MalformedError):
        parse_list(document(entry))
