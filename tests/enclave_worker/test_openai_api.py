"""OpenAI request bodies: read strictly, refused by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_worker.api.endpoints import parse_request
from enclave_worker.api.errors import ApiError
from enclave_worker.api.replies import body
from enclave_worker.api.request import ApiRequest
from enclave_worker.api.results import ChoiceResult, Identity
from enclave_worker.engine.events import Usage
from evidence.commit import Role

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def chat(**members: Any) -> ApiRequest:
    base: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return parse_request("POST", CHAT, json.dumps(base | members).encode())


def text(**members: Any) -> ApiRequest:
    base: dict[str, Any] = {"model": "m", "prompt": "hi"}
    return parse_request("POST", TEXT, json.dumps(base | members).encode())


def refused(call: Any, **members: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call(**members)
    return caught.value


def test_defaults_are_openai_s() -> None:
    request = chat()
    assert request.sampling.temperature == 1.0
    assert request.sampling.top_p == 1.0
    assert request.sampling.top_k == 0
    assert request.sampling.seed is None
    assert request.max_tokens is None
    assert not request.stream


def test_every_sampling_field_is_read() -> None:
    request = chat(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, seed=-1, stop=["a", "b"], max_tokens=9
    )
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 40)
    assert (sampling.min_p, sampling.stop, request.max_tokens) == (0.05, ("a", "b"), 9)
    assert sampling.seed == 2**64 - 1, "a signed seed keeps its 64 bits"


@pytest.mark.parametrize("call", [chat, text])
def test_null_means_absent(call: Any) -> None:
    names = ("temperature", "top_p", "seed", "stop", "max_tokens", "stream", "n", "logit_bias")
    assert call(**dict.fromkeys(names)).sampling.temperature == 1.0


def test_text_parts_are_joined_and_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    request = chat(messages=messages)
    assert [(m.role, m.content) for m in request.turns] == [
        ("system", "be brief"),
        ("user", "ab"),
    ]


def test_segments_are_those_the_client_commits_to() -> None:
    assert chat().segments == ((Role.USER, b"hi"),)
    assert text().segments == ((Role.PROMPT, b"hi"),)


def test_an_assistant_message_copied_from_a_reply_is_accepted() -> None:
    copied = {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None}
    assert chat(messages=[copied]).turns[0].role == "assistant"


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "invalid_value",
        ),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]},
            "messages[0].tool_calls",
            "unsupported_value",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "weight": 1}]},
            "messages[0].weight",
            "unknown_parameter",
        ),
        ({"model": ""}, "model", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"min_p": -1}, "min_p", "invalid_value"),
        ({"top_k": 1.5}, "top_k", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"stream": 1}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "invalid_value"),
        ({"tools": [{}]}, "tools[0].type", "unsupported_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unknown_parameter"),
    ],
)
def test_what_cannot_be_done_as_asked_is_refused_by_name(
    members: dict[str, Any], param: str, code: str
) -> None:
    error = refused(chat, **members)
    assert (error.status, error.param, error.code) == (400, param, code)
    assert "found" in error.message or code == "unknown_parameter"
    document = json.loads(error.body())["error"]
    assert set(document) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "members",
    [
        {"prompt": ["a", "b"]},
        {"prompt": []},
        {"prompt": [1, "a"]},
        {"prompt": [-1]},
        {"prompt": None},
        {"best_of": 2},
        {"echo": True, "logprobs": 1},
        {"suffix": "end"},
        {"logprobs": 21},
        {"messages": []},
    ],
)
def test_completions_refuse_what_they_cannot_do(members: dict[str, Any]) -> None:
    assert refused(text, **members).status == 400


def test_completions_take_one_text_or_one_list_of_ids_also_wrapped() -> None:
    assert text(prompt=["a"]).prompt == "a"
    assert text(prompt=[1, 2]).prompt == (1, 2)
    assert text(prompt=[[1, 2]]).prompt == (1, 2)


def test_bookkeeping_fields_change_nothing() -> None:
    assert chat(user="u", metadata={"a": "b"}, store=False, service_tier="auto") == chat()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("POST", "/v1/images"), ("POST", "/v1/models")]
)
def test_other_endpoints_do_not_exist(method: str, path: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request(method, path, b"{}")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"model":"a","model":"b"}', b'{"model":NaN}', b"\xff", b"[" * 99]
)
def test_a_body_that_is_not_one_strict_object_is_a_400(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request("POST", CHAT, raw)
    assert caught.value.status == 400


@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_anything_but_parse_or_raise_an_api_error(raw: bytes) -> None:
    with pytest.raises(ApiError):
        parse_request("POST", CHAT, raw)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "temperature", "stop", "n", "seed", "stream", "prompt", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_whatever_the_members_are_the_answer_is_a_request_or_an_api_error(
    members: dict[str, Any],
) -> None:
    with contextlib.suppress(ApiError):
        assert chat(**members).model == "m"


def test_replies_have_openai_s_shape() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
    result = ChoiceResult(0, "answer", (), "stop")
    for request, member in ((chat(), "message"), (text(), "text")):
        identity = Identity.fresh(request.kind, "m", 1_790_000_000)
        document = json.loads(body(identity, request, [result], usage))
        assert member in document["choices"][0]
        assert document["usage"]["total_tokens"] == 7
        assert document["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
        head = identity.head(stream=True, prompt_tokens=3)
        assert head["h"]["content-type"] == "text/event-stream"
