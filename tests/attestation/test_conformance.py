"""The conformance runner agrees with published samples, and notices when it should not.

The samples come from $ANCHORHOLD_VECTORS; each is a test of its own. The tests after them change
one expectation or one file of an agreeing sample, and the runner must say so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.tokens import Issuer

from attestation.conformance.binding_rule import TLS_INPUT, binding_rules, inputs_of
from attestation.conformance.index import INDEX_MAX, Sample, parse_index
from attestation.conformance.run import run_sample
from attestation.conformance.stated import claims_of, expected_of, unread
from attestation.conformance.strict import strict_rule, unknown_sentences
from attestation.formats.ear import TRUSTEE_PROFILE
from attestation.schemes import SCHEMES
from wire.errors import MalformedError

if TYPE_CHECKING:
    from attestation.conformance.run import Outcome

FOLDER = Path(os.environ.get("ANCHORHOLD_VECTORS", "/nonexistent"))
INDEX = FOLDER / "index.json"
RAW = INDEX.read_bytes() if INDEX.is_file() else b""
IDS = [item["id"] for item in json.loads(RAW)["vectors"]] if RAW else []
WHY = "ANCHORHOLD_VECTORS names no folder of vendor samples"
needs_samples = pytest.mark.skipif(not IDS, reason=WHY)
PLAIN = "nitro-production"  # one file, accepted, with claims


def outcome(index_document: dict[str, Any], name: str, **files: bytes) -> Outcome:
    """Run one sample of an index; `files` replace bytes by role."""
    index = parse_index(json.dumps(index_document).encode())
    sample = next(item for item in index.samples if item.id == name)
    by_path = {sample.files[role]: data for role, data in files.items()}

    def read(path: str) -> bytes:
        return by_path.get(path) or (FOLDER / path).read_bytes()

    return run_sample(sample, index, read)


def changed(name: str = PLAIN, **members: Any) -> tuple[dict[str, Any], str]:
    """The published index with one sample's members replaced."""
    document = json.loads(RAW)
    sample = next(item for item in document["vectors"] if item["id"] == name)
    for path, value in members.items():
        *outer, last = path.split("__")
        place = sample
        for step in outer:
            place = place[step]
        place[last] = value
    return document, name


@pytest.mark.parametrize("name", IDS or [pytest.param("none", marks=needs_samples)])
def test_the_sample_gives_what_its_publisher_expects(name: str) -> None:
    found = outcome(json.loads(RAW), name)
    assert found.faults == ()
    assert found.differing == {}


@needs_samples
def test_every_kind_of_the_index_is_known_and_every_sentence_of_its_policy() -> None:
    index = parse_index(RAW)
    assert {sample.kind for sample in index.samples} <= set(SCHEMES)
    assert unknown_sentences(index.strict_policy) == []


@pytest.mark.parametrize("kind", sorted(SCHEMES))
def test_every_kind_has_a_strict_rule_that_parses(kind: str) -> None:
    assert strict_rule(SCHEMES[kind]) is not None


def test_a_sentence_that_is_not_known_is_reported() -> None:
    assert unknown_sentences({"amd": ("the moon is full",)}) == ["amd: the moon is full"]


@needs_samples
@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"expected__authentic": False}, "authentic: found True, expected False"),
        ({"expected__authentic": None}, "authentic: found True, expected None"),
        ({"expected__strict": "reject"}, "strict: found accept, expected reject"),
        ({"expected__reasons": ["debug_enabled"]}, "reasons: found none, expected one of"),
        ({"expected__claims__digest": "SHA512"}, "claims: 1 differ: digest"),
        ({"expected__claims__pcrs__0": "00" * 48}, "claims: 1 differ: pcrs.0"),
        ({"expected__claims__unheard_of": None}, "claims: 1 differ: unheard_of"),
        ({"expected__claims__debug": 0}, "claims: 1 differ: debug"),  # false is not 0
        ({"inputs__binding": "user_data == the moon"}, "names no input 'the'"),
        ({"inputs__binding": "user_data == SHA-256(absent)"}, "names no input 'absent'"),
        ({"inputs__expected_nonce_hex": "zz"}, "expected hex as expected_nonce_hex"),
        ({"inputs__expected_nonce_hex": "9009"}, "authentic: found False, expected True"),
        ({"kind": "moon-rock"}, "kind moon-rock is not known"),
        ({"verify_at": "2021-01-01T00:00:00Z"}, "authentic: found False, expected True"),
        ({"verify_at": "9999-12-31T00:00:00Z"}, "authentic: found False, expected True"),
        ({"verify_at": "9999-12-31T00:00:01Z"}, "verify_at: found 253402214401 s after 1970"),
        ({"verify_at": "9999-12-31T23:59:59-14:00"}, "verify_at: found 253402351199 s"),
        ({"verify_at": "0001-01-01T00:00:00+14:00"}, "verify_at: found -62135647200 s"),
        ({"verify_at": "1969-12-31T23:59:59Z"}, "verify_at: found -1 s after 1970"),
        ({"inputs__binding": "user_data == SHA-256(a)", "inputs__a_hex": "00"}, "authentic: found"),
    ],
)
def test_the_runner_notices_one_changed_expectation(members: dict[str, Any], fault: str) -> None:
    found = outcome(*changed(**members))
    assert not found.ok
    assert any(fault in sentence for sentence in found.faults), found.faults


