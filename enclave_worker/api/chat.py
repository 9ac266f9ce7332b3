"""Bodies of `/v1/chat/completions` and `/v1/completions`. Unknown fields are refused by name.

Three lists decide about every field of the public API: read here; accepted only with the value
that describes what happens anyway (`modalities: ["text"]`, …); or ignored because it concerns
billing and bookkeeping, never the answer (`IGNORED`).
"""

from collections.abc import Mapping
from typing import Any

from evidence.commit import request_segments
from wire.excerpt import json_kind

from .content import read_text
from .errors import invalid, unsupported
from .fields import Fields, counted
from .formats import one_format, read_response_format, read_structured_outputs
from .request import CHOICES_MAX, MESSAGES_MAX, TOKENS_MAX, ApiRequest, ToolCall, Turn
from .sampling import LOGPROBS_MAX, READERS, read_sampling
from .tools import arguments_text, read_openai_tools

# Bookkeeping members of the public API that cannot change an answer here.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
ROLES = ("system", "user", "assistant", "tool")
NAME_MAX = 64
CALLS_MAX = 128
ID_MAX = 256


def read_chat(fields: Fields, model: str, members: Mapping[str, Any]) -> ApiRequest:
    """Read a chat body; `fields` are then checked for what nobody read."""
    max_tokens = _max_tokens(fields)
    stream = fields.flag("stream")
    tools = read_openai_tools(fields)
    wanted = _logprobs(fields)
    if wanted is not None and tools.active:
        raise unsupported("logprobs", "found beside tools, this service gives them for text only")
    request = ApiRequest(
        kind="chat",
        model=model,
        turns=_messages(fields),
        sampling=read_sampling(fields, READERS, max_tokens=max_tokens or 1, logprobs=wanted),
        max_tokens=max_tokens,
        n=fields.integer("n", 1, CHOICES_MAX) or 1,
        stream=stream,
        include_usage=read_include_usage(fields, stream),
        tools=tools,
        format=one_format(read_response_format(fields), read_structured_outputs(fields)),
        members=members,
        segments=tuple(request_segments(members)),
    )
    fields.only("functions", [])
    fields.only("function_call", "none", "auto")
    fields.only("modalities", ["text"])
    for key in ("audio", "prediction", "web_search_options"):
        fields.only(key)
    fields.ignore(IGNORED)
    return request


def read_include_usage(fields: Fields, stream: bool) -> bool:
    """Read `stream_options`."""
    options = fields.child("stream_options")
    if options is None:
        return False
    if not stream:
        raise invalid(
            "stream_options", "found without stream: true, expected only together with it"
        )
    wanted = options.flag("include_usage")
    # Padding is the sealed channel's business and always on: the member changes nothing.
    options.ignore(("include_obfuscation",))
    options.done()
    return wanted


def _logprobs(fields: Fields) -> int | None:
    """How many alternatives a token's log-probability comes with; None for no log-probabilities."""
    wanted = fields.flag("logprobs")
    most = fields.integer("top_logprobs", 0, LOGPROBS_MAX)
    if most and not wanted:
        raise invalid("top_logprobs", "found without logprobs: true, expected both")
    return most or 0 if wanted else None


def _max_tokens(fields: Fields) -> int | None:
    limit = fields.integer("max_tokens", 1, TOKENS_MAX)
    newer = fields.integer("max_completion_tokens", 1, TOKENS_MAX)
    if limit is not None and newer is not None and limit != newer:
        raise invalid(
            "max_tokens",
            f"found {limit} beside max_completion_tokens {newer}, expected one of them",
        )
    return newer if newer is not None else limit


def _messages(fields: Fields) -> tuple[Turn, ...]:
    raw = fields.raw("messages")
    if not isinstance(raw, list) or not 1 <= len(raw) <= MESSAGES_MAX:
        raise invalid(
            "messages",
            f"found {counted(raw)}, expected an array of 1 to {MESSAGES_MAX} messages",
        )
    return tuple(_message(item, f"messages[{index}].") for index, item in enumerate(raw))


def _message(raw: Any, where: str) -> Turn:
    fields = Fields(raw, where)
    # OpenAI renamed `system` for its newer models; to a chat template they are the same.
    role = fields.one_of("role", (*ROLES, "developer")) or ""
    if not role:
        raise invalid(fields.name("role"), f"found none, expected one of {', '.join(ROLES)}")
    role = "system" if role == "developer" else role
    calls = _calls(fields) if role == "assistant" else ()
    content = fields.raw("content")
    if content is None and calls:
        content = ""
    text = read_text(content, fields.name("content"), ("text",))
    call_id = ""
    if role == "tool":
        call_id = fields.text("tool_call_id", ID_MAX) or ""
        if not call_id:
            raise invalid(fields.name("tool_call_id"), "found none, expected the call's id")
    fields.text("name", NAME_MAX)
    # What an assistant message copied from an earlier reply carries: accepted while empty.
    for key in ("refusal", "audio", "function_call", "reasoning_content"):
        fields.only(key)
    fields.only("tool_calls", [])
    fields.only("annotations", [])
    fields.done()
    return Turn(role, text, calls, call_id)


def _calls(fields: Fields) -> tuple[ToolCall, ...]:
    return tuple(
        _call(item, fields.name(f"tool_calls[{index}]."))
        for index, item in enumerate(fields.items("tool_calls", CALLS_MAX))
    )


def _call(raw: Any, where: str) -> ToolCall:
    fields = Fields(raw, where)
    fields.only("type", "function")
    fields.ignore(("index",))
    call_id = fields.text("id", ID_MAX) or ""
    inner = fields.child("function")
    if inner is None:
        raise invalid(fields.name("function"), f"found {json_kind(None)}, expected an object")
    name = inner.text("name", 128) or ""
    arguments = arguments_text(inner.raw("arguments"), inner.name("arguments"))
    inner.done()
    fields.done()
    return ToolCall(call_id, name, arguments)
