"""The conformance runner agrees with published samples, and notices when it should not.

The samples come from $ANCHORHOLD_VECTORS; each is a test of its own. The tests after them change
one expectation or one file of an agreeing sample, and the runner must say so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attestation.conformance.index import INDEX_MAX, parse_index
from attestation.conformance.run import run_sample
from attestation.conformance.strict import strict_rule, unknown_sentences
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
        ({"inputs__binding": "user_data == the moon"}, "is not understood"),
        ({"inputs__binding": "user_data == SHA-256(absent)"}, "names no input 'absent'"),
        ({"inputs__expected_nonce_hex": "zz"}, "expected hex as expected_nonce_hex"),
        ({"inputs__expected_nonce_hex": "9009"}, "authentic: found False, expected True"),
        ({"kind": "moon-rock"}, "kind moon-rock is not known"),
        ({"verify_at": "2021-01-01T00:00:00Z"}, "authentic: found False, expected True"),
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
        (b'{"schema":"attestation-vectors/2"}', "expected \"attestation-vectors/1\""),
        (b'{"schema":"attestation-vectors/1","vectors":[]}', "non-empty array"),
        (b'{"schema":"attestation-vectors/1","vectors":[1]}', r"vectors\[0\]"),
        (b'{"schema":"attestation-vectors/1","vectors":[{"id":"a","kind":"k"}]}', "expected"),
        (b'{"schema":"x","schema":"x"}', "repeats a key"),
    ],
)
def test_what_is_no_index_is_refused_with_a_sentence(raw: bytes, sentence: str) -> None:
    with pytest.raises(MalformedError, match=sentence):
        parse_index(raw)


def test_an_index_has_a_largest_size() -> None:
    with pytest.raises(MalformedError):
        parse_index(b" " * (INDEX_MAX + 1))
