"""`attestation.reasons` is the list of reason codes: complete, specified, and each with a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import attestation
from attestation.binding import report32, report_data
from attestation.measurement import combine, tree_digest
from attestation.reasons import CODES

HERE = Path(__file__).parent
PACKAGE = Path(attestation.__file__).parent
DOCS = HERE.parents[1] / "docs" / "spec"
SPEC = DOCS / "evidence.md"
# Functions whose first or second argument is a code, and keywords that hold one.
CALLS = frozenset({"refused", "_refused", "_refuse", "Reason", "missing", "run", "_invalid"})
KEYWORDS = frozenset({"code", "malformed", "reasons"})
# What stands where a step did not run and gave no reason: no input is known that leads there.
GUARD = "check_not_run"
CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")


def raised() -> set[str]:
    """Every constant in the source that stands where a reason code does."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else None
            name = getattr(node.func, "id", name)
            places = list(node.args[:3]) if name in CALLS else []
            places += [item.value for item in node.keywords if item.arg in KEYWORDS]
            for place in places:
                for leaf in place.elts if isinstance(place, ast.Tuple) else [place]:
                    value = getattr(leaf, "value", None)
                    if isinstance(value, str) and CODE.fullmatch(value):
                        found.add(value)
    return found


def literals() -> set[str]:
    """Every string constant of the package but those of the table."""
    return {
        node.value
        for path in PACKAGE.rglob("*.py")
        if path.name != "reasons.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_code_that_is_raised_is_in_the_table() -> None:
    assert raised() - set(CODES) == set()


def test_every_code_of_the_table_is_raised_somewhere() -> None:
    assert set(CODES) - literals() == set()


def test_every_code_has_a_meaning_of_its_own() -> None:
    assert all(CODE.fullmatch(code) or code in {"denied", "revoked"} for code in CODES)
    assert len(set(CODES.values())) == len(CODES)


def test_every_code_is_asserted_by_a_test() -> None:
    folder = HERE.parent
    text = "\n".join(path.read_text() for path in folder.rglob("*.py") if path != Path(__file__))
    quoted = {code for code in CODES if f'"{code}"' in text or f"'{code}'" in text}
    assert set(CODES) - quoted == {GUARD}


def test_the_specification_lists_every_code() -> None:
    text = "\n".join(path.read_text() for path in sorted(DOCS.glob("evidence*.md")))
    assert {code for code in CODES if f"`{code}`" not in text} == set()


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
