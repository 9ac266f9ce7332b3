"""Every shape of request answered by a real sandboxed worker, with a receipt that opens."""

import json
from typing import Any

import pytest
from simulators.caller import ask, caller

from client.calls import make_call
from client.told import whole
from evidence.commit import Said

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.xdist_group("worker")]

# Few enough that a model of noise comes to the end of its call.
CITY = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}},
    "required": ["n"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "parameters": CITY}
WRONG = {"name": "s", "schema": {"type": "x"}}
ANY = {"type": "any", "disable_parallel_tool_use": True}
TOOL = {"type": "function", "function": FUNCTION}


async def whole_answer(worker: Any, path: str, body: dict[str, Any]) -> tuple[Any, Any]:
    """The document, and the claims of a receipt that commits to what it says."""
    call = make_call(path, body)
    who, sealed, answer = await ask(worker, body, path=path, op=call.op)
    reply = who.read(sealed, bytes(answer.data))
    assert reply.status == 200, reply.body
    segments, finishes = whole(call.kind, reply.body, 2**20)
    verified = who.verify(sealed, body, reply, segments, worker.peer.log)
    assert set(finishes) <= {"stop", "length"}
    return reply.json, verified.claims


async def test_several_choices_differ_and_share_one_receipt(worker: Any) -> None:
    body = caller(worker).chat("dice", n=3, seed=5, ignore_eos=True)
    document, claims = await whole_answer(worker, "/v1/chat/completions", body)
    texts = [choice["message"]["content"] for choice in document["choices"]]
    assert [choice["index"] for choice in document["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert claims["par"]["n"] == 3
    assert claims["resp"]["n"] == 3
    assert document["usage"]["completion_tokens"] == claims["use"]["out"] == 24


async def test_streamed_choices_are_the_whole_ones(worker: Any) -> None:
    body = caller(worker).chat("dice", n=2, seed=5, logprobs=True, top_logprobs=2, ignore_eos=True)
    document, _ = await whole_answer(worker, "/v1/chat/completions", body)
    body["stream"] = True
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    for choice in document["choices"]:
        mine = [d for d in reply.deltas if d.tail.get("i", 0) == choice["index"]]
        text = "".join(d.text for d in mine if "l" not in d.tail)
        assert text == choice["message"]["content"]
        lines = "".join(d.text for d in mine if "l" in d.tail).splitlines()
        scores = choice["logprobs"]["content"]
        assert [json.loads(line)[1] for line in lines] == [score["logprob"] for score in scores]
        assert all(len(score["top_logprobs"]) == 2 for score in scores)
    texts = [c["message"]["content"] for c in document["choices"]]
    who.verify(sealed, body, reply, texts, worker.peer.log)


async def test_logit_bias_and_penalties_change_the_answer(worker: Any) -> None:
    base = caller(worker).chat("again", temperature=0, max_tokens=16, ignore_eos=True)
    plain, _ = await whole_answer(worker, "/v1/chat/completions", base)
    for change in ({"presence_penalty": 2.0}, {"logit_bias": {"70": 100}}):
        other, claims = await whole_answer(worker, "/v1/chat/completions", base | change)
        assert other["choices"] != plain["choices"]
        assert claims["par"]["presence_penalty"] in ("0.0", "2.0")


async def test_a_schema_holds_whatever_the_model_would_say(worker: Any) -> None:
    schema = {"name": "s", "schema": {"enum": ["yes", "no"]}, "strict": True}
    body = caller(worker).chat("?", response_format={"type": "json_schema", "json_schema": schema})
    document, claims = await whole_answer(worker, "/v1/chat/completions", body)
    assert json.loads(document["choices"][0]["message"]["content"]) in ("yes", "no")
    assert claims["par"]["grammar"] == "json_schema"


@pytest.mark.parametrize(
    ("extension", "texts"),
    [({"choice": ["left", "right"]}, ("left", "right")), ({"regex": "[ab]{3}c"}, None)],
)
async def test_the_grammar_extension_holds_too(
    worker: Any, extension: dict[str, Any], texts: Any
) -> None:
    body = {
        "model": caller(worker).model,
        "prompt": "go",
        "max_tokens": 8,
        "structured_outputs": extension,
    }
    document, _ = await whole_answer(worker, "/v1/completions", body)
    text = document["choices"][0]["text"]
    assert text in texts if texts else (len(text) == 4 and text.endswith("c"))


async def test_a_required_tool_is_called_in_every_shape(worker: Any) -> None:
    model, turns = caller(worker).model, [{"role": "user", "content": "x"}]
    chat = {"messages": turns, "tools": [TOOL], "tool_choice": "required"}
    responses = {"input": "x", "tools": [{"type": "function", **FUNCTION}]}
    messages = {"messages": turns, "tools": [{"name": "weather", "input_schema": CITY}]}
    limits = {"model": model, "parallel_tool_calls": False}
    document, claims = await whole_answer(
        worker, "/v1/chat/completions", limits | chat | {"max_tokens": 200}
    )
    (choice,) = document["choices"]
    assert claims["par"]["tools"] == 1
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["n"] in (1, 2)
    document, _ = await whole_answer(
        worker,
        "/v1/responses",
        limits | responses | {"tool_choice": "required", "max_output_tokens": 200},
    )
    assert document["output"][0]["type"] == "function_call"
    document, _ = await whole_answer(
        worker,
        "/v1/messages",
        {"model": model, "max_tokens": 200, **messages, "tool_choice": ANY},
    )
    assert document["stop_reason"] == "tool_use"
    assert document["content"][-1]["input"]["n"] in (1, 2)


async def test_streamed_calls_are_committed_to_as_they_were_sent(worker: Any) -> None:
    body = caller(worker).chat(
        "x", tools=[TOOL], tool_choice="required", stream=True, max_tokens=60
    )
    who, sealed, answer = await ask(worker, body)
    reply = who.read(sealed, bytes(answer.data))
    begun = [d.tail["fn"] for d in reply.deltas if "fn" in d.tail]
    calls = tuple(
        (name, "".join(d.text for d in reply.deltas if d.tail.get("t") == number))
        for number, name in enumerate(begun)
    )
    assert begun
    assert calls[0][1].startswith("{")
    who.verify(sealed, body, reply, [Said("", calls)], worker.peer.log)


async def test_a_response_and_a_message_are_answered_whole(worker: Any) -> None:
    model = caller(worker).model
    body = {"model": model, "input": "hi", "instructions": "brief", "max_output_tokens": 8}
    document, claims = await whole_answer(worker, "/v1/responses", body)
    assert document["object"] == "response"
    assert document["store"] is False
    assert claims["par"]["shape"] == "responses"
    turns = [{"role": "user", "content": "hi"}]
    message = {"model": model, "messages": turns, "system": "brief", "max_tokens": 8}
    document, claims = await whole_answer(worker, "/v1/messages", message)
    assert document["role"] == "assistant"
    assert claims["par"]["shape"] == "messages"


async def test_echo_puts_the_prompt_before_the_answer(worker: Any) -> None:
    body = {"model": caller(worker).model, "prompt": "the fox", "echo": True, "max_tokens": 4}
    document, _ = await whole_answer(worker, "/v1/completions", body)
    assert document["choices"][0]["text"].startswith("the fox")


async def test_a_stop_sequence_is_named_in_a_message(worker: Any) -> None:
    model = caller(worker).model
    turns = [{"role": "user", "content": "stop"}]
    body = {"model": model, "messages": turns, "max_tokens": 48, "temperature": 0.0}
    text = (await whole_answer(worker, "/v1/messages", body))[0]["content"][0]["text"]
    mark = text[len(text) // 2 : len(text) // 2 + 3]
    document, _ = await whole_answer(
        worker, "/v1/messages", body | {"stop_sequences": ["\u2603", mark]}
    )
    assert (document["stop_reason"], document["stop_sequence"]) == ("stop_sequence", mark)


async def test_a_worker_without_an_encoder_makes_no_embeddings(worker: Any) -> None:
    body = {"model": caller(worker).model, "input": "x"}
    who, sealed, answer = await ask(worker, body, path="/v1/embeddings", op="embed")
    reply = who.read(sealed, bytes(answer.data))
    assert (reply.status, reply.json["error"]["code"]) == (404, "unsupported_operation")


@pytest.mark.parametrize(
    "members",
    [
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"type": "x"}},
            }
        },
        {"structured_outputs": {"regex": "("}},
        {"structured_outputs": {"grammar": "nothing"}},
        {"logit_bias": {"4000000": 1}},
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"properties": 1}}}
            ]
        },
    ],
)
async def test_what_the_engine_cannot_compile_is_a_400_and_harms_nobody(
    worker: Any, members: dict[str, Any]
) -> None:
    who, sealed, answer = await ask(worker, caller(worker).chat("x", **members))
    reply = who.read(sealed, bytes(answer.data))
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_value")
    assert reply.json["error"]["message"]


async def test_a_message_s_refusal_has_its_shape(worker: Any) -> None:
    body = {"model": caller(worker).model, "messages": [], "max_tokens": 3}
    who, sealed, answer = await ask(worker, body, path="/v1/messages")
    reply = who.read(sealed, bytes(answer.data))
    assert reply.json["type"] == "error"
    assert reply.json["error"]["type"] == "invalid_request_error"