@needs_samples
def test_the_runner_notices_one_changed_bit_of_evidence() -> None:
    data = bytearray((FOLDER / f"aws-nitro-document/{PLAIN}/document.cbor").read_bytes())
    data[400] ^= 1
    found = outcome(json.loads(RAW), PLAIN, document=bytes(data))
    assert found.authentic is False
    assert not found.ok


@needs_samples
def test_an_anchor_an_index_lists_is_none_for_a_vendors_kind() -> None:
    """Somebody's own root in an index must not make somebody's own evidence genuine."""
    document = copy.deepcopy(json.loads(RAW))
    sample = next(s for s in document["vectors"] if s["id"] == "tdx-v4-lookalike-root")
    der = (FOLDER / sample["files"]["other_root"]).read_bytes()
    document["roots"]["mine"] = {"sha256_der": hashlib.sha256(der).hexdigest()}
    found = outcome(document, "tdx-v4-lookalike-root")
    assert "untrusted_root" in {reason.code for reason in found.reasons}


@needs_samples
def test_gpu_evidence_that_the_cpu_does_not_name_is_not_bound() -> None:
    document = json.loads(RAW)
    quote = next(s for s in document["vectors"] if s["id"] == "tdx-v4-uptodate-b0c06f")
    gpus = next(s for s in document["vectors"] if s["kind"] == "nvidia-gpu-spdm-list")
    quote["files"]["gpu_evidence"] = gpus["files"]["evidence_list"]
    found = outcome(document, quote["id"])
    assert [reason.code for reason in found.reasons] == ["gpu_not_bound_to_cpu"]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "index|JSON"),
        (b"[]", "an object"),
        (b"{}", "schema"),
        (b'{"schema":"attestation-vectors/2"}', 'expected "attestation-vectors/1"'),
        (b'{"schema":"attestation-vectors/1","vectors":[]}', "non-empty array"),
        (b'{"schema":"x","schema":"x"}', "repeats a key"),
    ],
)
def test_what_is_no_index_is_refused_with_a_sentence(raw: bytes, sentence: str) -> None:
    with pytest.raises(MalformedError, match=sentence):
        parse_index(raw)


def test_an_index_has_a_largest_size() -> None:
    with pytest.raises(MalformedError):
        parse_index(b" " * (INDEX_MAX + 1))


def sample_with(text: str, **inputs: str) -> Sample:
    return Sample("s", "k", {}, {}, None, {"binding": text, **inputs}, None, None, (), {})


