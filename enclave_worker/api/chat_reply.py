"""Whole replies of `/v1/chat/completions` and `/v1/completions`."""

from collections.abc import Sequence
from typing import Any

from enclave_worker.engine.events import Usage

from .logprobs import chat_document, completion_document
from .request import ApiRequest, ToolCall
from .results import ChoiceResult, Identity, usage_document


def chat_reply(
    identity: Identity, request: ApiRequest, results: Sequence[ChoiceResult], usage: Usage
) -> dict[str, Any]:
    """A `chat.completion`."""
    del request
    return _document(identity, "chat.completion", [_chat_choice(r) for r in results], usage)


def completion_reply(
    identity: Identity, request: ApiRequest, results: Sequence[ChoiceResult], usage: Usage
) -> dict[str, Any]:
    """A `text_completion`."""
    del request
    choices = [
        {
            "index": result.index,
            "text": result.text,
            "finish_reason": result.finish,
            "logprobs": None if result.logprobs is None else completion_document(result.logprobs),
        }
        for result in results
    ]
    return _document(identity, "text_completion", choices, usage)


def _document(
    identity: Identity, kind: str, choices: list[dict[str, Any]], usage: Usage
) -> dict[str, Any]:
    return {
        "id": identity.id,
        "object": kind,
        "created": identity.created,
        "model": identity.model,
        "choices": choices,
        "usage": usage_document(usage)
        | {"prompt_tokens_details": {"cached_tokens": usage.cached_tokens}},
    }


def _chat_choice(result: ChoiceResult) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": None}
    if result.calls:
        message["content"] = result.text or None
        message["tool_calls"] = [_call(call) for call in result.calls]
    logprobs = None if result.logprobs is None else chat_document(result.logprobs)
    return {
        "index": result.index,
        "message": message,
        "finish_reason": result.reason,
        "logprobs": logprobs,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
