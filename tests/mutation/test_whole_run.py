"""The tool on a toy package with tests of known weakness."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMITS = """
LIMIT = 10
TABLE = {"a": 1}[chr(97 + 0)]

def check(length: int) -> bool:
    if length > LIMIT:
        raise ValueError
    return True

def unused(a: int) -> int:
    return a + 1

def endless(n: int) -> int:
    while n > 0:
        n -= 1
    return n
"""
WEAK = """
import pytest
from toy.limits import check, endless

def test_a_small_one_passes():
    assert check(3) is True

def test_a_large_one_is_refused():
    with pytest.raises(ValueError):
        check(50)

def test_it_ends():
    assert endless(3) == 0
"""


def run(folder: Path, tests: str, *options: str, source: str = LIMITS) -> Any:
    (folder / "toy").mkdir(exist_ok=True)
    (folder / "toy" / "__init__.py").touch()
    (folder / "toy" / "limits.py").write_text(source)
    (folder / "test_toy.py").write_text(tests)
    command = [sys.executable, "-m", "mutation", "--module", "toy/limits.py"]
    command += ["--tests", "test_toy.py", "--json", "--patience", "0.5", *options]
    path = os.pathsep.join((str(folder), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def left(result: Any) -> set[str]:
    return {line.partition(" [")[0] for line in json.loads(result.stdout)["left"]}


def test_exactly_the_faults_that_weak_tests_miss_are_left(tmp_path: Path) -> None:
    result = run(tmp_path, WEAK)
    assert left(result) == {
        "survived: toy/limits.py: LIMIT: constant: 10 → 11",
        "survived: toy/limits.py: LIMIT: constant: 10 → 9",
        "broken: toy/limits.py: TABLE: constant: 97 → 98",
        "broken: toy/limits.py: TABLE: constant: 97 → 96",
        "broken: toy/limits.py: TABLE: constant: 0 → 1",
        "broken: toy/limits.py: TABLE: constant: 0 → -1",
        "survived: toy/limits.py: TABLE: arithmetic: 97 + 0 → 97 - 0",
        "survived: toy/limits.py: TABLE: constant: 1 → 2",
        "survived: toy/limits.py: TABLE: constant: 1 → 0",
        "survived: toy/limits.py: check: comparison: length > LIMIT → length >= LIMIT",
        "not covered: toy/limits.py: unused: result: return a + 1 → return 0",
        "not covered: toy/limits.py: unused: arithmetic: a + 1 → a - 1",
        "not covered: toy/limits.py: unused: constant: 1 → 2",
        "not covered: toy/limits.py: unused: constant: 1 → 0",
        "survived: toy/limits.py: endless: result: return n → return 0",
    }
    assert result.returncode == 0


def test_a_test_at_the_limit_kills_what_was_left_there(tmp_path: Path) -> None:
    sharp = WEAK + "\ndef test_the_limit_itself_passes():\n    assert check(10)\n"
    assert (
        "survived: toy/limits.py: check: comparison: length > LIMIT → length >= LIMIT"
        not in left(run(tmp_path, sharp, "--line", "6"))
    )


def test_a_test_that_fails_without_a_fault_kills_nothing(tmp_path: Path) -> None:
    failing = "from toy.limits import check\ndef test_it():\n    assert not check(3)\n"
    result = run(tmp_path, failing)
    assert json.loads(result.stdout)["modules"]["toy/limits.py"].keys() == {"not covered"}


def test_a_harness_that_fails_without_a_fault_gives_no_verdict(tmp_path: Path) -> None:
    # Passes where it is measured, and never again: as tests do when a machine lost what they need.
    once = """
from pathlib import Path
from toy.limits import check
def test_it():
    Path("ran").write_text(Path("ran").read_text() + "x" if Path("ran").exists() else "x")
    assert check(3) and Path("ran").read_text() == "x"
"""
    result = run(tmp_path, once)
    assert (result.returncode, result.stdout) == (2, "")
    assert "no verdicts" in result.stderr


def test_a_killer_that_fails_without_a_fault_later_gives_no_verdict(tmp_path: Path) -> None:
    twice = """
from pathlib import Path
from toy.limits import check
def test_it():
    with Path("ran").open("a") as log:
        log.write("x")
    assert check(3) and len(Path("ran").read_text()) <= 2
"""
    result = run(tmp_path, twice)
    assert (result.returncode, result.stdout) == (2, "")


def test_a_sample_is_the_same_each_time_and_a_share_can_be_required(tmp_path: Path) -> None:
    found = [run(tmp_path, WEAK, "--sample", "6", "--seed", "4", "--require", "99") for _ in "ab"]
    assert found[0].stdout == found[1].stdout
    assert sum(json.loads(found[0].stdout)["modules"]["toy/limits.py"].values()) == 6
    assert found[0].returncode == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_fault_that_does_not_end_counts_as_noticed(tmp_path: Path, jobs: str) -> None:
    result = run(tmp_path, WEAK, "--line", "15", "--jobs", jobs)
    assert result.stdout, result.stderr
    assert json.loads(result.stdout)["modules"]["toy/limits.py"]["timeout"] == 2


def test_what_an_earlier_run_left_can_be_asked_again_after_an_edit(tmp_path: Path) -> None:
    first = "toy/limits.py: check: comparison: length > LIMIT → length >= LIMIT"
    second = "toy/limits.py: unused: arithmetic: a + 1 → a - 1"
    third = "toy/limits.py: endless: result: return n → return 0"
    written = f"a title\nsurvived: {first} [line 6, 2 tests]\n{second} (2 times)\n{third}\n"
    (tmp_path / "left.txt").write_text(written)
    edited = '"""Another first line."""\n' + LIMITS
    again = run(tmp_path, WEAK, "--again", "left.txt", source=edited)
    expected = {f"survived: {first}", f"not covered: {second}", f"survived: {third}"}
    assert left(again) == expected, again.stderr


def test_without_a_module_there_is_nothing_to_do() -> None:
    command = [sys.executable, "-m", "mutation"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "expected --module or --short" in result.stderr
