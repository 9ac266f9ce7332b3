"""Responses, messages, embeddings and formats: read strictly, into one form."""

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_worker.api.embeddings_reply import embeddings_reply, vector_bytes
from enclave_worker.api.endpoints import ENDPOINTS, parse_request
from enclave_worker.api.errors import ApiError
from enclave_worker.api.logprobs import TokenLogprob, completion_document
from enclave_worker.api.messages_reply import messages_reply, settled
from enclave_worker.api.request import ApiRequest, ToolCall, Turn
from enclave_worker.api.responses_reply import responses_reply
from enclave_worker.api.results import ChoiceResult, Identity, overall
from enclave_worker.api.token_names import token_bytes
from enclave_worker.engine.events import Usage
from enclave_worker.engine.params import Grammar
from enclave_worker.engine.sampling.choice import Choice
from evidence.commit import STRUCTURED, Role

TURNS = [{"role": "user", "content": "hi"}]
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
NAMED: dict[str, Any] = {"name": "s", "schema": {}}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "done"}


def read(path: str, **members: Any) -> ApiRequest:
    return parse_request("POST", path, json.dumps({"model": "m", **members}).encode())


def responses(**members: Any) -> ApiRequest:
    return read("/v1/responses", **{"input": "hi", **members})


def messages(**members: Any) -> ApiRequest:
    return read("/v1/messages", **{"messages": TURNS, "max_tokens": 5, **members})


def embeddings(**members: Any) -> ApiRequest:
    return read("/v1/embeddings", **{"input": "hi", **members})


def chat(**members: Any) -> ApiRequest:
    return read("/v1/chat/completions", **{"messages": TURNS, **members})


# ---------------------------------------------------------------- responses


def test_items_become_turns_and_calls_join_the_assistant_s_text() -> None:
    said = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed"}
    said["content"] = [{"type": "output_text", "text": "I look.", "annotations": []}]  # type: ignore[assignment]
    items = [*TURNS, said, CALL | {"status": "completed", "id": "fc_1"}, OUTPUT]
    request = responses(input=items, instructions="brief")
    assert request.turns == (
        Turn("system", "brief"),
        Turn("user", "hi"),
        Turn("assistant", "I look.", (ToolCall("c", "f", "{}"),)),
        Turn("tool", "done", (), "c"),
    )
    assert request.op == "chat"
    assert [role for role, _ in request.segments] == [
        Role.SYSTEM,
        Role.USER,
        Role.ASSISTANT | STRUCTURED,
        Role.OTHER | STRUCTURED,
        Role.OTHER | STRUCTURED,
    ]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [CALL | {"call_id": None}]}, "input[0].call_id"),
        ({"input": [OUTPUT | {"extra": 1}]}, "input[0].extra"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"store": True}, "store"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)  # fmt: skip
def test_a_response_that_cannot_be_given_is_refused_by_name(
    members: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        responses(**members)
    assert (caught.value.status, caught.value.param) == (400, param)


# ---------------------------------------------------------------- messages


def test_blocks_become_turns_and_results_come_before_text() -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "none", "is_error": True}
    conversation = [
        *TURNS,
        {"role": "assistant", "content": [{"type": "text", "text": "so"}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "go on"}]},
    ]
    request = messages(messages=conversation, system=[{"type": "text", "text": "brief"}])
    assert request.turns == (
        Turn("system", "brief"),
        Turn("user", "hi"),
        Turn("assistant", "so", (ToolCall("t", "f", '{"a": 1}'),)),
        Turn("tool", "Error: none", (), "t"),
        Turn("user", "go on"),
    )
    assert request.sampling.max_tokens == 5


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*TURNS, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]},
         "messages[0].content[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"stop": ["x"]}, "stop"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_given_is_refused_by_name(
    members: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        messages(**members)
    assert (caught.value.status, caught.value.param) == (400, param)
    document = json.loads(caught.value.body("/v1/messages"))
    assert document["type"] == "error"
    assert document["error"]["type"] == "invalid_request_error"


# ---------------------------------------------------------------- embeddings


def test_inputs_are_texts_or_token_ids() -> None:
    assert embeddings().inputs == ("hi",)
    assert embeddings(input=[1, 2]).inputs == ((1, 2),)
    assert embeddings(input=["a", [3]]).inputs == ("a", (3,))
    assert embeddings().op == "embed"


@pytest.mark.parametrize(
    "members",
    [
        {"input": ""},
        {"input": []},
        {"input": [""]},
        {"input": [[]]},
        {"input": [1, "a"]},
        {"input": ["a"] * 2049},
        {"encoding_format": "hex"},
        {"dimensions": 8},
        {"stream": True},
    ],
)
def test_what_cannot_be_embedded_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        embeddings(**members)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_both_encodings_spell_the_same_float32(values: list[float]) -> None:
    identity = Identity("embd-1", 1, "m", "embeddings")
    vector = vector_bytes(values)
    (plain,) = embeddings_reply(identity, embeddings(), [vector], 3)["data"]
    spelled = json.loads(json.dumps(plain["embedding"]))
    assert struct.pack(f"<{len(spelled)}f", *spelled) == vector