@pytest.mark.parametrize(
    ("text", "inputs", "value"),
    [
        ("report_data == key", {"key_hex": "aabb"}, "aabb"),
        ("TEE report_data == key", {"key": "aabb"}, "aabb"),
        ("report_data == a || zeros(2) || 'x'", {"a": "01"}, "01000078"),
        ("report_data == SHA-256(a)", {"a": "00"}, hashlib.sha256(b"\0").hexdigest()),
        (
            "report_data == SHA512(a || b)",
            {"a": "00", "b": "01"},
            hashlib.sha512(b"\0\1").hexdigest(),
        ),
        (
            "report_data == SHA-384(SHA-256(a) || 'tag') || zeros(1)",
            {"a": "00"},
            hashlib.sha384(hashlib.sha256(b"\0").digest() + b"tag").hexdigest() + "00",
        ),
        (
            "report_data == sha256(a + b)",
            {"a": "00", "b": "01"},
            hashlib.sha256(b"\0\1").hexdigest(),
        ),
        ("report_data == nonce", {"expected_nonce_hex": "0102"}, "0102"),
        ("report_data == nonce", {"expected_nonce": "0102"}, "0102"),
    ],
)
def test_a_binding_rule_gives_the_bytes_it_says(
    text: str, inputs: dict[str, str], value: str
) -> None:
    (rule,) = binding_rules(sample_with(text, **inputs), {})
    assert rule.value.hex() == value
    whole = value.ljust(128, "0")
    assert rule.holds({"report_data": whole})
    assert not rule.holds({"report_data": whole + "00"})
    assert not rule.holds({"report_data": "ff" + whole[2:]})
    assert not rule.holds({"report_data": whole[:-2] + "01"})
    assert not rule.holds({})
    assert not rule.holds({"report_data": "zz"})


def test_only_fields_of_fixed_size_are_filled_with_zeros() -> None:
    (rule,) = binding_rules(sample_with("user_data == a", a="01"), {})
    assert rule.holds({"user_data": "01"})
    assert not rule.holds({"user_data": "0100"})


@pytest.mark.parametrize(
    ("part", "data"), [("[:1]", "01ff"), ("[1:]", "ff01"), ("[1:2]", "ff01ff")]
)
def test_a_rule_may_leave_an_end_out(part: str, data: str) -> None:
    (rule,) = binding_rules(sample_with(f"report_data{part} == a", a="01"), {})
    assert rule.holds({"report_data": data})
    assert not rule.holds({"report_data": data.replace("01", "02")})


@pytest.mark.parametrize("name", ["report_data", "expected_report_data", "report_data_hex",
                                  "expected_report_data_hex"])  # fmt: skip
def test_an_input_named_after_a_claim_is_what_the_claim_must_be(name: str) -> None:
    sample = Sample("s", "k", {}, {}, None, {name: "0102"}, None, None, (), {})
    (stated,) = claims_of(sample, frozenset())
    assert stated.holds({"report_data": "0102".ljust(128, "0")})
    assert not stated.holds({"report_data": "0103".ljust(128, "0")})
    assert not stated.holds({})


TOKEN_TIME = "2026-06-01T00:00:00Z"


def token_outcome(inputs: dict[str, str], **claims: Any) -> Outcome:
    """A sample of an attestation result, which its key signed, with these inputs."""
    now = int(datetime.fromisoformat(TOKEN_TIME).timestamp())
    said = {
        "eat_profile": TRUSTEE_PROFILE,
        "iss": "https://verifier.example",
        "iat": now,
        "exp": now + 300,
        "ear.verifier-id": {"developer": "somebody", "build": "1"},
        "submods": {"cpu0": {"ear.status": "affirming"}},
    }
    issuer = Issuer("ES384")
    files = {"token": issuer.sign({**said, **claims}).encode(), "jwks": issuer.jwks()}
    sample = {
        "id": "own",
        "kind": "ear-jwt",
        "files": {role: role for role in files},
        "verify_at": TOKEN_TIME,
        "inputs": inputs,
        "expected": {"authentic": True, "strict": "accept"},
    }
    document = {"schema": "attestation-vectors/1", "vectors": [sample]}
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, files.__getitem__)


@pytest.mark.parametrize("audience", ["me", ["me", "others"], None])
def test_the_strict_policy_speaks_of_no_audience(audience: object) -> None:
    said = {} if audience is None else {"aud": audience}
    found = token_outcome({}, **said)
    assert (found.faults, found.accepted) == ((), True)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"audience": "me"}, None),
        ({"expected_audience": "me"}, None),
        ({"expected_aud": "others"}, None),
        ({"issuer": "https://verifier.example"}, None),
        ({"expected_iss": "https://verifier.example"}, None),
        ({"audience": "you"}, "audience_mismatch"),
        ({"expected_audience": "ME"}, "audience_mismatch"),
        ({"aud": "you"}, "audience_mismatch"),
        ({"expected_issuer": "https://verifier.example/"}, "issuer_mismatch"),
        ({"iss": "somebody"}, "issuer_mismatch"),
    ],
)
def test_a_sample_may_state_whom_a_token_is_for_and_by(
    inputs: dict[str, str], code: str | None
) -> None:
    found = token_outcome(inputs, aud=["me", "others"])
    assert found.ignored == ()
    assert found.authentic is (code is None)
    assert [reason.code for reason in found.reasons] == ([] if code is None else [code])


