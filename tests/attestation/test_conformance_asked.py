"""What a sample's inputs ask of its evidence: a nonce, an architecture, a claim, by whatever name.

The samples come from $ANCHORHOLD_VECTORS.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from simulators.vendor_samples import (
    DOCUMENT,
    GPU,
    GPUS,
    QUOTE,
    codes,
    files_of,
    needs_samples,
    outcome,
    sample,
)

from attestation.conformance.binding_rule import binding_rules
from attestation.conformance.index import Sample
from attestation.conformance.pairing import Pair
from attestation.reasons import CODES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_samples


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"expected_nonce_hex": "aa" * 32}, "nonce_mismatch"),
        ({"nonce_hex": "aa" * 32}, "nonce_mismatch"),
        ({"expected_report_data_hex": "aa" * 64}, "nonce_mismatch"),
        ({"report_data": "aa" * 64}, "nonce_mismatch"),
        ({"expected_mr_td_hex": "aa" * 48}, "claim_mismatch"),
        ({"expected_chip_id": "aa"}, "claim_mismatch"),
    ],
)
def test_a_rule_that_holds_excuses_no_other_input(inputs: dict[str, str], code: str) -> None:
    data = sample(QUOTE)["expected"]["claims"]["report_data"]
    rule = {"binding": "report_data == key", "key_hex": data}
    assert outcome(QUOTE, {}, **rule).accepted is True
    assert codes(outcome(QUOTE, {}, **rule, **inputs)) == [code]


def test_azures_own_rule_asks_for_the_nonce_under_each_of_its_names() -> None:
    for name in ("nonce_hex", "nonce"):
        found = outcome("azure-snp-milan-v1", {}, expected_nonce_hex=None, **{name: "aa" * 8})
        assert "nonce_mismatch" in codes(found)


@pytest.mark.parametrize("inputs", [{}, {"expected_nonce": None}])
@pytest.mark.parametrize(
    "name",
    [GPU, GPUS, "nvidia-ls10-switch", "gce-cos-85-nonce9009", "azure-snp-milan-v1",
     "nitro-production-nonce"],
)  # fmt: skip
def test_a_sample_that_states_no_nonce_is_judged_by_the_rest(
    name: str, inputs: dict[str, str | None]
) -> None:
    """As the index's own samples without one are; no appraisal leaves it out."""
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    assert outcome(name, {}, **{**none, **inputs}).accepted is True
    given = outcome(name, {}, **{**none, "expected_nonce_hex": "aa" * 32})
    assert (given.authentic, set(codes(given))) == (False, {"nonce_mismatch"})


@pytest.mark.parametrize("nonce", ["", " ", "0x"])
@pytest.mark.parametrize("key", ["expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"])
@pytest.mark.parametrize(
    "name",
    [GPU, GPUS, "nvidia-ls10-switch", "gce-cos-85-nonce9009", "azure-snp-milan-v1", QUOTE,
     "nitro-production", "nitro-production-nonce", "snp-genoa-v3", "corim-signed-good-corim"],
)  # fmt: skip
def test_a_nonce_that_is_stated_and_empty_is_met_by_nothing(
    name: str, key: str, nonce: str
) -> None:
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    found = outcome(name, {}, **{**none, key: nonce})
    assert (found.authentic, found.accepted) == (False, False)
    assert "nonce_mismatch" in codes(found)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("snp-genoa-v3", {"expected_report_data_hex": ""}),  # whose report data is all zeros
        ("snp-genoa-v3", {"expected_report_data_hex": "0x"}),
        ("snp-genoa-v3", {"report_data": ""}),
        ("nitro-production", {"expected_user_data": ""}),
        (GPU, {"arch": ""}),
        (GPU, {"expected_arch": "", "arch": None}),
        (QUOTE, {"binding": "report_data == key", "key_hex": ""}),
        ("snp-genoa-v3", {"binding": "report_data == zeros(64) || key", "key_hex": ""}),
    ],
)
def test_an_expectation_that_is_empty_is_met_by_nothing(name: str, inputs: dict[str, Any]) -> None:
    assert outcome(name, {}).accepted is True
    assert (outcome(name, {}, **inputs).authentic, outcome(name, {}, **inputs).accepted) == (
        False,
        False,
    )


@pytest.mark.parametrize("value", [0, False, {}, [], 1, True, ["11"], {"a": "11"}])
@pytest.mark.parametrize("key", ["expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"])
def test_a_nonce_that_is_no_text_is_the_samples_fault(key: str, value: object) -> None:
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    found = outcome(QUOTE, {}, **{**none, key: value})
    assert (found.authentic, found.accepted) == (None, None)
    assert f"expected hex as {key}" in found.faults[0]


