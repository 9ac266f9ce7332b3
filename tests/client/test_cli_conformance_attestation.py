"""`anchorhold conformance attestation` as others use it: their own index, good and bad."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
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


def test_an_index_of_ones_own_runs(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = index(tmp_path, sample(tmp_path))
    code, out, _ = run("conformance", "attestation", path)
    assert code == 0
    assert "untrusted_root" in out
    assert "1 of 1 samples gave what the index expects" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run("conformance", "attestation", path)
    assert all(len(line) <= 40 for line in out.splitlines())


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
        (
            {"sha256": {"document.cbor": "00" * 32}},
            "found another SHA-256",
        ),
        ({"files": {"document": "a\0b"}}, "no name that a file can have"),
        ({"files": {"document": "n" * 5000}}, "no name that a file can have"),
        ({"files": {"document": "link/../../secret"}}, "lies outside the index's folder"),
        ({"files": {"document": "device"}}, "no plain file"),
        ({"files": {"document": "circle"}}, "no name that a file can have"),
        ({"files": {"document": "pipe"}}, "no plain file"),
        ({"files": {"document": "large"}}, "expected at most 16777216"),
        ({"kind": "moon-rock"}, "kind moon-rock is not known"),
        ({"verify_at": "2026-06-01"}, "verify_at: found '2026-06-01'"),
        ({"expected": {"claims": []}}, "claims: found an array, expected an object"),
    ],
)
def test_one_bad_sample_does_not_end_the_run(
    run: Any, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path.parent)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    bad = {**sample(tmp_path, **changes), "id": "bad"}
    code, out, _ = run(
        "conformance", "attestation", index(tmp_path, bad, sample(tmp_path)), "--json"
    )
    assert code == 2
    first, second = json.loads(out)["samples"]
    assert any(fault in sentence for sentence in first["faults"]), first
    assert second["ok"]


def of_many(tmp_path: Path, files: dict[str, str]) -> dict[str, Any]:
    return {**sample(tmp_path), "id": "bad", "files": files, "sha256": {}}


def test_a_file_under_many_spellings_of_its_name_is_read_once(run: Any, tmp_path: Path) -> None:
    """Each spelling was one more copy in memory: an index of 4 kB took gigabytes."""
    spellings = {f"role{n}": "./" * n + "large" for n in range(100)}
    bad = of_many(tmp_path, spellings)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(16 << 20)
    path = index(tmp_path, bad, sample(tmp_path))
    tracemalloc.start()
    try:
        code, out, _ = run("conformance", "attestation", path, "--json")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert code == 2
    assert json.loads(out)["samples"][1]["ok"]
    assert most < 100 << 20


def test_a_file_counts_for_each_role_that_it_is_looked_at_under(run: Any, tmp_path: Path) -> None:
    """Under each it is parsed again: an index of 4 kB took ten minutes."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(16 << 20)
    four = of_many(tmp_path, {f"role{n}": "large" for n in range(4)})
    five = of_many(tmp_path, {f"role{n}": "large" for n in range(5)})
    spelled = of_many(tmp_path, {f"role{n}": "./" * n + "large" for n in range(5)})
    cases = [{**case, "id": str(at)} for at, case in enumerate((four, five, spelled))]
    _, out, _ = run("conformance", "attestation", index(tmp_path, *cases), "--json")
    found = ["in all files" in str(case["faults"]) for case in json.loads(out)["samples"]]
    assert found == [False, True, True]


def test_the_files_of_a_sample_have_an_end_in_number_and_in_all(run: Any, tmp_path: Path) -> None:
    for number in range(5):
        with (tmp_path / f"large{number}").open("wb") as file:
            file.truncate(16 << 20)
    five = of_many(tmp_path, {f"role{number}": f"large{number}" for number in range(5)})
    roles = of_many(tmp_path, {f"role{number}": "document.cbor" for number in range(257)})
    path = index(tmp_path, five, {**roles, "id": "worse"}, sample(tmp_path))
    code, out, _ = run("conformance", "attestation", path, "--json")
    assert code == 2
    first, second, third = json.loads(out)["samples"]
    assert "expected at most 67108864 bytes in all files" in first["faults"][0]
    assert second["faults"] == ["sample files: found 257, expected at most 256"]
    assert third["ok"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "k" * 5000},
        {"expected": {"authentic": True, "claims": {"c" * 5000: 1}}},
        {"expected": {"authentic": False, "reasons": ["r" * 5000]}},
    ],
)
def test_no_word_of_an_index_makes_a_line_wider_than_80(
    run: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    code, out, _ = run("conformance", "attestation", index(tmp_path, sample(tmp_path, **changes)))
    assert (code, "FAIL" in out) == (2, True)
    assert all(len(line) <= 80 for line in out.splitlines()), out


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


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_at_the_ends_of_the_calendar_is_a_time(run: Any, tmp_path: Path, at: str) -> None:
    path = index(tmp_path, sample(tmp_path, verify_at=at))
    code, out, _ = run("conformance", "attestation", path)
    assert code in (0, 2)
    assert "of 1 samples" in out


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_only_true_false_and_null_are_verdicts(run: Any, tmp_path: Path, value: object) -> None:
    wrong = sample(tmp_path, expected={"authentic": value})
    code, out, _ = run("conformance", "attestation", index(tmp_path, wrong))
    assert (code, "expected true|false|null" in " ".join(out.split())) == (2, True)


def test_a_root_that_is_no_anchor_is_said(run: Any, tmp_path: Path) -> None:
    path = index(tmp_path, sample(tmp_path), roots={"mine" * 30: {"file": "mine.pem"}})
    code, _, err = run("conformance", "attestation", path)
    assert (code, "no anchor" in " ".join(err.split())) == (0, True)
    assert all(len(line) <= 80 for line in err.splitlines())


def test_names_of_any_length_keep_the_lines_short(run: Any, tmp_path: Path) -> None:
    path = index(
        tmp_path, {**sample(tmp_path), "id": "long " * 40_000},
        strict_policy={"amd": ["moon" * 40_000]},
    )  # fmt: skip
    code, out, err = run("conformance", "attestation", path)
    assert code == 0
    assert all(len(line) <= 80 for line in (out + err).splitlines())
    code, _, err = run("conformance", "attestation", path, "--id", "absent")
    assert (code, len(err) < 400) == (4, True)


def test_a_set_of_many_thousand_samples_is_looked_through(run: Any, tmp_path: Path) -> None:
    one = sample(tmp_path)
    many = [{**one, "id": str(number)} for number in range(20_000)]
    code, out, _ = run("conformance", "attestation", index(tmp_path, *many), "--id", "19999")
    assert (code, "1 of 1" in out) == (0, True)


@pytest.mark.parametrize("columns", ["40", "80"])
def test_an_id_wider_than_the_terminal_is_folded_and_stays_whole(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    name = "-".join(f"part{number:03}" for number in range(14))
    code, out, _ = run("conformance", "attestation", index(tmp_path, sample(tmp_path, id=name)))
    assert code == 0
    assert all(len(line) <= int(columns) for line in out.splitlines())
    assert name in "".join(line[6:] for line in out.splitlines())
