"""docs/spec/attacks.md: every attack names a test, and every test it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/spec/attacks.md"
TEXT = PAGE.read_text()
NAME = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = [
    line.strip("| ").split(" | ")
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith(("| attack |", "|---"))
]
NAMED = sorted(set(NAME.findall(TEXT)))


@cache
def names_in(path: str) -> frozenset[str]:
    """Names of the tests in a file, read without running it."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part)
def test_a_test_that_the_page_names_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_attack_names_what_shows_it_refused() -> None:
    assert len(ROWS) > 70
    for attack, *refused_by in ROWS:
        assert len(refused_by) == 1, attack
        assert NAME.search(refused_by[0]), attack


def test_the_page_names_tests_in_one_form() -> None:
    assert TEXT.count("::test_") == len(NAME.findall(TEXT))
    for row in ROWS:
        assert len(NAME.findall(row[1])) == len(set(NAME.findall(row[1]))), row[0]


def test_what_is_out_of_reach_is_said_among_the_limitations() -> None:
    limits = (ROOT / "LIMITATIONS.md").read_text()
    out_of_reach = [attack for attack, cell in ROWS if "LIMITATIONS.md" in cell]
    assert len(out_of_reach) == 2
    for word in ("ACPI", "null cipher", "memory bus"):
        assert word in limits
