"""Chunks rebuilt on the tenant's side are what OpenAI programs expect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from openai.types.completion import Completion

from client.sse import ChunkBuilder, event


def documents(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(part.removeprefix(b"data: ")) for part in data.split(b"\n\n") if part]


def test_a_chat_choice_begins_with_its_role_and_ends_with_its_reason() -> None:
    chunks = ChunkBuilder("chat", "id", 1, "m")
    found = documents(chunks.delta("Hel") + chunks.delta("lo", finish="stop"))
    deltas = [item["choices"][0]["delta"] for item in found]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [item["choices"][0]["finish_reason"] for item in found] == [None, None, None, "stop"]
    for item in found:
        ChatCompletionChunk.model_validate(item)


def test_completion_chunks_carry_text() -> None:
    found = documents(ChunkBuilder("completion", "id", 1, "m").delta("x", finish="length"))
    assert Completion.model_validate(found[0]).choices[0].text == "x"


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    (found,) = documents(ChunkBuilder("chat", "id", 1, "m").usage(usage))
    assert (found["choices"], found["usage"]) == ([], usage)


@given(st.text())
def test_no_text_can_break_out_of_its_event(text: str) -> None:
    data = event({"text": text})
    assert data.count(b"\n\n") == 1
    assert data.endswith(b"\n\n")
    assert json.loads(data[6:]) == {"text": text}


@pytest.mark.parametrize("text", ["\r\n\r\ndata: [DONE]", "\n\ndata: {}", "\u2028\u2029\x85"])
def test_line_ends_inside_text_stay_inside_json(text: str) -> None:
    assert data_lines(event({"t": text})) == 1


def data_lines(data: bytes) -> int:
    return len([line for line in data.split(b"\n") if line])
