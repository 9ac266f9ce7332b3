"""Whole replies of `/v1/messages`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from enclave_worker.engine.events import Usage
from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.limits import BODY_DEPTH_MAX, BODY_MAX

from .request import ApiRequest
from .results import ChoiceResult, Identity


def settled(result: ChoiceResult) -> ChoiceResult:
    """The choice as this shape can show it: `input` is an object, so a call cut short is left out.

    In a stream its pieces were sent; `stop_reason` says that the answer was cut.
    """
    return replace(result, calls=tuple(c for c in result.calls if _object(c.arguments) is not None))


def messages_reply(
    identity: Identity, request: ApiRequest, results: Sequence[ChoiceResult], usage: Usage
) -> dict[str, Any]:
    """A `message`; the result is `settled`."""
    (result,) = results
    content: list[dict[str, Any]] = []
    if result.text or not result.calls:
        content.append({"type": "text", "text": result.text})
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _object(call.arguments)}
        for call in result.calls
    ]
    stop = None if result.stop is None else request.sampling.stop[result.stop]
    return {
        "id": identity.id,
        "type": "message",
        "role": "assistant",
        "model": identity.model,
        "content": content,
        "stop_reason": stop_reason(result),
        "stop_sequence": stop,
        "usage": {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": usage.completion_tokens,
        },
    }


def stop_reason(result: ChoiceResult) -> str:
    """Why it ended, in this shape's words."""
    if result.finish == "length":
        return "max_tokens"
    if result.stop is not None:
        return "stop_sequence"
    return "tool_use" if result.calls else "end_turn"


def _object(arguments: str) -> dict[str, Any] | None:
    try:
        found = parse_strict(arguments.encode(), max_depth=BODY_DEPTH_MAX, max_bytes=BODY_MAX)
    except MalformedError:
        return None
    return found if isinstance(found, dict) else None
