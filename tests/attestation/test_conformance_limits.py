"""The conformance runner at its limits: claims that differ, rules, two sides in one sample."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from attestation.conformance.binding_rule import DEPTH_MAX, INPUT_MAX, RULE_MAX, binding_rules
from attestation.conformance.index import Index, Sample, parse_index
from attestation.conformance.pairing import Pair, is_revocation, pair_of
from attestation.conformance.run import run_sample
from attestation.conformance.stated import (
    StatedClaim,
    claims_of,
    expected_of,
    unread,
)
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
    assert expected_of(sample_with(binding)).nonce is None
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


def test_a_tls_certificate_that_does_not_parse_binds_no_key() -> None:
    text = "report_data == SHA-256(DER SubjectPublicKeyInfo of the TLS certificate)"
    with pytest.raises(MalformedError, match="TLS certificate does not parse"):
        binding_rules(sample_with(text, tls_certificate_der_hex="3000"), {})


@pytest.mark.parametrize("arch", [5, ["HOPPER"], True])
def test_an_architecture_is_a_text(arch: object) -> None:
    sample = Sample("s", "k", {}, {}, None, {"arch": arch}, None, None, (), {})
    with pytest.raises(MalformedError, match="expected a text as arch"):
        expected_of(sample)
    for inputs in ({"expected_arch": arch}, {"arch": "HOPPER", "expected_arch": "BLACKWELL"}):
        with pytest.raises(MalformedError):
            expected_of(Sample("s", "k", {}, {}, None, inputs, None, None, (), {}))


# ---- claims that inputs state


@pytest.mark.parametrize(
    ("value", "found", "holds"),
    [
        (False, False, True), (False, True, False), (False, 0, False), (5, 5, True), (5, 6, False),
        (5, 5.0, False), (5, None, False), ("6", "6", True), ("7", 7, False), ("AB", "ab", True),
        ([1], [1], True), ([1], [2], False),
    ],
)  # fmt: skip
def test_a_stated_claim_has_the_same_type_and_value(
    value: object, found: object, holds: bool
) -> None:
    assert StatedClaim("claim", value).holds({"claim": found}) is holds
    assert StatedClaim("claim", value).holds({"other": found}) is False


def claimed(binding: str | None, **inputs: object) -> list[tuple[str, object]]:
    stated = inputs if binding is None else {"binding": binding, **inputs}
    sample = Sample("s", "k", {}, {}, None, stated, None, None, (), {})
    return [(item.claim, item.value) for item in claims_of(sample, frozenset())]


def test_only_known_claims_are_stated_without_saying_that_they_are_expected() -> None:
    assert claimed(None, user_data="01", model="x") == [("user_data", "01")]
    assert claimed(None, expected_model="x") == [("model", "x")]
    assert claimed("report_data == a", a="00", user_data="01") == []


def test_an_expected_claim_stands_beside_an_input_of_its_name_that_a_rule_uses() -> None:
    rule = "report_data == SHA-256(user_data)"
    assert claimed(rule, user_data="01", expected_user_data_hex="02") == [("user_data", "02")]


def test_a_tls_certificate_that_no_rule_uses_is_told() -> None:
    rule = "report_data == SHA-256(DER SubjectPublicKeyInfo of the TLS certificate)"
    for binding, told in ((rule, ()), ("report_data == a", ("tls_certificate_der_hex",))):
        sample = sample_with(binding, a="00", tls_certificate_der_hex="3000")
        assert [key for key in unread(sample, frozenset()) if key != "a"] == list(told)


# ---- two sides


def test_a_device_that_is_named_by_its_role_alone_is_examined(
    vectors: dict[str, Any], tmp_path: Path
) -> None:
    """No published report names one: what one does name is no device's evidence."""
    folder: Path = vectors["root"]
    document = json.loads((folder / "index.json").read_bytes())
    (entry,) = [item for item in document["vectors"] if item["id"] == "snp-milan-v5-key-bound"]
    given = entry["inputs"]
    stand_in = tmp_path / "switch"
    stand_in.write_bytes(bytes.fromhex(given["nonce_hex"] + given["x25519_public_hex"]))
    entry["files"] |= {"nvswitch": str(stand_in)}
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()
    rule = "report_data == SHA-512(nvswitch)"
    named = ["evidence_malformed", "gpu_not_bound_to_cpu"]
    for inputs, codes in (
        ({"binding": rule}, named),
        ({"binding": rule, "expected_nvswitch_hash": digest}, named),
        (given, ["gpu_not_bound_to_cpu"]),
    ):
        entry["inputs"] = inputs
        index = parse_index(json.dumps({**document, "vectors": [entry]}).encode())
        found = run_sample(index.samples[0], index, lambda path: (folder / path).read_bytes())
        assert [reason.code for reason in found.reasons] == codes


def test_each_of_the_gpus_or_a_digest_of_it_must_be_named() -> None:
    pair = Pair({"gpu": b"gpus", "nvswitch": b"switches"})
    digest = hashlib.sha384(b"switches").digest()
    assert pair.all_in({b"gpus", b"switches"})
    assert pair.all_in({b"gpus", digest, b"other"})
    for terms in ({b"gpus"}, {digest}):
        assert not pair.all_in(terms)
        assert pair.any_in(terms)
    assert not pair.any_in({b"other"})


@pytest.mark.parametrize(
    "inputs", [{"model_digest": "11"}, {"gpu_evidence": "11"}, {"gpu_hash_of_nothing": "11"}]
)
def test_only_digests_of_this_evidence_can_contradict_it(inputs: dict[str, str]) -> None:
    pair = Pair({"gpu": b"gpus"})
    assert pair.contradicted(inputs) is False
    assert pair.contradicted({**inputs, "gpu_hash": "11"}) is True


