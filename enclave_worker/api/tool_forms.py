"""How a model writes tool calls: what its prompt says about tools, and the grammar of its answer.

Three forms. `hermes`: the template lists the tools itself and calls stand between `<tool_call>`
tags (Hermes, Qwen). `llama`: the template lists them and the whole answer is one call (Llama 3).
`block`: the template knows no tools, or another form; a system text lists them and calls look like
Hermes'.

The grammar fixes every character of a call but its arguments, so that reading it back
(`tool_reader`) is following the grammar, never guessing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from enclave_worker.engine.params import MAX_GRAMMAR_CHARS, Grammar
from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.limits import BODY_DEPTH_MAX, BODY_MAX

from .errors import invalid, unsupported
from .formats import ANY_OBJECT
from .request import Tool, ToolCall, ToolPlan, Turn

Form = Literal["hermes", "llama", "block"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_TOOLS = re.compile(r"\btools\b")

BLOCK = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def form_of(template: str) -> Form:
    """The form a chat template's text shows."""
    if _TOOLS.search(template):
        if OPEN in template:
            return "hermes"
        if '"parameters": ' in template or '"parameters":' in template:
            return "llama"
    return "block"


def prompt_values(
    form: Form, turns: Sequence[Turn], plan: ToolPlan
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """What the template renders: messages, and tools where it knows them.

    Raises:
        ApiError: a call in the conversation whose arguments are not a JSON object.
    """
    offered = plan.choice != "none"
    tools = [definition(tool) for tool in plan.tools] if offered and plan.tools else None
    if form == "block":
        turns = [_written(turn) for turn in turns]
        if tools:
            turns = _with_block(turns, tools)
        return [{"role": turn.role, "content": turn.content} for turn in turns], None
    return [_message(turn, index) for index, turn in enumerate(turns)], tools


def answer_grammar(form: Form, plan: ToolPlan, text: Grammar | None) -> Grammar | None:
    """The grammar of the whole answer: of the text where nothing may be called, else of both.

    Raises:
        ApiError: this model's form cannot tell such a text from a call.
    """
    if not plan.active:
        return text
    schemas = [dict(tool.parameters) for tool in plan.callable]
    bodies = "\n".join(
        f"body_{number}: {_quoted(_begin(form, tool))} @schema_{number}"
        for number, tool in enumerate(plan.callable)
    )
    body = "body: " + " | ".join(f"body_{number}" for number in range(len(plan.callable)))
    said, extra = _text_rule(form, plan, text, schemas)
    more = f' ("\\n{OPEN}" call)*' if plan.parallel else ""
    if form == "llama":
        start = f'call{said}\ncall: body "}}"'
    elif plan.choice == "required":
        start = f'"{OPEN}" call{more}\ncall: "\\n" body "}}\\n{CLOSE}"'
    else:
        start = f'head call{more}{said}\ncall: "\\n" body "}}\\n{CLOSE}"'
        # Lazy: the first tag begins a call, so text can never hold one.
        extra += f'\nhead[lazy]: {"TEXT " if text is None else ""}"{OPEN}"'
    lark = f"start: {start}\n{body}\n{bodies}{extra}\n"
    source = json.dumps({"lark": lark, "schemas": schemas}, ensure_ascii=False)
    if len(source) > MAX_GRAMMAR_CHARS:
        raise invalid(
            "tools", f"found a grammar of {len(source)} characters, expected ≤ {MAX_GRAMMAR_CHARS}"
        )
    return Grammar("calls", source)


def definition(tool: Tool) -> dict[str, Any]:
    """The tool as templates list it, which is OpenAI's chat form."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": {**function, "parameters": dict(tool.parameters)}}


def _text_rule(
    form: Form, plan: ToolPlan, text: Grammar | None, schemas: list[dict[str, Any]]
) -> tuple[str, str]:
    """The alternative without a call, and the rules it needs; its schema goes behind the others."""
    if plan.choice == "required":
        return "", ""
    if text is None:
        # In Llama's form what begins with a brace is a call.
        pattern = r"/([^{](.|\n)*)?/" if form == "llama" else r"/(.|\n)*/"
        return " | text", f"\ntext: TEXT\nTEXT: {pattern}"
    if form == "llama" or text.kind not in ("json_schema", "json_object"):
        raise unsupported(
            "tools", "found beside a grammar of the text; this model's form cannot hold both"
        )
    schemas.append(json.loads(text.source or "{}") or dict(ANY_OBJECT))
    return " | text", f"\ntext: @schema_{len(schemas) - 1}"


def _begin(form: Form, tool: Tool) -> str:
    member = "parameters" if form == "llama" else "arguments"
    return f'{{"name": "{tool.name}", "{member}": '


def _quoted(text: str) -> str:
    return json.dumps(text)


def _message(turn: Turn, index: int) -> dict[str, Any]:
    """A turn as templates that know tools take it; arguments are objects there."""
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _object(call, index)},
            }
            for call in turn.calls
        ]
    if turn.role == "tool":
        message["tool_call_id"] = turn.call_id
    return message


def _object(call: ToolCall, index: int) -> Mapping[str, Any]:
    name = f"messages[{index}].tool_calls"
    try:
        found = parse_strict(
            call.arguments.encode() or b"{}", max_depth=BODY_DEPTH_MAX, max_bytes=BODY_MAX
        )
    except MalformedError as error:
        raise invalid(name, f"found arguments that are no JSON: {error}") from None
    if not isinstance(found, dict):
        raise invalid(name, "expected arguments that are a JSON object")
    return found


def _written(turn: Turn) -> Turn:
    """A turn as text, for templates without tools."""
    if turn.role == "tool":
        return Turn("user", f"<tool_response>\n{turn.content}\n</tool_response>")
    if not turn.calls:
        return turn
    texts = [turn.content] if turn.content else []
    for call in turn.calls:
        arguments = call.arguments or "{}"
        texts.append(f'{OPEN}\n{{"name": "{call.name}", "arguments": {arguments}}}\n{CLOSE}')
    return Turn(turn.role, "\n".join(texts))


def _with_block(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]]) -> list[Turn]:
    block = BLOCK.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if turns and turns[0].role == "system":
        first = replace(turns[0], content=f"{turns[0].content}\n\n{block}")
        return [first, *turns[1:]]
    return [Turn("system", block), *turns]
