"""Events rebuilt on the tenant's side are what programs of each API expect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from openai.types.completion import Completion

from client.calls import make_call
from client.events import Answered, CallDelta, Delta, TokenLogprob
from client.rendering import renderer
from client.sse import event

if TYPE_CHECKING:
    from client.receipts import Receipt
    from client.rendering import Renderer

SCORE = TokenLogprob(b"Hel", -0.5, ((b"Hel", -0.5), (b"\xff", -2.0)))
MESSAGES = [{"role": "user", "content": "x"}]


class Signed:
    """The counts of a receipt."""

    usage: dict[str, int] = {  # noqa: RUF012
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
    }
    cached_tokens = 4


def rendered(path: str, **members: Any) -> Renderer:
    call = make_call(path, {"model": "m", "stream": True, **members})
    worker = cast("Any", None)
    return renderer(call, Answered(200, {}, "resp_1", 1, "m", worker, "rid", 9))


def delta(text: str = "", index: int = 0, finish: str | None = None, **more: Any) -> Delta:
    return Delta(text, index, finish, None, "software", **more)


def called(number: int, arguments: str, name: str | None = None) -> Delta:
    return delta(call=CallDelta(number, "call_1" if name else "", name, arguments))


def documents(data: bytes) -> list[dict[str, Any]]:
    parts = [part for part in data.split(b"\n\n") if part]
    return [json.loads(part[part.index(b"data: ") + 6 :]) for part in parts]


def run(found: Renderer, *deltas: Delta) -> list[dict[str, Any]]:
    data = found.begin() + b"".join(found.delta(item) for item in deltas)
    data += found.end(cast("Receipt", Signed()))
    return documents(data.removesuffix(b"data: [DONE]\n\n"))


def test_a_chat_choice_begins_with_its_role_and_ends_with_its_reason() -> None:
    chat = rendered("/v1/chat/completions", messages=MESSAGES)
    found = run(chat, delta("Hel"), delta("lo", finish="stop"))
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


def test_log_probabilities_come_with_the_text_they_belong_to() -> None:
    chat = rendered("/v1/chat/completions", messages=MESSAGES, logprobs=True)
    found = run(chat, delta(logprobs=(SCORE,)), delta("Hel"), delta(finish="stop"))
    assert [item["choices"][0]["logprobs"] is None for item in found] == [True, False, True]
    (entry,) = found[1]["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("Hel", -0.5, [72, 101, 108])
    assert entry["top_logprobs"][1] == {"token": "\ufffd", "logprob": -2.0, "bytes": [255]}
    ChatCompletionChunk.model_validate(found[1])


def test_pieces_of_tool_calls_name_their_call_and_end_as_tool_calls() -> None:
    chat = rendered("/v1/chat/completions", messages=MESSAGES)
    found = run(chat, called(0, "", "f"), called(0, '{"a":'), called(0, "1}"), delta(finish="stop"))
    pieces = [item["choices"][0]["delta"].get("tool_calls", [{}])[0] for item in found]
    assert pieces[1] == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    assert "".join(p.get("function", {}).get("arguments", "") for p in pieces) == '{"a":1}'
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"
    for item in found:
        ChatCompletionChunk.model_validate(item)


def test_choices_are_told_apart_by_their_index() -> None:
    chat = rendered("/v1/chat/completions", messages=MESSAGES, n=2)
    found = run(chat, delta("a", 1), delta("b", 0), delta("", 1, "stop"), delta("", 0, "length"))
    ends = {c["index"]: c["finish_reason"] for item in found for c in item["choices"]}
    assert ends == {0: "length", 1: "stop"}


def test_completion_chunks_carry_text_and_lists_of_log_probabilities() -> None:
    text = rendered("/v1/completions", prompt="x", logprobs=1)
    found = run(text, delta(logprobs=(SCORE, SCORE)), delta("HelHel", finish="length"))
    chunk = Completion.model_validate(found[0])
    assert chunk.choices[0].text == "HelHel"
    assert found[0]["choices"][0]["logprobs"]["text_offset"] == [0, 3]


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    options = {"include_usage": True}
    chat = rendered("/v1/chat/completions", messages=MESSAGES, stream_options=options)
    found = run(chat, delta("x", finish="stop"))[-1]
    assert found["choices"] == []
    assert found["usage"]["total_tokens"] == 11
    assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


def test_a_response_s_events_come_in_their_order_and_are_numbered() -> None:
    found = run(
        rendered("/v1/responses", input="x", instructions="be brief"),
        delta("Hel"),
        delta("lo"),
        called(0, "", "f"),
        called(0, "{}"),
        delta(finish="stop"),
    )
    assert [item["type"].removeprefix("response.") for item in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [item["sequence_number"] for item in found] == list(range(len(found)))
    last = found[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == "Hello"
    assert last["output"][1]["arguments"] == "{}"
    assert last["usage"]["input_tokens_details"] == {"cached_tokens": 4}
    assert last["instructions"] == "be brief"
    assert found[0]["response"]["output"] == []


def test_a_response_cut_short_is_incomplete() -> None:
    found = run(rendered("/v1/responses", input="x"), delta("Hel", finish="length"))
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_message_s_events_open_and_close_each_block() -> None:
    messages = rendered("/v1/messages", messages=MESSAGES, max_tokens=5)
    found = run(
        messages, delta("Hello"), called(0, "", "f"), called(0, '{"a":1}'), delta(finish="stop")
    )
    assert [item["type"] for item in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[0]["message"]["usage"]["input_tokens"] == 9
    assert [item["index"] for item in found[1:7]] == [0, 0, 0, 1, 1, 1]
    assert found[4]["content_block"] == {
        "type": "tool_use",
        "id": "call_1",
        "name": "f",
        "input": {},
    }
    assert found[7]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[7]["usage"]["input_tokens"] == 5


@pytest.mark.parametrize(
    ("last", "reason", "sequence"),
    [
        ({"finish": "stop"}, "end_turn", None),
        ({"finish": "length"}, "max_tokens", None),
        ({"finish": "stop", "stop": 1}, "stop_sequence", "B"),
    ],
)
def test_a_message_says_why_it_stopped(
    last: dict[str, Any], reason: str, sequence: str | None
) -> None:
    members = {"messages": MESSAGES, "max_tokens": 5, "stop_sequences": ["A", "B"]}
    found = run(rendered("/v1/messages", **members), delta(**last))
    assert found[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


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
