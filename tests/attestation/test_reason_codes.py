"""The docstring of `appraise` is the list of reason codes: complete, and each with a test."""

from __future__ import annotations

import re
from pathlib import Path

import attestation.appraise as module
from attestation.binding import report32, report_data
from attestation.measurement import combine, tree_digest

HERE = Path(__file__).parent
PACKAGE = Path(module.__file__).parent
SPEC = HERE.parents[1] / "docs" / "spec" / "evidence.md"

# Codes of single functions that an appraisal never reports, or only in place of another.
ELSEWHERE = {
    "nonce_mismatch",  # also the code of a quote's own challenge
    "activation_refused",  # the worker's side: its TPM will not answer
    "check_not_run",  # the guard for a step that did not run and gave no reason
}


def documented() -> set[str]:
    assert module.__doc__ is not None
    steps = module.__doc__.partition(" 0. ")[2].partition("What steps the CALLER")[0]
    column = "\n".join(line[41:] for line in (" 0. " + steps).splitlines())
    return set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b|\bdenied\b", column))


def raised() -> set[str]:
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        for pattern in (
            r"_refused\(\s*\"([a-z_]+)\"",
            r"reasons=\(\"([a-z_]+)\"",
            r"missing\(\s*step, \"([a-z_]+)\"",
            r"Reason\(\"([a-z_]+)\"",
            r"\"([a-z]+_malformed)\"",
            r", \"(report_data_mismatch)\"",
        ):
            found |= set(re.findall(pattern, source))
    return found


def test_every_reason_code_raised_is_documented_and_every_documented_one_raised() -> None:
    assert raised() - ELSEWHERE == documented() - ELSEWHERE


def test_every_documented_reason_code_is_asserted_by_a_test() -> None:
    tests = "\n".join(path.read_text() for path in HERE.glob("test_*.py") if path != Path(__file__))
    assert {code for code in documented() if f'"{code}"' not in tests} == set()


def test_the_specification_lists_the_same_codes() -> None:
    text = SPEC.read_text()
    assert {code for code in documented() if f"`{code}`" not in text} == set()


def test_the_specifications_examples_are_true() -> None:
    text = SPEC.read_text()
    empty = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    tree = tree_digest([("a/b", empty), ("c", empty)])
    for value in (
        report_data(b'{"v":1}').hex(),
        report32(b'{"v":1}').hex(),
        tree,
        combine({"first_party": tree, "model": tree}),
    ):
        assert f"`{value}`" in text
