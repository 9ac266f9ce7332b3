"""One value, one encoding: the strict CBOR subset a receipt is written in."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.formats.cbor import Tagged
from evidence.cbor import decode, encode
from wire.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=8))
VALUES = st.recursive(
    st.one_of(st.integers(-(2**64), 2**64 - 1), st.binary(max_size=300), st.text(max_size=40)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=4,
)


@given(VALUES)
def test_what_is_encoded_decodes_to_itself(value: object) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=64))
def test_what_decodes_has_no_second_encoding(data: bytes) -> None:
    try:
        value = decode(data)
    except MalformedError:
        return
    assert encode(value) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "a length of 1"),
        ("1817", "shortest"),
        ("1900ff", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("5818", "a length of 24"),
        ("580100", "shortest"),
        ("5f4101ff", "definite"),
        ("9fff", "definite"),
        ("bfff", "definite"),
        ("1c", "reserved length"),
        ("f4", "simple"),
        ("f6", "simple"),
        ("f97e00", "simple"),
        ("61ff", "UTF-8"),
        ("0000", "1 bytes after the item"),
        ("a201000100", "key twice"),
        ("a202000100", "ascending"),
        ("a220000100", "ascending"),
        ("a1400" + "0", "key"),
        ("c000", "only tags"),
        ("d901" + "00" + "00", "only tags"),
        ("990200" + "00" * 512, "more items"),
        ("81" * 8 + "00", "nesting"),
        ("d2" * 8 + "00", "nesting"),
        ("5bffffffffffffffff", "a length of"),
        ("9b7fffffffffffffff", "an array of"),
    ],
)
def test_a_second_spelling_is_refused(data: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why) as caught:
        decode(bytes.fromhex(data))
    assert caught.value.code == "cbor_malformed"


def test_map_keys_are_sorted_by_their_encodings_not_by_length() -> None:
    # -1 encodes as 20, 395 as 19018b, 1 as 01: the old length-first order would put 20 second
    assert encode({-1: 0, 395: 0, 1: 0}).hex() == "a3" + "0100" + "19018b00" + "2000"


def test_input_larger_than_the_limit_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="at most"):
        decode(bytes(70_000))


@pytest.mark.parametrize("value", [True, None, 1.5, (1,), {1: None}])
def test_a_type_outside_the_subset_is_a_caller_bug(value: object) -> None:
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, Tagged(24, b"")])
def test_a_value_outside_the_subset_is_a_caller_bug(value: int | Tagged) -> None:
    with pytest.raises(ValueError, match="expected"):
        encode(value)


OUTSIDE = re.compile(r"\.|nan|inf|True|None|CBORSimpleValue|datetime|CBORTag")


def test_rfc8949_appendix_a_is_read_or_refused_as_documented(vectors: Path) -> None:
    cases = json.loads((vectors / "cbor/rfc8949-appendix-a.json").read_text())
    read = refused = 0
    for case in cases:
        data, shown = bytes.fromhex(case["hex"]), case["decoded_repr"]
        if not case["preferred_serialization"] or OUTSIDE.search(shown):
            with pytest.raises(MalformedError):
                decode(data)
            refused += 1
        else:
            value = decode(data)
            assert value == ast.literal_eval(shown)
            assert encode(value) == data
            read += 1
    assert (read, refused) == (19, 24)
