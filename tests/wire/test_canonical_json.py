"""JSON that two parsers could read differently never gets in; evj1 has one spelling."""

from __future__ import annotations

import pytest

from wire.canonical import DIGITS_MAX, encode, parse_evj1, parse_strict
from wire.errors import MalformedError


def test_evj1_sorts_keys_and_leaves_no_spaces():
    assert encode({"b": 1, "a": ["é", None, True, -5]}) == '{"a":["é",null,true,-5],"b":1}'.encode()


def test_evj1_keeps_unicode_and_escapes_controls_as_rfc_8785_does():
    assert encode("€\n\x1f\x7f\u2028") == '"€\\n\\u001f\x7f\u2028"'.encode()


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        float("nan"),
        {"é": 1},
        {"": 1},
        {1: 1},
        {"a\n": 1},
        2**53,
        -(2**53),
        "\ud800",
        b"bytes",
        {"a": {1, 2}},
    ],
)
def test_evj1_refuses_what_has_no_single_spelling(value):
    with pytest.raises(MalformedError):
        encode({"v": value} if not isinstance(value, dict) else value)


def test_evj1_accepts_the_largest_exact_integers():
    assert encode([2**53 - 1, -(2**53 - 1)]) == b"[9007199254740991,-9007199254740991]"


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b'{"a":"\\u00e9"}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":-0}',
        b"[1]",
        b"1",
        b"",
    ],
)
def test_parse_evj1_refuses_every_other_spelling(data):
    with pytest.raises(MalformedError):
        parse_evj1(data)


def test_parse_evj1_returns_the_object_and_keeps_the_limit():
    assert parse_evj1(b'{"a":1}', limit=7) == {"a": 1}
    with pytest.raises(MalformedError, match="at most 6 bytes"):
        parse_evj1(b'{"a":1}', limit=6)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a":1,"a":1}', "repeats a key"),
        (b'{"x":{"a":1,"\\u0061":2}}', "repeats a key"),
        (b'{"x" : {"a" : ["b"], "c" : "d", "a" : 1}}', "repeats a key"),
        (b'["\\"", {"a":1,"a":2}]', "repeats a key"),
        ('{"é":1,"é":2}'.encode(), "repeats a key"),
        (b"NaN", "not a number"),
        (b"[Infinity]", "not a number"),
        (b"[-Infinity]", "not a number"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 30 + b"]", "digits"),
        (b"[" * 9 + b"]" * 9, "nested"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "nested"),
        (b"[" * 500_000, "nested|not well formed"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b"\xef\xbb\xbf{}", "not well formed"),
        (b'{"a":1}x', "not well formed"),
        (b"{'a':1}", "not well formed"),
        ('{"a":1}'.encode("utf-16"), "UTF-8|not well formed"),
        (b"", "not well formed"),
        (b'"a\nb"', "not well formed"),
    ],
)
def test_strict_json_refuses(data, words):
    with pytest.raises(MalformedError, match=words):
        parse_strict(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"[[[[[[[[1]]]]]]]]", [[[[[[[[1]]]]]]]]),
        (b'{"t":0.7,"n":-1}', {"t": 0.7, "n": -1}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b' {"b":1 , "a":null}\n', {"b": 1, "a": None}),
    ],
)
def test_strict_json_accepts(data, value):
    assert parse_strict(data) == value


@pytest.mark.parametrize(
    "place",
    ["{}", "[{}]", "[0,{}]", '{{"a":{}}}', "[ {}]", "[\t{}]", "[\r{}]", "[\n{}]", '["\\n",{}]'],
)
def test_strict_json_refuses_a_long_number_wherever_one_may_stand(place):
    assert DIGITS_MAX == 24
    for digits, sign in ((25, ""), (24, "-"), (5000, "")):
        with pytest.raises(MalformedError, match="more than 24 digits"):
            parse_strict(place.format(sign + "7" * digits).encode())
    for literal in ("7" * 24, "-" + "7" * 23):
        assert literal in str(parse_strict(place.format(literal).encode()))


def test_strict_json_has_no_limit_for_digits_in_a_text():
    assert parse_strict(b'["' + b"7" * 5000 + b'", 1]') == ["7" * 5000, 1]


def test_strict_json_counts_depth_from_the_outermost_container():
    assert parse_strict(b"1", max_depth=0) == 1
    with pytest.raises(MalformedError, match="deeper than 0"):
        parse_strict(b"[]", max_depth=0)
    assert parse_strict(b"[[]]", max_depth=2) == [[]]


def test_strict_json_keeps_the_size_limit():
    with pytest.raises(MalformedError, match="at most 3 bytes, found 4"):
        parse_strict(b"1234", max_bytes=3)


@pytest.mark.parametrize(
    "data", [b"[0,0,0]", b"[[[[]]]]", b'{"":{"":{"":{}}}}', b'{"a":[",,"]}', b"[,,,"]
)
def test_strict_json_counts_commas_and_opening_brackets_before_it_parses(data):
    with pytest.raises(MalformedError, match=r"JSON: at most 2 items, found [34]"):
        parse_strict(data, max_items=2)
    with pytest.raises(MalformedError, match=r"JSON: at most 2 items, found [34]"):
        parse_evj1(data, max_items=2)
    if data != b"[,,,":
        assert parse_strict(data, max_items=4) == parse_strict(data)


def test_a_refusal_shows_no_content():
    with pytest.raises(MalformedError) as caught:
        parse_strict(b'{"my secret prompt":1,}')
    assert "secret" not in caught.value.diagnostics()
    assert caught.value.__cause__ is None
