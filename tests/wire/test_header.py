"""The clear header: strict in every member, tolerant of members it does not know."""

from __future__ import annotations

import json

import pytest
from simulators.sealed_exchange import NOW, request_header

from wire.canonical import encode
from wire.errors import ClassExceededError, ExpiredError, HeaderError
from wire.header import OPS, check_class, check_times, parse_header
from wire.ids import b64u
from wire.schedule import transcript_hash


def members(**changes):
    doc = json.loads(request_header(in_=1024).encode()) | changes
    return {key: value for key, value in doc.items() if value != "absent"}


def raw(**changes):
    return json.dumps(members(**changes)).encode()


def test_a_header_reads_back_as_written():
    header = request_header(in_=1024)
    assert parse_header(header.encode()) == header
    assert parse_header(header.encode()).raw == header.encode()


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_operation_is_known(op):
    assert parse_header(raw(op=op)).op == op


def test_unknown_members_are_ignored_but_stay_in_the_hash():
    plain, extended = encode(members()), encode(members(zz={"later": True}))
    assert parse_header(extended) == parse_header(plain)
    assert parse_header(extended).raw == extended
    assert transcript_hash(extended) != transcript_hash(plain)


def test_the_bytes_received_are_kept_whatever_their_spelling():
    spaced = json.dumps(members(), indent=1).encode()
    assert parse_header(spaced).raw == spaced


@pytest.mark.parametrize("key", sorted(members()))
def test_a_missing_member_is_refused(key):
    with pytest.raises(HeaderError, match=f"{key} is missing"):
        parse_header(raw(**{key: "absent"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": "1"},
        {"v": True},
        {"v": 1.0},
        {"suite": "0010-0001-0002"},
        {"rid": b64u(bytes(15))},
        {"rid": b64u(bytes(17))},
        {"rid": b64u(bytes(16)) + "=="},
        {"rid": 5},
        {"aud": ""},
        {"aud": "a\n"},
        {"aud": "x" * 257},
        {"aud": 1},
        {"op": "delete"},
        {"op": ["chat"]},
        {"model": ""},
        {"model": None},
        {"policy": "sha256:00"},
        {"policy": "sha512:" + "0" * 64},
        {"policy": None},
        {"iat": -1},
        {"iat": 1.5},
        {"iat": "1"},
        {"exp": NOW},
        {"exp": NOW - 1},
        {"exp": NOW + 901},
        {"exp": 2**70},
        {"in": 0},
        {"in": 1023},
        {"in": 1025},
        {"in": 2**40},
        {"in": True},
        {"out": 65},
        {"out": 131072},
        {"out": 64.0},
        {"stream": 1},
        {"stream": "true"},
        {"pad": "none"},
        {"retry": "always"},
        {"pri": -1},
        {"pri": 10},
        {"pri": False},
    ],
    ids=str,
)
def test_a_wrong_member_is_refused(changes):
    with pytest.raises(HeaderError):
        parse_header(raw(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"v":1,"v":1}',
        b'{"v":NaN}',
        b'{"v":1,"x":' + b"[" * 8 + b"]" * 8 + b"}",
        b'{"v":1,"x":"\xff"}',
    ],
)
def test_json_that_is_not_one_strict_object_is_refused(data):
    with pytest.raises(HeaderError):
        parse_header(data)


def test_a_header_longer_than_the_limit_is_refused():
    with pytest.raises(HeaderError, match="at most 8192 bytes"):
        parse_header(raw(zz="x" * 8192))


@pytest.mark.parametrize("now", [NOW - 120, NOW, NOW + 300, NOW + 420])
def test_a_request_within_its_time_is_taken(now):
    check_times(request_header(), now)


@pytest.mark.parametrize("now", [NOW - 121, NOW + 421])
def test_a_request_outside_its_time_is_refused(now):
    with pytest.raises(ExpiredError):
        check_times(request_header(), now)


def test_a_request_within_its_class_is_taken():
    check_class(request_header(in_=1024, out=256), 1024, 256)


@pytest.mark.parametrize(("body", "tokens"), [(1025, 1), (1, 257)])
def test_a_request_above_its_class_is_refused(body, tokens):
    with pytest.raises(ClassExceededError):
        check_class(request_header(in_=1024, out=256), body, tokens)
