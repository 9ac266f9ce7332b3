"""Tools, log-probabilities, responses, embeddings and messages through unmodified programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from simulators.answers import Answer

from client.transport import SealedTransport
from enclave_worker.api.logprobs import TokenLogprob
from enclave_worker.api.request import ToolCall
from enclave_worker.api.results import ChoiceResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.loopback import Loopback
    from simulators.service import Service

    from client.session import Options

MESSAGES = [{"role": "user", "content": "weather in Paris?"}]
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
CALL = ToolCall("call_1", "weather", '{"city": "Paris", "days": 2.0}')
CALLED = Answer("", results=(ChoiceResult(0, "Let me look. ", (CALL,), "stop"),))
SCORES = (
    TokenLogprob(b"You", -0.25, ((b"You", -0.25), (b"I", -1.5))),
    TokenLogprob(b"\xc5", -1.0, ((b"\xc5", -1.0),)),
)


@pytest.fixture
def transport(service: Service, options: Callable[..., Options]) -> SealedTransport:
    return SealedTransport(service.policy(), options=options())


@pytest.fixture
def program(
    service: Service, server: Loopback, transport: SealedTransport
) -> Iterator[openai.OpenAI]:
    with httpx2.Client(transport=transport) as http:
        yield openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=service.api_key, http_client=http, max_retries=0
        )


class Plain:
    """A program of Anthropic's API: its headers, its paths, its events."""

    def __init__(self, url: str, key: str, http: httpx2.Client) -> None:
        self._url, self._http = f"{url}/v1/messages", http
        self._headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}

    def post(self, **members: Any) -> httpx2.Response:
        body = {"model": "m", "max_tokens": 50, "messages": MESSAGES, **members}
        return self._http.post(self._url, json=body, headers=self._headers)

    def events(self, **members: Any) -> list[dict[str, Any]]:
        found = []
        for block in self.post(stream=True, **members).text.split("\n\n"):
            if block:
                name, data = block.split("\n", 1)
                found.append(json.loads(data.removeprefix("data: ")))
                assert name == f"event: {found[-1]['type']}"
        return found


@pytest.fixture
def plain(service: Service, server: Loopback, transport: SealedTransport) -> Iterator[Plain]:
    with httpx2.Client(transport=transport) as http:
        yield Plain(server.url, service.api_key, http)


# ---------------------------------------------------------------- chat


def test_tool_calls_come_whole_and_in_pieces(program: openai.OpenAI, service: Service) -> None:
    service.answer = lambda body: CALLED
    tools = [{"type": "function", "function": FUNCTION}]
    reply = program.chat.completions.create(model="m", messages=MESSAGES, tools=tools)
    (call,) = reply.choices[0].message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == (
        CALL.id,
        CALL.name,
        CALL.arguments,
    )
    assert reply.choices[0].finish_reason == "tool_calls"
    chunks = list(
        program.chat.completions.create(model="m", messages=MESSAGES, tools=tools, stream=True)
    )
    pieces = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert pieces[0].id == CALL.id
    assert "".join(piece.function.arguments for piece in pieces) == CALL.arguments
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Let me look. "
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_call_the_worker_did_not_commit_to_is_refused(
    program: openai.OpenAI, service: Service
) -> None:
    service.answer = lambda body: Answer("", results=CALLED.results, committed_text="Let me look. ")
    for stream in (False, True):
        with pytest.raises(openai.APIError) as caught:
            list(program.chat.completions.create(model="m", messages=MESSAGES, stream=stream))
        assert caught.value.code == "receipt_invalid"


def test_log_probabilities_come_whole_and_in_pieces(
    program: openai.OpenAI, service: Service
) -> None:
    result = ChoiceResult(0, "You\u017a", (), "stop", None, SCORES)
    service.answer = lambda body: Answer("", results=(result,))
    asked: dict[str, Any] = {"model": "m", "messages": MESSAGES, "logprobs": True}
    whole = program.chat.completions.create(**asked).choices[0].logprobs.content
    chunks = list(program.chat.completions.create(**asked, stream=True))
    pieces = [s for c in chunks if c.choices[0].logprobs for s in c.choices[0].logprobs.content]
    assert [score.model_dump() for score in whole] == [score.model_dump() for score in pieces]
    assert (whole[0].token, whole[0].logprob, whole[1].bytes) == ("You", -0.25, [0xC5])


def test_several_choices_have_one_receipt(
    program: openai.OpenAI, service: Service, transport: SealedTransport
) -> None:
    results = tuple(ChoiceResult(n, f"answer {n}", (), "length" if n else "stop") for n in range(3))
    service.answer = lambda body: Answer("", finish="length", results=results)
    for stream in (False, True):
        reply = program.chat.completions.create(model="m", messages=MESSAGES, n=3, stream=stream)
        texts = dict.fromkeys(range(3), "")
        for chunk in reply if stream else [reply]:
            for choice in chunk.choices:
                part = choice.delta if stream else choice.message
                texts[choice.index] += part.content or ""
        assert texts == {n: f"answer {n}" for n in range(3)}
        assert transport.last_receipt is not None
        assert transport.last_receipt.claims["resp"]["n"] == 3
        assert transport.last_receipt.claims["finish"] == "length"


