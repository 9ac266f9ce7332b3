"""Tool definitions and choices of the three conversation shapes → one `ToolPlan`."""

import re
from collections.abc import Callable
from typing import Any

from .errors import invalid, unsupported
from .fields import Fields
from .formats import ANY_OBJECT, DESCRIPTION_MAX
from .request import Tool, ToolChoice, ToolPlan

# The grammar has an alternative for each, and the prompt a definition.
TOOLS_MAX = 128
# OpenAI's rule and Anthropic's longer one; none of these needs an escape in JSON.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def read_openai_tools(fields: Fields) -> ToolPlan:
    """`tools`, `tool_choice` and `parallel_tool_calls` of chat completions."""
    tools = _tools(fields, _chat_tool)
    return _plan(fields, tools, lambda choice: choice.child("function"))


def read_responses_tools(fields: Fields) -> ToolPlan:
    """The same of the Responses API, whose functions are not wrapped."""
    return _plan(fields, _tools(fields, _responses_tool), lambda choice: choice)


def read_messages_tools(fields: Fields) -> ToolPlan:
    """`tools` and `tool_choice` of the Messages API."""
    tools = _tools(fields, _messages_tool)
    choice = fields.child("tool_choice")
    if choice is None:
        return _checked(tools, "auto" if tools else "none", None, True, "tool_choice")
    kind = choice.one_of("type", ("auto", "any", "tool", "none"))
    only = choice.text("name", 128) if kind == "tool" else None
    if kind == "tool" and not only:
        raise invalid("tool_choice.name", "found none, expected the name of a tool")
    parallel = not choice.flag("disable_parallel_tool_use")
    choice.done()
    words: dict[str | None, ToolChoice] = {"any": "required", "tool": "required", "none": "none"}
    return _checked(tools, words.get(kind, "auto"), only, parallel, "tool_choice")


def _tools(fields: Fields, read: Callable[[Fields], Tool]) -> tuple[Tool, ...]:
    tools = []
    for index, item in enumerate(fields.items("tools", TOOLS_MAX)):
        tool = Fields(item, f"tools[{index}].")
        tools.append(read(tool))
        tool.done()
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise invalid("tools", "found a name twice, expected each once")
    return tuple(tools)


def _chat_tool(tool: Fields) -> Tool:
    _function_type(tool)
    inner = tool.child("function")
    if inner is None:
        raise invalid(tool.name("function"), "found none, expected an object")
    made = _function(inner, "parameters")
    inner.done()
    return made


def _responses_tool(tool: Fields) -> Tool:
    _function_type(tool)
    return _function(tool, "parameters")


def _messages_tool(tool: Fields) -> Tool:
    # Tools that run at the vendor have other types; a hint about caching changes no answer.
    tool.only("type", "custom")
    tool.ignore(("cache_control",))
    return _function(tool, "input_schema")


def _function_type(tool: Fields) -> None:
    if (found := tool.raw("type")) != "function":
        what = "another type" if isinstance(found, str) else "none"
        raise unsupported(tool.name("type"), f"found {what}, this service has only function tools")


def _function(fields: Fields, schema: str) -> Tool:
    name = fields.text("name", 128)
    if not name or not _NAME.fullmatch(name):
        raise invalid(
            fields.name("name"), "expected 1 to 128 of letters, digits, underscore, dot and hyphen"
        )
    # Calls follow the schema in any case.
    fields.flag("strict")
    parameters = fields.raw(schema)
    parameters = ANY_OBJECT if parameters is None else parameters
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise invalid(fields.name(schema), "expected a JSON schema of type object")
    return Tool(name, fields.text("description", DESCRIPTION_MAX), {**ANY_OBJECT, **parameters})


def _plan(
    fields: Fields, tools: tuple[Tool, ...], named: Callable[[Fields], Fields | None]
) -> ToolPlan:
    raw = fields.raw("parallel_tool_calls")
    parallel = raw is None or fields.flag("parallel_tool_calls")
    choice = fields.raw("tool_choice")
    if choice is None:
        return _checked(tools, "auto" if tools else "none", None, parallel, "tool_choice")
    if isinstance(choice, str):
        word = fields.one_of("tool_choice", ("none", "auto", "required"))
        return _checked(tools, word or "auto", None, parallel, "tool_choice")  # type: ignore[arg-type]  # one of the three
    options = Fields(choice, "tool_choice.")
    _function_type(options)
    where = named(options)
    only = where.text("name", 128) if where is not None else None
    if not only:
        raise invalid("tool_choice", "found no name, expected the name of a function")
    if where is not None:
        where.done()
    options.done()
    return _checked(tools, "required", only, parallel, "tool_choice")


def _checked(
    tools: tuple[Tool, ...], choice: ToolChoice, only: str | None, parallel: bool, name: str
) -> ToolPlan:
    if not tools and choice == "auto":
        choice = "none"
    if choice == "required" and not tools:
        raise invalid(name, "found no tools, expected some to choose from")
    if only is not None and only not in {tool.name for tool in tools}:
        raise invalid(name, "found a name that is not among the tools, expected one of theirs")
    return ToolPlan(tools, choice, only, parallel and only is None)


def arguments_text(value: Any, name: str) -> str:
    """Arguments of a call in a conversation, which must spell a JSON object."""
    if not isinstance(value, str):
        raise invalid(name, "expected the arguments as JSON text")
    return value
