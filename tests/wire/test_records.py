"""Records and token deltas: one spelling, nothing hidden in the padding."""

from __future__ import annotations

import pytest

from wire.errors import RecordError
from wire.records import (
    DATA,
    ERROR,
    HEAD,
    PAD,
    RECEIPT,
    TOKENS,
    Record,
    TokenDelta,
    decode,
    encode,
    json_record,
)

SOME = [Record(HEAD, b"{}"), Record(DATA, b""), Record(TOKENS, b"\0\0"), Record(RECEIPT, b"r")]


@pytest.mark.parametrize("size", [None, 21, 256])
def test_records_read_back_as_written(size):
    pt = encode(SOME, size)
    assert decode(pt) == SOME
    if size:
        assert len(pt) == size


def test_a_frame_may_be_padding_only():
    assert decode(encode([], 256)) == []
    assert decode(b"") == []


def test_a_record_has_type_length_and_data():
    assert encode([Record(ERROR, b"xy")]).hex() == "05000002" + b"xy".hex()


def test_records_that_do_not_fit_their_frame_are_a_caller_mistake():
    with pytest.raises(ValueError, match="do not fit"):
        encode(SOME, 8)
    with pytest.raises(ValueError, match="padding"):
        encode([Record(PAD, b"")])


@pytest.mark.parametrize(
    ("pt", "words"),
    [
        ("06000000", "unknown type 6"),
        ("ff000000", "unknown type 255"),
        ("01", "cut short"),
        ("010000", "cut short"),
        ("0100000161020000", "cut short"),
        ("01000002aa", "cut short"),
        ("01ffffff", "cut short"),
        ("0001", "not zero"),
        ("0100000000000001", "not zero"),
        ("00020000016100", "not zero"),
    ],
)
def test_a_malformed_plaintext_is_refused(pt, words):
    with pytest.raises(RecordError, match=words):
        decode(bytes.fromhex(pt))


def test_json_records_are_strict():
    assert json_record(HEAD, {"s": 200}).json() == {"s": 200}
    for data in (b"[]", b'{"a":1,"a":2}', b"\xff", b""):
        with pytest.raises(RecordError, match="HEAD"):
            Record(HEAD, data).json()


@pytest.mark.parametrize(
    "delta",
    [
        TokenDelta(""),
        TokenDelta("hello"),
        TokenDelta("żółw 🐢", {"i": 1}),
        TokenDelta("", {"f": "stop"}),
        TokenDelta("x", {"f": "length", "i": 2}),
    ],
)
def test_a_token_delta_reads_back_as_written(delta):
    assert TokenDelta.decode(delta.encode()) == delta
    assert delta.record().type == TOKENS


def test_a_token_delta_without_tail_is_two_bytes_and_text():
    assert TokenDelta("hi").encode() == b"\x00\x02hi"


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\0\x02h", b"\0\x01\xff", b"\0\0[]", b"\0\0{", b'\0\0{"f":1,"f":1}', b"\0\0\0"],
)
def test_a_malformed_token_delta_is_refused(data):
    with pytest.raises(RecordError, match="token delta"):
        TokenDelta.decode(data)


def test_a_token_delta_of_more_than_65535_bytes_is_a_caller_mistake():
    with pytest.raises(ValueError, match="65535"):
        TokenDelta("x" * 65536).encode()


def test_content_is_kept_out_of_repr():
    assert "secret" not in repr([Record(DATA, b"secret"), TokenDelta("secret")])
