"""Reading a request body only as far as the envelope needs it."""

from __future__ import annotations

import json

import pytest

from client.calls import DEFAULT_MAX_TOKENS, make_call, parse_call
from client.openai_shape import base_of, sealed_path
from wire.errors import MalformedError

CHAT = "/v1/chat/completions"


def body(**members: object) -> bytes:
    return json.dumps({"model": "m", "messages": [], **members}).encode()


def test_the_body_is_sealed_as_it_was_given() -> None:
    raw = b'{ "model" : "m", "messages": [] , "unknown": 1.50 }'
    assert parse_call(CHAT, raw).body == raw


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("m", ("m", "")),
        ("m:legal", ("m", "legal")),
        ("m:7b", ("m:7b", "")),
        ("m:7b:legal", ("m:7b", "legal")),
        ("other:legal", ("other:legal", "")),
        (":legal", (":legal", "")),
    ],
)
def test_an_adapter_is_taken_off_a_known_models_name(model: str, expected: tuple[str, str]) -> None:
    raw = body(model=model)
    call = parse_call(CHAT, raw).among({"m", "m:7b"})
    assert ((call.model, call.adapter), call.body) == (expected, raw)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, DEFAULT_MAX_TOKENS),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": None}, DEFAULT_MAX_TOKENS),
    ],
)
def test_the_token_limit_decides_the_output_class(
    members: dict[str, object], expected: int
) -> None:
    assert parse_call(CHAT, body(**members)).max_tokens == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model":""}',
        b'{"model":1}',
        b'{"model":"m","model":"n"}',
        b'{"model":"m","stream":"yes"}',
        b'{"model":"m","max_tokens":0}',
        b'{"model":"m","max_tokens":true}',
        b'{"model":"m","max_tokens":65537}',
        b'{"model":"m","x":NaN}',
        b"\xff",
    ],
)
def test_a_body_the_envelope_cannot_describe_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_call(CHAT, raw)


def test_an_endpoint_without_a_sealed_form_is_refused() -> None:
    with pytest.raises(MalformedError) as caught:
        parse_call("/v1/images", body())
    assert caught.value.code == "unknown_endpoint"


def test_values_json_cannot_carry_are_refused() -> None:
    with pytest.raises(MalformedError):
        make_call(CHAT, {"model": "m", "messages": [object()]})
    with pytest.raises(MalformedError):
        make_call(CHAT, {"model": "m", "temperature": float("nan")})


@pytest.mark.parametrize(
    ("path", "endpoint", "base"),
    [
        ("/v1/models", "/v1/models", ""),
        ("/prefix/v1/chat/completions", CHAT, "/prefix"),
        ("/chat/completions", CHAT, ""),
    ],
)
def test_endpoints_are_found_behind_any_base_url(path: str, endpoint: str, base: str) -> None:
    assert sealed_path(path) == endpoint
    assert base_of(path) == base