def test_a_stated_digest_of_this_evidence_may_have_capital_letters() -> None:
    pair, digest = Pair({"gpu": b"gpus"}), hashlib.sha256(b"gpus").hexdigest()
    assert pair.contradicted({"gpu_hash": digest.upper(), "gpu_sha256_hex": digest}) is False
    for other in (5, None, [digest]):
        assert pair.contradicted({"gpu_hash": other}) is True


@pytest.mark.parametrize(
    ("role", "found"), [("crl", True), ("ocsp_1", True), ("quote", False), ("cert_chain", False)]
)
def test_a_files_name_says_whether_it_is_about_revocation(role: str, found: bool) -> None:
    assert is_revocation(role) is found


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


# ---- the index


def index_of(sample: dict[str, object], **members: object) -> Index:
    vector = {
        "id": "a",
        "kind": "k",
        "files": {},
        "expected": {"authentic": True, "strict": "accept"},
        **sample,
    }
    document = {"schema": "attestation-vectors/1", "vectors": [vector], **members}
    return parse_index(json.dumps(document).encode())


def test_an_index_gives_what_it_states() -> None:
    policy = {"amd": ["one", "two"], "intel": []}
    index = index_of({"files": {"quote": "q"}, "inputs": {"arch": 5}}, strict_policy=policy)
    assert index.strict_policy == {"amd": ("one", "two"), "intel": ()}
    (sample,) = index.samples
    assert (sample.id, sample.kind, sample.files) == ("a", "k", {"quote": "q"})
    assert (sample.authentic, sample.strict, sample.reasons) == (True, "accept", ())


@pytest.mark.parametrize("strict", ["accept", "reject", None])
@pytest.mark.parametrize("authentic", [True, False, None])
def test_an_index_expects_one_of_three_verdicts_of_each_sort(
    authentic: bool | None, strict: str | None
) -> None:
    expected = {"authentic": authentic, "strict": strict}
    (sample,) = index_of({"expected": expected}).samples
    assert (sample.authentic, sample.strict) == (authentic, strict)


@pytest.mark.parametrize(
    ("sample", "fault"),
    [
        ({"id": ""}, "expected texts"),
        ({"id": 5}, "expected texts"),
        ({"kind": None}, "expected texts"),
        ({"expected": {"authentic": 1, "strict": "accept"}}, "found authentic a number"),
        ({"expected": {"authentic": "x", "strict": "accept"}}, "found authentic 'x'"),
        ({"expected": {"authentic": True, "strict": "maybe"}}, "strict 'maybe'"),
        ({"expected": {"authentic": True, "strict": []}}, "strict an array"),
        ({"expected": {"authentic": True, "strict": {}}}, "strict an object"),
        ({"expected": {"authentic": True}}, '"strict" is missing'),
        ({"files": {"a": "b", "c": 5}}, "expected texts"),
        ({"sha256": {"a": "b", "c": None}}, "expected texts"),
        ({"verify_at": 5}, "found a number"),
        ({"verify_at": "2026-01-01T00:00:00"}, "found '2026"),
        (
            {"expected": {"authentic": True, "strict": None, "reasons": ["a", 5]}},
            "array of reason codes",
        ),
        (
            {"expected": {"authentic": True, "strict": None, "reasons": "revoked"}},
            "array of reason codes",
        ),
    ],
)
def test_one_wrong_member_of_a_sample_is_named(sample: dict[str, object], fault: str) -> None:
    (found,) = index_of(sample).samples
    assert fault in found.fault
    outcome = run_sample(found, index_of({}), lambda _: b"")
    assert (outcome.authentic, outcome.accepted, outcome.ok) == (None, None, False)


@pytest.mark.parametrize("sentences", ["one", ["one", 5], [5], {"one": 1}])
def test_an_indexs_policy_is_made_of_sentences(sentences: object) -> None:
    with pytest.raises(MalformedError, match="expected an array of sentences"):
        index_of({}, strict_policy={"amd": sentences})


def test_ids_of_an_index_are_distinct() -> None:
    one = {"id": "a", "kind": "k", "files": {}, "expected": {"authentic": True, "strict": None}}
    for second, fault in (({**one, "id": "b"}, None), (one, "found an id twice")):
        document = {"schema": "attestation-vectors/1", "vectors": [one, second]}
        raw = json.dumps(document).encode()
        if fault is None:
            assert len(parse_index(raw).samples) == 2
        else:
            with pytest.raises(MalformedError, match=fault):
                parse_index(raw)


@pytest.mark.parametrize("digest", ["11" * 31, "11" * 33, "zz" * 32, 5, None])
def test_a_root_of_an_index_is_a_whole_digest(digest: object) -> None:
    pinned = index_of({}, roots={"mine": {"sha256_der": "11" * 32}})
    assert pinned.roots == {bytes.fromhex("11" * 32)}
    told = index_of({}, roots={"bad": {"sha256_der": digest}, "mine": {"sha256_der": "11" * 32}})
    assert told.roots == pinned.roots
    (note,) = told.notes
    assert note.startswith("index.roots.'bad'.sha256_der: found ")
    assert note.endswith("expected 32 bytes in hex; no anchor")


def test_an_input_that_a_claim_contradicts_says_nothing_of_gpus(vectors: dict[str, Any]) -> None:
    folder: Path = vectors["root"]
    document = json.loads((folder / "index.json").read_bytes())
    (entry,) = [item for item in document["vectors"] if item["id"] == SAMPLE]
    entry["inputs"] = {"expected_report_data_hex": "11" * 64}
    index = parse_index(json.dumps({**document, "vectors": [entry]}).encode())
    found = run_sample(index.samples[0], index, lambda path: (folder / path).read_bytes())
    assert [reason.code for reason in found.reasons] == ["nonce_mismatch"]
