"""`anchorhold conformance attestation` as others use it: their own index, good and bad."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from simulators.nitro import NitroEnclave, NitroVendor

if TYPE_CHECKING:
    from pathlib import Path


NOW = 1_790_000_000
AT = "2026-09-21T13:33:20Z"


def sample(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Genuine in every way but its root, which is nobody's: what anybody can make."""
    document = NitroEnclave(NitroVendor(NOW)).document()
    (tmp_path / "document.cbor").write_bytes(document)
    expected = {
        "authentic": False, "strict": "reject", "reasons": ["untrusted_root"],
        "claims": {"digest": "SHA384"},
    }  # fmt: skip
    return {
        "id": "own",
        "kind": "aws-nitro-document",
        "files": {"document": "document.cbor"},
        "sha256": {"document.cbor": hashlib.sha256(document).hexdigest()},
        "verify_at": AT,
        "inputs": {},
        "expected": {**expected, **changes.pop("expected", {})},
        **changes,
    }


def index(tmp_path: Path, *samples: dict[str, Any], **members: Any) -> Path:
    path = tmp_path / "index.json"
    head = {"schema": "attestation-vectors/1", "vectors": list(samples)}
    path.write_text(json.dumps({**head, **members}))
    return path


def test_an_index_of_ones_own_runs(run: Any, tmp_path: Path) -> None:
    path = index(tmp_path, sample(tmp_path))
    code, out, _ = run("conformance", "attestation", path)
    assert code == 0
    assert "untrusted_root" in out
    assert "1 of 1 samples gave what the index expects" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_difference_is_exit_code_2_and_is_named(run: Any, tmp_path: Path) -> None:
    wrong = sample(tmp_path, expected={"authentic": True, "claims": {"digest": "SHA512"}})
    code, out, _ = run("conformance", "attestation", index(tmp_path, wrong), "--json")
    assert code == 2
    (found,) = json.loads(out)["samples"]
    assert found["differing"] == {"digest": {"found": "SHA384", "expected": "SHA512"}}
    assert found["faults"][0] == "authentic: found False, expected True"
    assert found["ms"] > 0


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"files": {"document": "../secret"}}, "lies outside the index's folder"),
        ({"files": {"document": "/etc/passwd"}}, "lies outside the index's folder"),
        ({"files": {"document": "absent.cbor"}}, "No such file"),
        ({"sha256": {"document.cbor": "00" * 32}}, "has not the SHA-256 the index gives"),
        ({"kind": "moon-rock"}, "kind moon-rock is not known"),
    ],
)
def test_one_bad_sample_does_not_end_the_run(
    run: Any, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    bad = {**sample(tmp_path, **changes), "id": "bad"}
    code, out, _ = run(
        "conformance", "attestation", index(tmp_path, bad, sample(tmp_path)), "--json"
    )
    assert code == 2
    first, second = json.loads(out)["samples"]
    assert any(fault in sentence for sentence in first["faults"]), first
    assert second["ok"]


def test_only_what_is_chosen_runs(run: Any, tmp_path: Path) -> None:
    one = sample(tmp_path)
    path = index(tmp_path, one, {**one, "id": "other"})
    code, out, _ = run("conformance", "attestation", path, "--id", "own")
    assert (code, "1 of 1" in out) == (0, True)
    code, _, err = run("conformance", "attestation", path, "--kind", "intel-tdx-quote")
    assert (code, "choose of: aws-nitro-document" in err) == (4, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "index file"),
        ("[]", "expected an object"),
        (json.dumps({"schema": "attestation-vectors/9"}), "attestation-vectors/1"),
        (json.dumps({"schema": "attestation-vectors/1", "vectors": []}), "non-empty"),
    ],
)
def test_what_is_no_index_is_exit_code_4(
    run: Any, tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "index.json"
    path.write_text(text)
    code, out, err = run("conformance", "attestation", path)
    assert (code, out) == (4, "")
    assert sentence in err


def test_a_sentence_of_a_strict_policy_that_is_not_known_is_said(run: Any, tmp_path: Path) -> None:
    path = index(tmp_path, sample(tmp_path), strict_policy={"amd": ["the moon is full"]})
    code, _, err = run("conformance", "attestation", path)
    assert code == 0
    assert "the moon is full" in err


def test_it_runs_without_the_test_suites_help(tmp_path: Path) -> None:
    path = index(tmp_path, sample(tmp_path))
    code = "from client.cli import main; main()"
    words = [sys.executable, "-c", code, "conformance", "attestation", str(path)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=50)
    assert found.returncode == 0, found.stderr
    assert "1 of 1 samples" in found.stdout
