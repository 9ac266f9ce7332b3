"""Bodies of `/v1/messages`, in Anthropic's shape."""

import json
from collections.abc import Mapping
from typing import Any

from enclave_worker.engine.params import Grammar
from evidence.commit import request_segments
from wire.excerpt import json_kind, shown

from .content import read_text, text_of
from .errors import invalid, unsupported
from .fields import KEYWORD_MAX, Fields, counted
from .formats import schema_grammar
from .request import MESSAGES_MAX, TOKENS_MAX, ApiRequest, ToolCall, Turn
from .sampling import read_sampling, read_stops
from .tools import read_messages_tools

IGNORED = ("metadata", "service_tier", "inference_geo")
SAMPLING = ("temperature", "top_p", "top_k")
TEXT = ("text",)
ID_MAX = 256


def read_message(fields: Fields, model: str, members: Mapping[str, Any]) -> ApiRequest:
    """Read a Messages body; `fields` are then checked for what nobody read."""
    max_tokens = fields.integer("max_tokens", 1, TOKENS_MAX)
    if max_tokens is None:
        raise invalid("max_tokens", "found none, expected how many tokens the answer may have")
    # Anthropic's temperatures end at 1.
    fields.number("temperature", 0.0, 1.0)
    system = fields.raw("system")
    turns = [] if system is None else [Turn("system", read_text(system, "system", TEXT))]
    request = ApiRequest(
        kind="messages",
        model=model,
        turns=(*turns, *_turns(fields)),
        sampling=read_sampling(
            fields, SAMPLING, max_tokens=max_tokens, stop=read_stops(fields, "stop_sequences")
        ),
        max_tokens=max_tokens,
        stream=fields.flag("stream"),
        tools=read_messages_tools(fields),
        format=_format(fields),
        members=members,
        segments=tuple(request_segments(members)),
    )
    fields.only("thinking", {"type": "disabled"})
    for key in ("container", "context_management", "mcp_servers", "cache_control"):
        fields.only(key)
    fields.ignore(IGNORED)
    return request


def _format(fields: Fields) -> Grammar | None:
    options = fields.child("output_config")
    if options is None:
        return None
    inner = options.child("format")
    options.done()
    if inner is None:
        return None
    if inner.one_of("type", ("json_schema",)) is None:
        raise invalid(inner.name("type"), "found none, expected json_schema")
    grammar = schema_grammar(inner.raw("schema"), inner.name("schema"))
    inner.done()
    return grammar


def _turns(fields: Fields) -> list[Turn]:
    raw = fields.raw("messages")
    if not isinstance(raw, list) or not 1 <= len(raw) <= MESSAGES_MAX:
        raise invalid(
            "messages",
            f"found {counted(raw)}, expected an array of 1 to {MESSAGES_MAX} messages",
        )
    turns: list[Turn] = []
    for index, item in enumerate(raw):
        message = Fields(item, f"messages[{index}].")
        role = message.one_of("role", ("user", "assistant"))
        if role is None:
            raise invalid(message.name("role"), "found none, expected user or assistant")
        turns += _blocks(role, message.raw("content"), message.name("content"))
        message.done()
    if turns and turns[-1].role == "assistant":
        # The template ends a turn before the next begins: it cannot go on with this one.
        raise unsupported("messages", "found an assistant's message last, expected a user's")
    return turns


def _blocks(role: str, raw: Any, name: str) -> list[Turn]:
    """The turns of one message: results of tools are turns of their own, before its text."""
    if isinstance(raw, str):
        return [Turn(role, raw)]
    if not isinstance(raw, list) or not raw:
        raise invalid(name, f"found {counted(raw)}, expected a string or an array of blocks")
    texts: list[str] = []
    calls: list[ToolCall] = []
    results: list[Turn] = []
    for index, item in enumerate(raw):
        block = Fields(item, f"{name}[{index}].")
        kind = block.raw("type")
        if kind == "text":
            texts.append(text_of(block, TEXT))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_use(block))
        elif kind == "tool_result" and role == "user":
            results.append(_result(block))
        else:
            what = shown(kind, KEYWORD_MAX) if isinstance(kind, str) else json_kind(kind)
            raise unsupported(block.name("type"), f"found {what}, no such block here")
    turns = results
    if texts or calls:
        turns.append(Turn(role, "".join(texts), tuple(calls)))
    return turns


def _use(block: Fields) -> ToolCall:
    block.ignore(("cache_control", "caller"))
    use_id, name = block.text("id", ID_MAX), block.text("name", 128)
    given = block.raw("input")
    if not use_id or not name or not isinstance(given, dict):
        raise invalid(block.name("input"), "expected id, name and an object as input")
    block.done()
    return ToolCall(use_id, name, json.dumps(given, ensure_ascii=False))


def _result(block: Fields) -> Turn:
    block.ignore(("cache_control",))
    use_id = block.text("tool_use_id", ID_MAX)
    if not use_id:
        raise invalid(block.name("tool_use_id"), "found none, expected the id of a tool_use")
    raw = block.raw("content")
    text = "" if raw is None else read_text(raw, block.name("content"), TEXT)
    # Templates have no place for it, and the model must not take a failure for a result.
    text = f"Error: {text}" if block.flag("is_error") else text
    block.done()
    return Turn("tool", text, (), use_id)
