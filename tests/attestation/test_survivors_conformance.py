"""The conformance runner at its limits: claims that differ, rules, two sides in one sample."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attestation.conformance.index import Sample, parse_index
from attestation.conformance.inputs import DEPTH_MAX, INPUT_MAX, RULE_MAX, binding_rules
from attestation.conformance.pairing import Pair, pair_of
from attestation.conformance.run import run_sample
from attestation.schemes import SCHEMES
from wire.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = "snp-genoa-v3"


@pytest.mark.parametrize(
    ("expected", "where"),
    [
        ([25, 17, 2], "cpuid_fam_mod_step[2]"),
        ([26, 17, 1], "cpuid_fam_mod_step[0]"),
        ([25, 17], "cpuid_fam_mod_step"),
        ({"family": 25}, "cpuid_fam_mod_step"),
        (25, "cpuid_fam_mod_step"),
    ],
    ids=["last", "first", "shorter", "an object", "a number"],
)
def test_the_place_of_a_difference_within_a_claim_is_told(
    vectors: dict[str, Any], expected: object, where: str
) -> None:
    folder: Path = vectors["root"]
    document = json.loads((folder / "index.json").read_bytes())
    (entry,) = [item for item in document["vectors"] if item["id"] == SAMPLE]
    entry["expected"]["claims"]["cpuid_fam_mod_step"] = expected
    index = parse_index(json.dumps(document).encode())
    (sample,) = [item for item in index.samples if item.id == SAMPLE]
    found = run_sample(sample, index, lambda path: (folder / path).read_bytes())
    assert list(found.differing) == [where]
    assert found.faults == (f"claims: 1 differ: {where}",)


# ---- a binding rule


def sample_with(binding: object, **inputs: object) -> Sample:
    stated = {"binding": binding, **inputs}
    return Sample("s", "tdx-quote", {}, {}, None, stated, None, None, (), {})


@pytest.mark.parametrize("binding", [[], {}, ["a == b"], 5, True])
def test_a_binding_rule_that_is_no_text_is_malformed(binding: object) -> None:
    with pytest.raises(MalformedError):
        binding_rules(sample_with(binding), {})


def test_a_built_in_rule_is_one_only_of_the_kinds_that_check_it() -> None:
    text = (
        "TEE report_data[0:32] == SHA-256(variable data); variable data names HCLAkPub; "
        "HCLAkPub signs the TPM quote; quote extraData carries the nonce"
    )
    with pytest.raises(MalformedError):
        binding_rules(sample_with(text), {})
    other = sample_with("user_data == a", a="00")
    azure = Sample("s", "azure-vtpm-snp", {}, {}, None, other.inputs, None, None, (), {})
    assert len(binding_rules(azure, {})) == 1


def test_a_binding_rule_has_its_greatest_length_and_no_more() -> None:
    start = "report_data == '"
    for extra in (0, 1):
        text = start + "a" * (RULE_MAX - len(start) - 1 + extra) + "'"
        assert len(text) == RULE_MAX + extra
        if not extra:
            assert len(binding_rules(sample_with(text), {})) == 1
        else:
            with pytest.raises(MalformedError):
                binding_rules(sample_with(text), {})


def test_hashes_of_a_binding_rule_stand_in_each_other_to_their_greatest_depth() -> None:
    for depth in (DEPTH_MAX, DEPTH_MAX + 1):
        text = "report_data == " + "SHA-256(" * depth + "a" + ")" * depth
        if depth == DEPTH_MAX:
            assert len(binding_rules(sample_with(text, a="00"), {})) == 1
        else:
            with pytest.raises(MalformedError):
                binding_rules(sample_with(text, a="00"), {})


def test_an_input_has_its_greatest_length_and_no_more() -> None:
    (rule,) = binding_rules(sample_with("report_data == a", a="00" * (INPUT_MAX // 2)), {})
    assert len(rule.value) == INPUT_MAX // 2
    for other in ("00" * (INPUT_MAX // 2 + 1), ["00"], 5):
        with pytest.raises(MalformedError):
            binding_rules(sample_with("report_data == a", a=other), {})


# ---- two sides


@pytest.mark.parametrize(
    ("terms", "named"),
    [("SHA-256(gpu_evidence)", True), ("SHA-256(nvswitch)", True), ("SHA-256(key)", False)],
)
def test_a_rule_names_the_gpus_by_their_role_or_by_the_usual_name(terms: str, named: bool) -> None:
    assert Pair({"nvswitch": b"switches"}).named_in(terms) is named


@pytest.mark.parametrize(
    "inputs", [{"model_digest": "11"}, {"gpu_evidence": "11"}, {"gpu_hash_of_nothing": "11"}]
)
def test_only_digests_of_this_evidence_can_contradict_it(inputs: dict[str, str]) -> None:
    pair = Pair({"gpu": b"gpus"})
    assert pair.contradicted(inputs) is False
    assert pair.contradicted({**inputs, "gpu_hash": "11"}) is True


@pytest.mark.parametrize(
    ("role", "found"),
    [("evidence", True), ("gpu", True), ("gpu_quote", True), ("td_evidence", False),
     ("notes", False), ("td_quote", False)],
)  # fmt: skip
def test_the_words_of_a_role_say_whether_it_is_a_gpus(role: str, found: bool) -> None:
    pair = pair_of(SCHEMES["intel-tdx-quote"], {"quote": b"q", role: b"x"})
    assert (pair is not None) is found
    assert pair is None or dict(pair.gpus) == {role: b"x"}


def test_the_gpus_side_is_what_is_there_of_it() -> None:
    scheme = SCHEMES["nvidia-gpu-spdm"]
    required, optional = scheme.evidence
    for role in (*required, *optional):
        pair = pair_of(scheme, {role: b"x", "td_quote": b"q"})
        assert ("chain" in role) is (pair is None)
        assert pair is None or dict(pair.gpus) == {role: b"x"}