def test_a_token_for_nobody_is_not_for_the_audience_stated() -> None:
    found = token_outcome({"expected_audience": "me"})
    assert [reason.code for reason in found.reasons] == ["audience_mismatch"]


def test_a_binding_rule_takes_its_inputs_for_itself() -> None:
    named = sample_with(
        "report_data == SHA-256(user_data || nonce)", user_data="01", nonce_hex="02"
    )
    assert claims_of(named, frozenset()) == ()
    assert expected_of(named).nonce is None
    assert unread(named, frozenset()) == ()


@pytest.mark.parametrize("name", ["expected_nonce_hex", "expected_nonce", "nonce_hex", "nonce"])
@pytest.mark.parametrize(
    "rule", [None, "report_data == a", "report_data == 'nonce' || a", "nonce == a"]
)
def test_a_nonce_that_no_rule_uses_is_asked_for(name: str, rule: str | None) -> None:
    inputs = {name: "0102", "a": "01"} | ({} if rule is None else {"binding": rule})
    sample = Sample("s", "k", {}, {}, None, inputs, None, None, (), {})
    assert expected_of(sample).nonce == b"\1\2"


def test_two_nonces_are_refused() -> None:
    sample = Sample("s", "k", {}, {}, None, {"nonce": "01", "nonce_hex": "02"}, None, None, (), {})
    with pytest.raises(MalformedError, match="two nonces"):
        expected_of(sample)


def test_a_claim_is_stated_beside_a_rule_too() -> None:
    sample = sample_with("report_data == a", a="01", expected_report_data="02", expected_chip="AB")
    data, chip = claims_of(sample, frozenset())
    assert (data.claim, chip.claim) == ("report_data", "chip")
    assert chip.holds({"chip": "ab"})
    assert not chip.holds({"chip": "abcd"})
    assert not chip.holds({"chip": 0xAB})
    assert claims_of(sample, frozenset({"chip"})) == (data,)


def test_an_input_that_nothing_uses_is_told() -> None:
    sample = sample_with("report_data == a", a="01", audience="x", expected_b="02", nonce="03")
    assert unread(sample, frozenset()) == ("audience",)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("report_data == SHA-256(a || 'b == c') || zeros(2)", {"a_hex"}),
        ("report_data[0:1] == nonce; TEE user_data == b + a", {"expected_nonce", "b", "a_hex"}),
        ("user_data == DER SubjectPublicKeyInfo of the TLS certificate", {TLS_INPUT}),
        ("the quote says so: a == b with c", {"b", "c"}),
        ("a", set()),
    ],
)
def test_a_rule_uses_the_inputs_it_is_read_with(text: str, used: set[str]) -> None:
    names = ("a_hex", "b", "c", "report_data", "user_data", "zeros", "SHA", "256", "certificate")
    given = dict.fromkeys(names, "00") | {"expected_nonce": "00", TLS_INPUT: "00"}
    assert inputs_of(sample_with(text, **given)) == used


def test_every_clause_of_a_rule_counts() -> None:
    first, second = binding_rules(
        sample_with("report_data[0:1] == a; report_data[1:3] == b", a="01", b="0203"), {}
    )
    assert first.holds({"report_data": "010203"})
    assert second.holds({"report_data": "010203"})
    assert not second.holds({"report_data": "010204"})


@pytest.mark.parametrize(
    "text",
    [
        "", "report_data", "report_data ==", "report_data == ", "report_data == SHA-256(a",
        "report_data == a)", "report_data == a ||", "report_data == a | b", "report_data = a",
        "report_data == a +b",
        "report_data == MD5(a)", "report_data == SHA-256()", "report_data == a;; ", "a == a b",
        "report_data == " + "SHA-256(" * 6 + "a" + ")" * 6, "x" * 2000,
    ],
)  # fmt: skip
def test_a_rule_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        binding_rules(sample_with(text, a="00"), {})


def test_a_rule_may_name_a_value_of_the_run() -> None:
    (rule,) = binding_rules(
        sample_with("report_data == gpu_evidence_hash"), {"gpu_evidence_hash": b"\1"}
    )
    assert (rule.value, rule.terms) == (b"\1", (b"\1",))