@pytest.mark.parametrize(
    "key",
    ["challenge_hex", "expectedNonce", "NONCE", "Expected_chip", "reportNonce", "serverChallenge",
     "expected", "arch", "expected_arch"],
)  # fmt: skip
def test_an_expectation_that_no_step_asks_for_is_a_fault(key: str) -> None:
    found = outcome(QUOTE, {}, **{key: "aa" * 32})
    assert [fault for fault in found.faults if fault.startswith(f"input {key}: ")]
    assert key in found.ignored
    assert outcome(QUOTE, {}, **{key: None}).ok


@pytest.mark.parametrize("key", ["signing_address", "vm_id", "nonce_source", "notes"])
def test_an_input_for_information_is_told_and_no_fault(key: str) -> None:
    found = outcome(QUOTE, {}, **{key: "aa" * 32})
    assert (found.ok, found.ignored) == (True, (key,))


def test_an_architecture_is_asked_for_under_both_of_its_names() -> None:
    for key in ("arch", "expected_arch"):
        none = {"arch": None, "expected_arch": None}
        assert outcome(GPU, {}, **{**none, key: "hopper"}).accepted is True
        assert codes(outcome(GPU, {}, **{**none, key: "BLACKWELL"})) == [
            "gpu_architecture_mismatch"
        ]


def test_hex_that_is_stated_may_begin_with_0x(tmp_path: Path) -> None:
    name = "snp-milan-v5-key-bound"
    data = sample(name)["expected"]["claims"]["report_data"]
    for mark in ("0x", "0X"):
        given = {"expected_report_data_hex": mark + data}
        assert outcome(name, {}, **given).accepted is True
        given = {"expected_report_data_hex": mark + data[:-2] + "00"}
        assert codes(outcome(name, {}, **given)) == ["nonce_mismatch"]
    digest = hashlib.sha256(b"gpu").hexdigest()
    assert Pair({"gpu": b"gpu"}).contradicted({"gpu_sha256_hex": "0x" + digest}) is False
    assert Pair({"gpu": b"gpu"}).contradicted({"gpu_sha256_hex": "0x" + "00" * 32}) is True


@pytest.mark.parametrize(
    ("name", "nonce"),
    [
        (QUOTE, "11" * 32),
        ("snp-genoa-v3", "11" * 32),
        (GPU, "11" * 32),
        ("eventlog-rhel8-uefi", "11" * 32),
        ("corim-cca-platform-valid", "11" * 32),
    ],
)
def test_a_nonce_that_stands_nowhere_is_refused_for_every_kind(name: str, nonce: str) -> None:
    key = "expected_nonce" if name == GPU else "expected_nonce_hex"
    found = outcome(name, {}, **{key: nonce})
    assert (found.authentic, codes(found)) == (False, ["nonce_mismatch"])


@pytest.mark.parametrize("name", [QUOTE, "snp-milan-v5-key-bound"])
@pytest.mark.parametrize("place", [slice(0, 128), slice(0, 64), slice(64, 128)])
def test_a_nonce_is_found_in_the_report_data_where_guests_put_it(name: str, place: slice) -> None:
    nonce = sample(name)["expected"]["claims"]["report_data"][place]
    none = {"nonce_hex": None, "binding": None}
    assert outcome(name, {}, **none, expected_nonce_hex=nonce).accepted is True
    other = f"{nonce[:-2]}{int(nonce[-2:], 16) ^ 1:02x}"
    found = outcome(name, {}, **none, expected_nonce_hex=other)
    assert (found.authentic, codes(found)) == (False, ["nonce_mismatch"])


def test_a_firmware_logs_quote_answers_what_its_own_kind_answers() -> None:
    name = "ccel-gcp-cos113"
    data = "00" * 64  # this guest was asked nothing
    for inputs, answered in (
        ({"expected_report_data": data}, True),
        ({"expected_nonce_hex": data}, False),  # zeros are nobody's nonce
        ({"binding": "report_data == key", "key_hex": data}, True),
        ({"expected_report_data": "11" * 64}, False),
        ({"expected_nonce_hex": "11" * 32}, False),
        ({"binding": "report_data == key", "key_hex": "11" * 64}, False),
    ):
        found = outcome(name, {}, **inputs)
        assert (found.authentic, found.accepted) == (answered, answered), inputs
        assert set(codes(found)) == (set() if answered else {"nonce_mismatch"})