# ---------------------------------------------------------------- formats and sampling


@pytest.mark.parametrize(
    ("members", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar("json_object")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": {}},
                }
            },
            Grammar("json_schema", "{}"),
        ),
        ({"structured_outputs": {"json": '{"a": 1}'}}, Grammar("json_schema", '{"a": 1}')),
        ({"structured_outputs": {"regex": "a"}}, Grammar("regex", "a")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Grammar("choice", '["a", "b"]')),
        ({"structured_outputs": {"grammar": "start: x"}}, Grammar("lark", "start: x")),
        ({"structured_outputs": {"json_object": True}}, Grammar("json_object")),
    ],
)
def test_formats_become_grammars(members: dict[str, Any], grammar: Grammar | None) -> None:
    assert chat(**members).format == grammar


@pytest.mark.parametrize(
    "members",
    [
        {"response_format": {}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
        {"structured_outputs": {}},
        {"structured_outputs": {"json": {}, "regex": "a"}},
        {"structured_outputs": {"json": "{"}},
        {"structured_outputs": {"choice": []}},
        {"structured_outputs": {"choice": [1]}},
        {"structured_outputs": {"regex": "a" * 70_000}},
        {"structured_outputs": {"calls": "{}"}},
        {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
        {"logit_bias": {str(n): 1 for n in range(301)}},
        {"logit_bias": {"1": 1, "01": 1}},
        {"logit_bias": {"-1": 1}},
        {"repetition_penalty": 0},
        {"guided_json": {}},
    ],
)
def test_formats_and_sampling_that_cannot_hold_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**members)
    assert caught.value.status == 400


@pytest.mark.parametrize("path", ENDPOINTS)
@given(data=st.data())
def test_no_members_do_anything_but_parse_or_raise_an_api_error(
    path: str, data: st.DataObject
) -> None:
    names = ["messages", "input", "prompt", "tools", "tool_choice", "text", "include", "system"]
    names += ["response_format", "structured_outputs", "logit_bias", "max_tokens", "output_config"]
    words = ["type", "role", "content", "name", "function", "x"]
    inner = st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["auto", "text", "user", ""]),
        lambda item: st.lists(item, max_size=3) | st.dictionaries(st.sampled_from(words), item),
        max_leaves=8,
    )
    members = data.draw(st.dictionaries(st.sampled_from(names), inner))
    with contextlib.suppress(ApiError):
        read(path, **members)


# ---------------------------------------------------------------- replies


CUT = ChoiceResult(0, "", (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "f", '{"x')), "length")


def test_a_message_leaves_out_a_call_that_was_cut() -> None:
    result = settled(CUT)
    document = messages_reply(
        Identity("msg_1", 1, "m", "messages"), messages(), [result], Usage(5, 2, 3)
    )
    assert [block["id"] for block in document["content"]] == ["a"]
    assert document["stop_reason"] == "max_tokens"
    assert document["usage"]["input_tokens"] == 2
    assert result.said().calls == (("f", '{"x": 1}'),)


def test_a_response_shows_it_as_incomplete() -> None:
    identity = Identity("resp_1", 1, "m", "responses")
    document = responses_reply(identity, responses(), [CUT], Usage(5, 2))
    assert [item["status"] for item in document["output"]] == ["completed", "incomplete"]
    assert document["status"] == "incomplete"


def test_the_finish_of_several_choices_is_length_where_one_was_cut() -> None:
    done = ChoiceResult(1, "x", (), "stop")
    assert overall([done, CUT]) == "length"
    assert overall([done, done]) == "stop"
    assert CUT.reason == "length", "cut in a call: not tool_calls"


class Entries:
    """A vocabulary."""

    def __init__(self, entry: str, reading: str) -> None:
        self._found = entry, reading

    def piece(self, token: int) -> tuple[str, str]:
        return self._found


@pytest.mark.parametrize(
    ("entry", "reading", "found"),
    [
        ("\u0120na\u00c3\u00afve", "bytes", " na\u00efve".encode()),
        ("\u00c3", "bytes", b"\xc3"),
        ("\u2581the", "pieces", b" the"),
        ("<0x0A>", "pieces", b"\n"),
        ("<0x0A>", "text", b"<0x0A>"),
    ],
)
def test_tokens_are_named_by_their_bytes(entry: str, reading: str, found: bytes) -> None:
    assert token_bytes(Entries(entry, reading), 5) == found


def test_log_probabilities_are_rounded_and_never_infinite() -> None:
    names = {1: b"a", 2: b"\xff", 3: b"c"}
    choice = Choice(1, -0.123456789, ((2, float("-inf")), (1, -0.1), (3, -3.0)))
    entry = TokenLogprob.of(choice, 2, names.__getitem__)
    assert json.loads(entry.line()) == ["a", -0.123457, [[[255], -9999.0], ["a", -0.1]]]
    lists = completion_document([entry, entry])
    assert lists["text_offset"] == [0, 1]
