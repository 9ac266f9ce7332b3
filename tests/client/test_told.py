"""A faulty worker's stream or body is refused, never half believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from client.told import LINE_MAX, ChoiceTold, logprobs_of, whole
from wire.errors import ProtocolFailure, RecordError

NAMED = {"t": 0, "id": "c", "fn": "f"}


def test_log_probabilities_of_a_stream_are_kept_in_order() -> None:
    choice = ChoiceTold()
    choice.scored('["a",-0.5,[["b",-1]]]\n["b",')
    choice.scored("-2,[]]\n")
    assert choice.logprobs == [-0.5, -2.0]


def test_pieces_of_calls_make_the_calls() -> None:
    choice = ChoiceTold()
    assert choice.called(NAMED, "").name == "f"
    assert choice.called({"t": 0}, '{"a"').arguments == '{"a"'
    choice.called({"t": 0}, ":1}")
    choice.called({"t": 1, "id": "d", "fn": "g"}, "")
    assert choice.said().calls == (("f", '{"a":1}'), ("g", ""))


@pytest.mark.parametrize(
    "tails",
    [
        [{"t": 0}],
        [{"t": 1, "id": "c", "fn": "f"}],
        [NAMED, NAMED],
        [NAMED, {"t": 1}],
        [NAMED, {"t": 1, "id": "d", "fn": "g"}, {"t": 0}],
        [{"t": 0, "id": 1, "fn": "f"}],
        [{"t": 0, "id": "c", "fn": 1}],
        [NAMED, {"t": False}],
        [NAMED, {"t": "0"}],
        [NAMED, {"t": -1}],
    ],
)
def test_calls_out_of_order_are_refused(tails: list[dict[str, Any]]) -> None:
    choice = ChoiceTold()

    def all_of_them() -> None:
        for tail in tails:
            choice.called(tail, "x")

    with pytest.raises(RecordError):
        all_of_them()


def test_lines_are_read_however_they_are_cut() -> None:
    choice = ChoiceTold()
    lines = '["a",-1.5,[["a",-1.5],[[255],-2]]]\n["b",0,[]]\n'
    found = [score for char in lines for score in choice.scored(char)]
    assert [(s.token, s.logprob) for s in found] == [(b"a", -1.5), (b"b", 0.0)]
    assert found[0].top[1] == (b"\xff", -2.0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[1]",
        '["a",1]',
        '["a","b",[]]',
        '["a",1,[["b"]]]',
        '["a",NaN,[]]',
        '[[256],1,[]]',
        '[null,1,[]]',
        '["a",1,[],1]',
        "x" * (LINE_MAX + 1),
    ],
)  # fmt: skip
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(RecordError):
        ChoiceTold().scored(line + ("\n" if len(line) <= LINE_MAX else ""))


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("chat", b"[]"),
        ("chat", b'{"choices":[{"index":0,"message":{"content":1},"finish_reason":"stop"}]}'),
        ("chat", b'{"choices":[{"index":0,"message":{"content":null},"finish_reason":"stop"}]}'),
        ("completion", b'{"choices":[{"index":0,"finish_reason":"stop"}]}'),
        ("responses", b'{"output":[],"status":"failed"}'),
        ("responses", b'{"output":[{"type":"message","content":[{}]}],"status":"completed"}'),
        ("messages", b'{"content":[{"type":"text","text":1}],"stop_reason":"end_turn"}'),
        ("messages", b'{"content":{},"stop_reason":"end_turn"}'),
        ("embeddings", b'{"data":[{"index":0,"embedding":["x"]}]}'),
        ("embeddings", b'{"data":[{"index":0,"embedding":"%%"}]}'),
        ("embeddings", b'{"data":[{"index":0,"embedding":[1e300]}]}'),
        ("embeddings", b'{"data":[{"index":0,"embedding":null}]}'),
    ],
)
def test_a_body_that_is_no_answer_is_refused(kind: Any, document: bytes) -> None:
    with pytest.raises(ProtocolFailure):
        whole(kind, document, 2**20)


ENTRY = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
LOGPROBS: dict[str, Any] = {
    "chat": {
        "choices": [
            {"index": 1, "logprobs": {"content": [ENTRY | {"logprob": -2}]}},
            {"index": 0, "logprobs": {"content": [ENTRY, ENTRY | {"logprob": -1}]}},
        ]
    },
    "completion": {
        "choices": [
            {"index": 1, "logprobs": {"token_logprobs": [-2]}},
            {"index": 0, "logprobs": {"token_logprobs": [-0.5, -1]}},
        ]
    },
    "responses": {
        "output": [
            {"type": "function_call"},
            {"type": "message", "content": [{"logprobs": [ENTRY]}, {"logprobs": [ENTRY]}]},
        ]
    },
}


@pytest.mark.parametrize("kind", LOGPROBS)
def test_log_probabilities_are_those_of_the_chosen_tokens_in_choice_order(kind: Any) -> None:
    expected = ((-0.5, -0.5),) if kind == "responses" else ((-0.5, -1.0), (-2.0,))
    assert logprobs_of(kind, json.dumps(LOGPROBS[kind]).encode(), 2**20) == expected


@pytest.mark.parametrize("body", [b'{"choices":[{"index":0,"logprobs":null}]}', b"{}"])
def test_where_none_were_asked_for_there_are_none(body: bytes) -> None:
    assert logprobs_of("chat", body, 2**20) == ()


@pytest.mark.parametrize("told", [b"1", b'"x"', b'{"content":1}', b'{"content":[{}]}'])
def test_log_probabilities_of_another_form_are_refused(told: bytes) -> None:
    body = b'{"choices":[{"index":0,"logprobs":%b}]}' % told
    with pytest.raises(ProtocolFailure):
        logprobs_of("chat", body, 2**20)