@pytest.mark.parametrize(("end", "found"), [(94, False), (96, True), (98, True)])
def test_a_nonce_longer_than_half_of_the_report_data_stands_before_zeros(
    end: int, found: bool
) -> None:
    """This sample's report data ends in 16 zeros after 48 bytes that do not."""
    name = "tdx-v4-outofdate-00a06d"
    data = sample(name)["expected"]["claims"]["report_data"]
    given = outcome(name, {}, expected_nonce_hex=data[:end])
    assert (given.authentic, "nonce_mismatch" not in codes(given)) == (found, found)


@pytest.mark.parametrize("end", [2, 32, 62, 66, 126])
def test_a_part_of_what_stands_there_is_no_nonce(end: int) -> None:
    nonce = sample(QUOTE)["expected"]["claims"]["report_data"][:end]
    assert codes(outcome(QUOTE, {}, expected_nonce_hex=nonce)) == ["nonce_mismatch"]


def test_a_nonce_elsewhere_in_the_report_data_needs_a_rule_that_says_so() -> None:
    nonce = sample(QUOTE)["expected"]["claims"]["report_data"][32:64]
    assert codes(outcome(QUOTE, {}, expected_nonce_hex=nonce)) == ["nonce_mismatch"]
    rule = {"binding": "report_data[16:32] == nonce", "nonce_hex": nonce}
    assert outcome(QUOTE, {}, expected_nonce_hex=nonce, **rule).accepted is True


def test_the_rule_that_azures_kinds_always_check_fails_as_any_other_does() -> None:
    other = {role: files_of("azure-tdx-v1")[role] for role in ("quote_msg", "quote_sig", "pcrs")}
    assert "signature_invalid" in codes(outcome("azure-snp-milan-v1", other))
    found = outcome("azure-tdx-v1", {"td_quote": files_of(QUOTE)["quote"]})
    assert found.authentic is False
    assert {"report_data_mismatch", "td_report_mismatch", "nonce_mismatch"} <= set(codes(found))


def test_every_code_the_index_lists_is_one_of_ours() -> None:
    """And each of ours is asserted by some test: `test_reason_codes`."""
    assert set(DOCUMENT["reason_codes"]) <= set(CODES)


@pytest.mark.parametrize("name", ["snp-genoa-v3", "tdx-v4-uptodate-gcp-cos113"])
@pytest.mark.parametrize(
    ("rule", "size"),
    [
        ("report_data == nonce", 64),
        ("report_data == nonce", 1),
        ("report_data[0:32] == nonce", 32),
        ("report_data[32:] == nonce", 32),
        ("nonce == report_data", 64),
        ("report_data == nonce || zeros(32)", 32),
        ("report_data == challenge", 64),
    ],
)
def test_zeros_answer_no_nonce_that_a_rule_names(name: str, rule: str, size: int) -> None:
    """These reports carry no data: whoever asked, nobody was answered."""
    none = dict.fromkeys(("expected_nonce", "expected_nonce_hex", "nonce", "nonce_hex"))
    value = re.findall("nonce|challenge", rule)[0]
    found = outcome(name, {}, **{**none, "binding": rule, f"{value}_hex": "00" * size})
    assert (found.authentic, set(codes(found))) == (False, {"nonce_mismatch"})
    stated = outcome(name, {}, **{**none, "binding": "report_data == zeros(64)"})
    assert stated.accepted is True


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("report_data == key || nonce", False),
        ("report_data == key || CHALLENGE", False),
        ("report_data == key || padding", True),
        ("report_data[0:32] == key", True),
    ],
)
def test_zeros_beside_a_key_are_no_nonce_either(rule: str, holds: bool) -> None:
    inputs = dict.fromkeys(("nonce", "CHALLENGE", "padding"), "00" * 32) | {"key": "ab" * 32}
    entry = Sample("s", "k", {}, {}, None, {"binding": rule, **inputs}, None, None, (), {})
    (clause,) = binding_rules(entry, {})
    assert clause.holds({"report_data": "ab" * 32 + "00" * 32}) is holds


def test_zeros_that_are_hashed_are_a_value_like_any() -> None:
    said = {"binding": "report_data == SHA-512(nonce || key)", "nonce": "00" * 32, "key": "ab"}
    entry = Sample("s", "k", {}, {}, None, said, None, None, (), {})
    (clause,) = binding_rules(entry, {})
    digest = hashlib.sha512(bytes(32) + b"\xab").hexdigest()
    assert clause.holds({"report_data": digest})
