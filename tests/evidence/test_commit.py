"""Commitments hide every segment, bind every segment, and open one at a time."""

from __future__ import annotations

import hmac
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.commit import (
    STRUCTURED,
    Role,
    Said,
    commit_segments,
    open_segment,
    request_segments,
    response_segments,
    segment_commitment,
    segment_secret,
    verify_opening,
)
from evidence.merkle import EMPTY_ROOT
from wire.errors import ReceiptError

SALT = bytes(range(32))
SEGMENTS = [(Role.SYSTEM, b"be brief"), (Role.USER, b"hello"), (Role.ASSISTANT, b""), (4, b"x")]
ROOT = commit_segments(SALT, SEGMENTS)


def test_the_root_follows_the_specification_byte_for_byte() -> None:
    secret = hmac.digest(SALT, b"seg\x00\x00\x00\x00\x01", "sha256")
    committed = hmac.digest(secret, b"\x03" + (5).to_bytes(8, "big") + b"hello", "sha256")
    expected = sha256(b"\x00" + committed).digest()
    assert commit_segments(SALT, [(Role.USER, b"hello")]) == expected


def test_no_segments_commit_to_the_empty_tree() -> None:
    assert commit_segments(SALT, []) == EMPTY_ROOT


@pytest.mark.parametrize("index", range(len(SEGMENTS)))
def test_each_segment_opens_alone(index: int) -> None:
    opening = open_segment(SALT, SEGMENTS, index)
    assert verify_opening(opening, ROOT, len(SEGMENTS)) == SEGMENTS[index]


def test_an_opening_tells_nothing_that_opens_another_segment() -> None:
    opening = open_segment(SALT, SEGMENTS, 1)
    told = {opening.secret, *opening.proof}
    for index, (role, data) in enumerate(SEGMENTS):
        if index != 1:
            assert segment_secret(SALT, index) not in told
            assert segment_commitment(opening.secret, role, data) not in told


@pytest.mark.parametrize(
    "change",
    [
        {"index": 0},
        {"index": 4},
        {"total": 5},
        {"secret": bytes(32)},
        {"secret": b"short"},
        {"role": Role.SYSTEM},
        {"role": 256},
        {"data": b"hello!"},
        {"proof": ()},
    ],
)
def test_a_changed_opening_is_refused(change: dict[str, object]) -> None:
    opening = replace(open_segment(SALT, SEGMENTS, 1), **change)
    with pytest.raises(ReceiptError):
        verify_opening(opening, ROOT, len(SEGMENTS))


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20)), max_size=9))
def test_any_change_of_segments_changes_the_root(segments: list[tuple[int, bytes]]) -> None:
    root = commit_segments(SALT, segments)
    assert commit_segments(bytes(32), segments) != root or not segments
    assert commit_segments(SALT, [*segments, (0, b"")]) != root
    for index, (role, data) in enumerate(segments):
        changed = [*segments]
        changed[index] = (role, data + b"\0")
        assert commit_segments(SALT, changed) != root


def test_more_segments_than_the_limit_are_refused() -> None:
    with pytest.raises(ReceiptError, match="at most"):
        commit_segments(SALT, [(0, b"")] * 5000)


def test_chat_messages_become_segments_of_their_text() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "é"},
            {"role": "tool", "content": "t"},
        ],
        "temperature": 0.5,
    }
    assert request_segments(body) == [
        (Role.SYSTEM, b"s"),
        (Role.USER, "é".encode()),
        (Role.TOOL, b"t"),
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "hi", "name": "n"},
        {"role": "narrator", "content": "hi"},
        {"content": "hi"},
        "hi",
    ],
)
def test_any_other_message_is_committed_to_whole(message: object) -> None:
    [(role, data)] = request_segments({"messages": [message]})
    assert role & STRUCTURED
    text = data.decode()
    [other] = request_segments({"messages": [{"role": "user", "content": text}]})
    assert other != (role, data)


def test_prompts_become_segments() -> None:
    assert request_segments({"prompt": "p"}) == [(Role.PROMPT, b"p")]
    assert request_segments({"prompt": ["a", [1, 2]]}) == [
        (Role.PROMPT, b"a"),
        (Role.PROMPT | STRUCTURED, b"[1,2]"),
    ]
    assert request_segments({"other": "x"}) == []


def test_input_becomes_a_segment_an_item() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
    body = {"input": [{"role": "user", "content": "x"}, call], "instructions": "brief"}
    assert request_segments(body) == [
        (Role.SYSTEM, b"brief"),
        (Role.USER, b"x"),
        (
            Role.OTHER | STRUCTURED,
            b'{"arguments":"{}","call_id":"c","name":"f","type":"function_call"}',
        ),
    ]
    assert request_segments({"input": "x"}) == [(Role.USER, b"x")]
    assert request_segments({"input": [1, 2]}) == [(Role.USER | STRUCTURED, b"[1,2]")]


def test_tools_and_a_system_text_are_committed_to_before_the_messages() -> None:
    body = {"tools": [{"a": 1}], "system": "s", "messages": [{"role": "user", "content": "x"}]}
    assert request_segments(body) == [
        (Role.SYSTEM | STRUCTURED, b'[{"a":1}]'),
        (Role.SYSTEM, b"s"),
        (Role.USER, b"x"),
    ]


def test_a_choice_with_calls_commits_to_the_value_of_their_arguments() -> None:
    spelled = [Said("t", (("f", '{"b":1, "a":2.0}'),)), Said("t", (("f", '{"a":2.0,"b":1}'),))]
    first, second = response_segments(spelled)
    assert first == second
    expected = b'{"content":"t","tool_calls":[{"arguments":{"a":2.0,"b":1},"name":"f"}]}'
    assert first == (Role.OUTPUT | STRUCTURED, expected)
    (cut,) = response_segments([Said("", (("f", '{"a":'),))])
    assert b'"arguments":"{\\"a\\":"' in cut[1]
    assert response_segments([Said("t")]) == response_segments(["t"])


def test_answers_become_segments_in_choice_order() -> None:
    assert response_segments(["a", "b"]) == [(Role.OUTPUT, b"a"), (Role.OUTPUT, b"b")]
