"""Bodies of `/v1/responses`: the stateless core. Nothing is stored, so nothing can be referred to.

`store` absent means false here, as the reply says; true is refused, not ignored.
"""

from collections.abc import Mapping
from typing import Any

from evidence.commit import request_segments
from wire.excerpt import json_kind, shown

from .content import read_text
from .errors import invalid, unsupported
from .fields import KEYWORD_MAX, Fields, counted
from .formats import read_text_format
from .request import MESSAGES_MAX, TOKENS_MAX, ApiRequest, ToolCall, Turn
from .sampling import LOGPROBS_MAX, read_sampling
from .tools import arguments_text, read_responses_tools

IGNORED = (
    "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
SAMPLING = ("temperature", "top_p")
TEXT_PARTS = ("input_text", "output_text", "text")
ROLES = ("system", "user", "assistant", "developer")
LOGPROBS_INCLUDE = "message.output_text.logprobs"
ID_MAX = 256
INSTRUCTIONS_MAX = 1024 * 1024


def read_response(fields: Fields, model: str, members: Mapping[str, Any]) -> ApiRequest:
    """Read a Responses body; `fields` are then checked for what nobody read."""
    max_tokens = fields.integer("max_output_tokens", 1, TOKENS_MAX)
    tools = read_responses_tools(fields)
    wanted = _logprobs(fields)
    if wanted is not None and tools.active:
        raise unsupported("include", "found log-probabilities beside tools, expected one of them")
    stream = fields.flag("stream")
    request = ApiRequest(
        kind="responses",
        model=model,
        turns=_turns(fields),
        sampling=read_sampling(fields, SAMPLING, max_tokens=max_tokens or 1, logprobs=wanted),
        max_tokens=max_tokens,
        stream=stream,
        tools=tools,
        format=read_text_format(fields),
        members=members,
        segments=tuple(request_segments(members)),
    )
    _unsupported(fields)
    fields.ignore(IGNORED)
    return request


def _unsupported(fields: Fields) -> None:
    """Accept fields of features that do not exist here only in their switched-off form."""
    fields.only("store", False)
    fields.only("background", False)
    fields.only("truncation", "disabled")
    for key in ("previous_response_id", "conversation", "prompt", "reasoning", "max_tool_calls"):
        fields.only(key)
    options = fields.child("stream_options")
    if options is not None:
        options.ignore(("include_obfuscation",))
        options.done()


def _logprobs(fields: Fields) -> int | None:
    most = fields.integer("top_logprobs", 0, LOGPROBS_MAX)
    include = fields.items("include", 16)
    for item in include:
        if item != LOGPROBS_INCLUDE:
            what = shown(item) if isinstance(item, str) else json_kind(item)
            raise unsupported("include", f"found {what}, expected only {LOGPROBS_INCLUDE}")
    if most and not include:
        raise invalid("top_logprobs", f"found without {LOGPROBS_INCLUDE} in include, expected both")
    return most or 0 if include else None


def _turns(fields: Fields) -> tuple[Turn, ...]:
    turns = []
    instructions = fields.text("instructions", INSTRUCTIONS_MAX)
    if instructions:
        turns.append(Turn("system", instructions))
    raw = fields.raw("input")
    if isinstance(raw, str):
        return (*turns, Turn("user", raw))
    if not isinstance(raw, list) or not 1 <= len(raw) <= MESSAGES_MAX:
        raise invalid(
            "input",
            f"found {counted(raw)}, expected a string or an array of 1 to {MESSAGES_MAX} items",
        )
    for index, item in enumerate(raw):
        turns.append(_item(Fields(item, f"input[{index}].")))
    return _joined(turns)


def _item(item: Fields) -> Turn:
    kind = item.raw("type")
    # What items copied from an earlier reply carry besides.
    item.only("status", "completed", "incomplete")
    readers = {
        None: _message,
        "message": _message,
        "function_call": _call,
        "function_call_output": _output,
    }
    if not (kind is None or isinstance(kind, str)) or kind not in readers:
        what = shown(kind, KEYWORD_MAX) if isinstance(kind, str) else json_kind(kind)
        raise unsupported(
            item.name("type"),
            f"found {what}, expected message, function_call or function_call_output",
        )
    turn = readers[kind](item)
    item.done()
    return turn


def _message(item: Fields) -> Turn:
    role = item.one_of("role", ROLES)
    if role is None:
        raise invalid(item.name("role"), f"found none, expected one of {', '.join(ROLES)}")
    item.ignore(("id", "phase"))
    text = read_text(item.raw("content"), item.name("content"), TEXT_PARTS)
    return Turn("system" if role == "developer" else role, text)


def _call(item: Fields) -> Turn:
    item.ignore(("id", "caller", "namespace"))
    call_id, name = item.text("call_id", ID_MAX), item.text("name", 128)
    if not call_id or not name:
        raise invalid(item.name("call_id"), "expected a call id and the function's name")
    arguments = arguments_text(item.raw("arguments"), item.name("arguments"))
    return Turn("assistant", "", (ToolCall(call_id, name, arguments),))


def _output(item: Fields) -> Turn:
    item.ignore(("id", "caller"))
    call_id = item.text("call_id", ID_MAX)
    if not call_id:
        raise invalid(item.name("call_id"), "found none, expected the call's id")
    text = read_text(item.raw("output"), item.name("output"), TEXT_PARTS)
    return Turn("tool", text, (), call_id)


def _joined(turns: list[Turn]) -> tuple[Turn, ...]:
    """An assistant's text and the calls behind it are items here, and one turn to a template."""
    found: list[Turn] = []
    for turn in turns:
        last = found[-1] if found else None
        if turn.calls and last is not None and last.role == "assistant":
            found[-1] = Turn("assistant", last.content, last.calls + turn.calls)
        else:
            found.append(turn)
    return tuple(found)
