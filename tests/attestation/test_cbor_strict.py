"""Strict CBOR: what a general codec reads, and one reading of it only."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.formats.cbor import Budget, Dialect, Tagged, decode
from wire.errors import MalformedError

PLAIN = Dialect("test", 4096, 6, 256)
OPEN = Dialect("test", 4096, 6, 256, frozenset({18}), indefinite_maps=True)

KEYS = st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=8))
LEAVES = st.one_of(
    st.integers(-(2**64), 2**64 - 1),
    st.binary(max_size=60),
    st.text(max_size=20),
    st.booleans(),
    st.none(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
def test_what_an_independent_encoder_writes_is_read_as_it_was(value: object) -> None:
    data = cbor2.dumps(value)
    try:
        found = decode(data, PLAIN)
    except MalformedError as refusal:  # deeper than the dialect allows
        assert "nesting" in refusal.message  # noqa: PT017 -- the only refusal of honest bytes
        return
    assert found == value
    assert repr(found) == repr(value)  # True is not 1


@given(st.binary(max_size=80))
def test_bytes_are_refused_or_read_as_an_independent_codec_reads_them(data: bytes) -> None:
    try:
        found = decode(data, PLAIN)
    except MalformedError:
        return
    assert cbor2.loads(data) == found


@given(st.binary(max_size=80))
def test_what_is_read_has_no_second_spelling(data: bytes) -> None:
    try:
        found = decode(data, PLAIN)
    except MalformedError:
        return
    assert cbor2.dumps(found) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "a length of 1"),
        ("0000", "1 bytes after"),
        ("1817", "shortest"),
        ("1900ff", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("580100", "shortest"),
        ("1c", "reserved"),
        ("5f4101ff", "indefinite"),
        ("7f6161ff", "indefinite"),
        ("9f01ff", "indefinite"),
        ("bf0102ff", "indefinite"),
        ("ff", "indefinite"),
        ("f93c00", "float"),
        ("fa3f800000", "float"),
        ("fb3ff0000000000000", "float"),
        ("f820", "float"),
        ("f7", "simple"),
        ("e0", "simple"),
        ("c11a00000000", "tag 1"),
        ("c249010000000000000000", "tag 2"),
        ("d81c8100", "tag 28"),
        ("61ff", "UTF-8"),
        ("62c328", "UTF-8"),
        ("a201000100", "twice"),
        ("a2616100616100", "twice"),
        ("a1f500", "map key"),
        ("a1410000", "map key"),
        ("a1800000", "map key"),
        ("5818", "length of 24"),
        ("42ff", "length of 2"),
        ("5bffffffffffffffff", "length of 18446744073709551615"),
        ("9bffffffffffffffff", "array of 18446744073709551615"),
        ("bbffffffffffffffff", "map of 18446744073709551615"),
        ("9a00ffffff00", "array of"),
        ("81" * 8 + "00", "nesting"),
        ("a100" * 8 + "00", "nesting"),
    ],
)
def test_a_second_reading_is_refused(data: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        decode(bytes.fromhex(data), PLAIN)


def test_a_named_tag_is_given_unopened() -> None:
    assert decode(bytes.fromhex("d28101"), OPEN) == Tagged(18, [1])


def test_tags_inside_each_other_count_as_nesting() -> None:
    with pytest.raises(MalformedError, match="nesting"):
        decode(bytes.fromhex("d2" * 8 + "00"), OPEN)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("bf0102", "a length of 1"),
        ("bf01ff", "indefinite"),
        ("bf01020103ff", "twice"),
        ("bf0102ff00", "after the item"),
        ("5f4101ff", "indefinite"),
        ("9f01ff", "indefinite"),
    ],
)
def test_an_open_map_where_allowed_is_no_less_strict(data: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        decode(bytes.fromhex(data), OPEN)


def test_an_open_map_is_read_where_the_format_has_it() -> None:
    assert decode(bytes.fromhex("bf01020304ff"), OPEN) == {1: 2, 3: 4}


def test_more_bytes_than_the_format_has_are_refused_unread() -> None:
    with pytest.raises(MalformedError, match="found 4097 bytes"):
        decode(bytes(4097), PLAIN)


def test_items_are_counted_over_all_pieces_of_a_document() -> None:
    budget = Budget(5)
    decode(bytes.fromhex("83010203"), PLAIN, budget)
    with pytest.raises(MalformedError, match="more items"):
        decode(bytes.fromhex("8101"), PLAIN, budget)


def test_more_items_than_the_format_has_are_refused() -> None:
    with pytest.raises(MalformedError, match="more items"):
        decode(b"\x99\x01\x00" + bytes(256), PLAIN)


def test_an_input_of_more_items_than_are_read_is_refused() -> None:
    wide = Dialect("test", 256 * 1024, 20, 16_384)
    with pytest.raises(MalformedError):
        decode(b"\x9a\x00\x03\xff\xf0" + bytes(256 * 1024 - 16), wide)