def test_structured_outputs_parse_into_their_type(program: openai.OpenAI, service: Service) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str

    service.answer = lambda body: Answer('{"name":"Paris"}')
    reply = program.chat.completions.parse(model="m", messages=MESSAGES, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Paris")


def test_a_deeply_nested_schema_is_sealed(program: openai.OpenAI, service: Service) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(6):
        schema = {"type": "object", "properties": {"x": schema}}
    service.answer = lambda body: CALLED
    tools = [{"type": "function", "function": {"name": "deep", "parameters": schema}}]
    reply = program.chat.completions.create(model="m", messages=MESSAGES, tools=tools)
    assert reply.choices[0].message.tool_calls


# ---------------------------------------------------------------- responses


def test_a_response_and_its_stream_say_the_same(program: openai.OpenAI, service: Service) -> None:
    service.answer = lambda body: CALLED
    tools = [{"type": "function", **FUNCTION}]
    whole = program.responses.create(model="m", input="weather?", tools=tools)
    assert whole.output_text == "Let me look. "
    assert whole.output[1].arguments == CALL.arguments
    assert whole.store is False
    events = list(program.responses.create(model="m", input="weather?", tools=tools, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    last = events[-1].response
    assert [item.model_dump() for item in last.output] == [
        item.model_dump() for item in whole.output
    ]
    said = whole.model_dump(exclude={"created_at", "usage"})
    assert last.model_dump(exclude={"created_at", "usage"}) == said
    assert last.usage.input_tokens == whole.usage.input_tokens == 7


def test_openai_s_own_accumulator_takes_the_stream(
    program: openai.OpenAI, service: Service
) -> None:
    service.answer = lambda body: CALLED
    with program.responses.stream(model="m", input="weather?") as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == "Let me look. "
    assert final.output[1].arguments == CALL.arguments


# ---------------------------------------------------------------- embeddings


@pytest.mark.parametrize("spelled", ["float", "base64"])
def test_embeddings_are_what_the_receipt_commits_to(
    program: openai.OpenAI, service: Service, transport: SealedTransport, spelled: Any
) -> None:
    vectors = ((0.1, -2.5e-8, 1.0), (3.0, 0.0, 1 / 3))
    service.answer = lambda body: Answer("", vectors=vectors)
    reply = program.embeddings.create(model="m", input=["a", "b"], encoding_format=spelled)
    assert [item.index for item in reply.data] == [0, 1]
    if spelled == "float":
        assert reply.data[0].embedding == pytest.approx(list(vectors[0]), rel=1e-6)
    assert transport.last_receipt is not None
    assert transport.last_receipt.claims["op"] == "embed"
    service.answer = lambda body: Answer("", vectors=vectors, edit=_swapped)
    with pytest.raises(openai.APIStatusError) as caught:
        program.embeddings.create(model="m", input=["a", "b"])
    assert caught.value.code == "receipt_invalid"


def _swapped(claims: Any) -> Any:
    from dataclasses import replace

    return replace(claims, resp=replace(claims.resp, c=bytes(32)))


# ---------------------------------------------------------------- messages


def test_a_message_and_its_stream_say_the_same(plain: Plain, service: Service) -> None:
    service.answer = lambda body: CALLED
    whole = plain.post().json()
    assert whole["content"] == [
        {"type": "text", "text": "Let me look. "},
        {
            "type": "tool_use",
            "id": CALL.id,
            "name": "weather",
            "input": {"city": "Paris", "days": 2},
        },
    ]
    assert whole["stop_reason"] == "tool_use"
    events = plain.events()
    assert [e["type"] for e in events if "block_" not in e["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    texts = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(d.get("text", "") for d in texts) == "Let me look. "
    assert (
        json.loads("".join(d.get("partial_json", "") for d in texts))
        == whole["content"][1]["input"]
    )
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_a_stop_sequence_is_named(plain: Plain, service: Service) -> None:
    result = ChoiceResult(0, "one", (), "stop", 1)
    service.answer = lambda body: Answer("", results=(result,))
    whole = plain.post(stop_sequences=["x", "two"]).json()
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "two")
    last = plain.events(stop_sequences=["x", "two"])[-2]["delta"]
    assert last == {"stop_reason": "stop_sequence", "stop_sequence": "two"}


def test_refusals_have_the_form_of_anthropic_s_api(
    plain: Plain, service: Service, server: Loopback, transport: SealedTransport
) -> None:
    found = plain.post(model="other")
    assert found.status_code == 404
    assert found.json()["type"] == "error"
    assert found.json()["error"]["type"] == "not_found_error"
    with httpx2.Client(transport=transport) as http:
        wrong = Plain(server.url, "wrong", http).post()
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (401, "authentication_error")


def test_a_broken_message_stream_ends_in_an_error_and_no_stop(
    plain: Plain, service: Service
) -> None:
    service.lies.add("truncated")
    events = plain.events()
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["code"] == "stream_truncated"


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": [{"index": 0, "message": {"content": None}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "gone"}]},
    ],
)
def test_a_whole_answer_without_text_is_none(
    program: openai.OpenAI, service: Service, body: dict[str, Any]
) -> None:
    service.answer = lambda _: Answer("x", raw=body)
    with pytest.raises(openai.APIStatusError):
        program.chat.completions.create(model="m", messages=MESSAGES)
