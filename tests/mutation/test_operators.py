"""Each operator makes the faults it says, and leaves alone what no test can tell apart."""

from __future__ import annotations

import pytest

from mutation.operators import mutants


def changes(source: str) -> list[str]:
    return [mutant.change for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a == b", ["a == b → a != b"]),
        ("a < b <= c", ["a < b <= c → a <= b <= c", "a < b <= c → a < b < c"]),
        ("a in b", ["a in b → a not in b"]),
        ("a is not None", ["a is not None → a is None"]),
        ("a and b and c", ["a and b and c → a or b or c"]),
        ("a or b", ["a or b → a and b"]),
        ("not a", ["not a → a"]),
        ("x = 7", ["7 → 8", "7 → 6"]),
        ("x = True", ["True → False"]),
        ("a[n:m]", ["n → n + 1", "n → n - 1", "m → m + 1", "m → m - 1"]),
        ("a[:4]", ["4 → 5", "4 → 3"]),
        ("a & b", ["a & b → a | b"]),
        ("a >> b", ["a >> b → a << b"]),
        ("a -= b", ["a -= b → a += b"]),
        ("x = min(a, b)", ["min(a, b) → max(a, b)"]),
        ("x = all(a)", ["all(a) → any(a)"]),
        ("check(a)", ["check(a) → pass"]),
        ("raise wrong", ["raise wrong → pass"]),
        ("x = a if b else c", ["b → not b"]),
        ("if a < b: pass", ["a < b → not a < b", "a < b → a <= b"]),
        ("if a == b: pass", ["a == b → a != b"]),
        ("[x for x in y if x]", ["x → not x"]),
    ],
)
def test_an_expression_gets_exactly_these_faults(source: str, expected: list[str]) -> None:
    assert changes(source) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("str", "return ''"),
        ("bytes", "return b''"),
        ("bool", "return not x"),
        ("tuple[int, ...]", "return ()"),
        ("int | None", "return None"),
        ("Thing", "return None"),
    ],
)
def test_a_result_becomes_an_empty_one_of_its_type(kind: str, expected: str) -> None:
    assert changes(f"def f(x) -> {kind}:\n    return x") == [f"return x → {expected}"]


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring of 7 words, not < 5."""',
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1",
        "assert a < 1",
        "x: Literal[1]",
        "def f(a: Literal[1]) -> Literal[2]: pass",
        "@dataclass(frozen=True, slots=True)\nclass A: pass",
        "x = f'found {a + 1}, expected {b < c}'",
        "def f() -> str:\n    return f'{x} bytes'",
        "def f() -> str:\n    return 'equal as expected'",
        "x = isinstance(a, B | C)",
        "return_none = lambda: None",
    ],
)
def test_what_no_test_can_tell_apart_is_left_alone(source: str) -> None:
    assert changes(source) == []


def test_compiling_a_fault_leaves_the_next_one_clean() -> None:
    first, second = mutants("x = a < b\ny = a > b")
    for _ in range(2):
        found: dict[str, object] = {"a": 1, "b": 1}
        exec(first.code("toy"), found)
        assert (found["x"], found["y"]) == (True, False)
        exec(second.code("toy"), found)
        assert (found["x"], found["y"]) == (False, True)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ("found.append(a)", False),
        ("found.append(a)\n    found.append(b)", True),
        ("for x in a:\n        found.append(x)", True),
        ("found.append(a)\n    fill(found)", True),
        ("found = a", True),
    ],
)
def test_the_first_of_a_list_of_one_is_not_asked_to_be_the_last(steps: str, left: bool) -> None:
    source = f"def f(a):\n    found: list[int] = []\n    {steps}\n    return found[0]"
    assert ("0 → -1" in changes(source)) == left
    assert "0 → 1" in changes(source)


def test_a_fault_is_named_by_what_it_is_in_and_not_by_its_line() -> None:
    source = "LIMIT = 1\nclass A:\n    SIZE: int = 2\n    def f(self):\n        x = not y\n"
    assert [m.where for m in mutants(source)] == ["LIMIT"] * 2 + ["A.SIZE"] * 2 + ["A.f"]


def test_a_fault_says_whether_it_runs_on_import() -> None:
    source = "LIMIT = 1\ndef f(a=2):\n    return 3\n"
    assert [(m.line, m.function) for m in mutants(source)] == [
        (1, False), (1, False), (2, False), (2, False), (3, True), (3, True),
    ]  # fmt: skip
