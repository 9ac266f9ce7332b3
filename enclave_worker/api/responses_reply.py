"""Whole replies of `/v1/responses`."""

from collections.abc import Mapping, Sequence
from typing import Any

from enclave_worker.engine.events import Usage

from .logprobs import entry_document
from .request import ApiRequest
from .results import ChoiceResult, Identity

# Members of the request that the reply repeats, with what holds where they are absent.
REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def responses_reply(
    identity: Identity, request: ApiRequest, results: Sequence[ChoiceResult], usage: Usage
) -> dict[str, Any]:
    """A `response` object, completed or cut short."""
    (result,) = results
    cut = result.finish == "length"
    status = "incomplete" if cut else "completed"
    repeated = {
        name: default if request.members.get(name) is None else request.members[name]
        for name, default in REPEATED.items()
    }
    return {
        "id": identity.id,
        "object": "response",
        "created_at": identity.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": identity.model,
        "output": _output(identity, result, status),
        "previous_response_id": None,
        "reasoning": None,
        "store": False,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        **repeated,
    }


def _output(identity: Identity, result: ChoiceResult, status: str) -> list[dict[str, Any]]:
    """Items in order; ids follow from the response's, as a stream's do."""
    items: list[dict[str, Any]] = []
    tail = identity.id.removeprefix("resp_")
    if result.text or not result.calls:
        logprobs = [entry_document(entry) for entry in result.logprobs or ()]
        content = {
            "type": "output_text",
            "text": result.text,
            "annotations": [],
            "logprobs": logprobs,
        }
        items.append(
            {
                "id": f"msg_{tail}",
                "type": "message",
                "role": "assistant",
                "status": status if not result.calls else "completed",
                "content": [content],
            }
        )
    for number, call in enumerate(result.calls):
        last = number == len(result.calls) - 1
        items.append(
            {
                "id": f"fc_{tail}_{number}",
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": status if last else "completed",
            }
        )
    return items
