"""What messages show of a stranger's value: enough to recognise it, never more, never a text."""

from __future__ import annotations

import pytest

from wire.excerpt import LISTED_MAX, SHOWN_MAX, json_kind, json_value, listed, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none"),
        ("", "''"),
        ("text/plain", "'text/plain'"),
        (b"POST", "'POST'"),
        ("\x1b[2J\n", "'?[2J?'"),
        ("\u202eabc", "'?abc'"),
        ("a" * SHOWN_MAX, f"'{'a' * SHOWN_MAX}'"),
        ("a" * (SHOWN_MAX + 1), f"'{'a' * SHOWN_MAX}…'"),
    ],
)
def test_a_value_is_shown_short_printable_and_on_one_line(
    value: str | bytes | None, expected: str
) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "none"),
        (["b", "a"], "a, b"),
        (["sha256:" + "a" * 64], "sha256:" + "a" * 16 + "…"),
        ([f"k{n}" for n in range(LISTED_MAX + 2)], "k0, k1, k2 and 2 more"),
        (["\x1b"], "?"),
    ],
)
def test_accepted_values_are_listed_and_the_rest_is_counted(
    values: list[str], expected: str
) -> None:
    assert listed(values) == expected


@pytest.mark.parametrize(
    ("value", "kind", "spelled"),
    [
        (True, "a boolean", "true"),
        (7, "a number", "7"),
        (2.5, "a number", "2.5"),
        (1 << 80, "a number", "a number of more than 64 bits"),
        (None, "null", "null"),
        ("my secret prompt", "a string", "a string"),
        (["my secret prompt"], "an array", "an array"),
        ({"a": "my secret prompt"}, "an object", "an object"),
    ],
)
def test_numbers_are_repeated_and_texts_are_not(value: object, kind: str, spelled: str) -> None:
    assert (json_kind(value), json_value(value)) == (kind, spelled)
