"""`parse_strict` counts texts and digits at once; this says one by one what it must say."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wire.canonical import DIGITS_MAX, parse_strict
from wire.errors import MalformedError

DEPTH = 3
NUMBERS = (
    "0", "-0", "7", "-12", "1.5", "-1e3", "1e999", "-1e999", "0.1e-400", "NaN", "Infinity",
    "-Infinity", "01", "1" * DIGITS_MAX, "1" * (DIGITS_MAX + 1), "-" + "1" * (DIGITS_MAX - 1),
    "-" + "1" * DIGITS_MAX, "9" * 5000, "1" * 400 + ".5", "0." + "1" * 400,
)  # fmt: skip
TEXTS = (
    '""', '"a"', '"b"', '"é"', '"\\u00e9"', '"\\ud800"', '"\\udc00"', '"\\ud83d\\ude00"',
    '"\\u0061"', '"' + "3" * 40 + '"', '"[{"', '"\\\\u"',
)  # fmt: skip


BLANKS = ("", "", " ", "\t", "\n", "\r")


def _joined(sign: str, items: st.SearchStrategy[list[str]]) -> st.SearchStrategy[str]:
    """The items with a sign between them, and blanks, of one sort, around it."""
    return st.tuples(st.sampled_from(BLANKS), items).map(
        lambda both: f"{both[0]}{sign}{both[0]}".join(both[1])
    )


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return _joined(",", st.lists(inner, max_size=4)).map(lambda items: f"[{items}]")


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(TEXTS)
    pair = _joined(":", st.tuples(names, inner).map(list))
    return _joined(",", st.lists(pair, max_size=4)).map(lambda items: f"{{{items}}}")


DOCUMENTS = st.recursive(
    st.sampled_from((*NUMBERS, *TEXTS, "true", "null", "", "}")),
    lambda inner: _arrays(inner) | _objects(inner),
    max_leaves=12,
)


class RefusedError(Exception):
    """By the rules as they are written in the docstring of `parse_strict`."""


def rules(text: str) -> Any:
    """The value of `text`, by one call a number, object and item."""

    def integer(literal: str) -> int:
        if len(literal) > DIGITS_MAX:
            raise RefusedError
        return int(literal)

    def constant(name: str) -> None:
        raise RefusedError

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise RefusedError
        return dict(pairs)

    def walk(value: Any, depth: int) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise RefusedError
        if isinstance(value, str) and any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise RefusedError
        if isinstance(value, dict | list):
            if depth == DEPTH:
                raise RefusedError
            for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
                walk(item, depth + 1)

    try:
        found = json.loads(
            text, object_pairs_hook=members, parse_constant=constant, parse_int=integer
        )
    except json.JSONDecodeError:
        raise RefusedError from None
    walk(found, 0)
    return found


@settings(max_examples=400, deadline=None)
@given(DOCUMENTS)
@example("[[[]]]")
@example("[[[[]]]]")
@example('[[[{"a":1}]]]')
@example('["\\ud83d","\\ude00"]')
@example('{"\\ud800":1}')
@example("[1e999]")
@example("[" + "1" * (DIGITS_MAX + 1) + "]")
@example("[-" + "1" * DIGITS_MAX + "]")
@example('{"a":1,"a":1}')
@example('{"a":"b","a":["c",{"b":"d"}]}')
@example('{"a":{"b":1,"b":2},"c":"\\n"}')
@example('[{"a":"a"},{"a":":"}]')
def test_the_parser_takes_and_refuses_what_the_rules_say(text: str) -> None:
    try:
        expected = rules(text)
    except RefusedError:
        with pytest.raises(MalformedError):
            parse_strict(text.encode("utf-8"), max_depth=DEPTH)
    else:
        found = parse_strict(text.encode("utf-8"), max_depth=DEPTH)
        assert repr(found) == repr(expected)  # 1, 1.0 and True are equal, but not the same
