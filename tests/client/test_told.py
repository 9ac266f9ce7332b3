"""A faulty worker's stream or body is refused, never half believed."""

from __future__ import annotations

from typing import Any

import pytest

from client.told import LINE_MAX, ChoiceTold, whole
from wire.errors import ProtocolFailure, RecordError

NAMED = {"t": 0, "id": "c", "fn": "f"}


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
