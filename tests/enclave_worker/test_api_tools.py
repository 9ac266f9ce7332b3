"""Tools: how the prompt tells of them, what the answer may then be, and how it is read back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.generation import running

from enclave_worker.api.endpoints import parse_request
from enclave_worker.api.errors import ApiError
from enclave_worker.api.request import ToolCall, ToolPlan, Turn
from enclave_worker.api.tool_forms import Form, answer_grammar, form_of, prompt_values
from enclave_worker.api.tool_reader import Part, ToolReader
from enclave_worker.engine.engine import Engine
from enclave_worker.engine.params import Grammar
from enclave_worker.engine.sampling.grammar import Grammars

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITY["additionalProperties"] = False  # type: ignore[assignment]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "time"}},
]
HERMES = "{% if tools %}<tool_call>{% endif %}"
LLAMA = '{% if tools %}{"name": x, "parameters": y}{% endif %}'


def plan(**members: Any) -> ToolPlan:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS}
    raw = json.dumps(body | members).encode()
    return parse_request("POST", "/v1/chat/completions", raw).tools


def grammar(form: Form, text: Grammar | None = None, **members: Any) -> Grammar:
    found = answer_grammar(form, plan(**members), text)
    assert found is not None
    return found


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


WEATHER = hermes("weather", '{"city": "Paris"}')
BARE = '{"name": "weather", "parameters": {"city": "Paris"}}'


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> Iterator[Engine]:
    with running(model_dir) as made:
        yield made


@pytest.fixture(scope="module")
def grammars(engine: Engine) -> Grammars:
    folder = engine.folder
    return Grammars(folder.tokenizer_json, folder.config.vocab_size, folder.eos)


def accepts(engine: Engine, grammars: Grammars, source: Grammar, text: str) -> bool:
    """Whether the text is a whole answer under the grammar."""
    matcher = grammars.compile(source)
    for token in engine.tokenizer.encode(text):
        mask = matcher.mask()
        if mask is None or not mask[token]:
            return False
        matcher.accept(token)
    mask = matcher.mask()
    return mask is not None and any(mask[token] for token in engine.folder.eos)


# ---------------------------------------------------------------- grammar


@pytest.mark.parametrize(
    ("form", "members", "text", "fits"),
    [
        ("hermes", {}, "plain words", True),
        ("hermes", {}, WEATHER, True),
        ("hermes", {}, f"I look.\n{WEATHER}\n{hermes('time', '{}')}", True),
        ("hermes", {}, hermes("weather", '{"town": "Paris"}'), False),
        ("hermes", {}, hermes("rain", "{}"), False),
        ("hermes", {}, "<tool_call>words", False),
        ("hermes", {}, f"{WEATHER} and words", False),
        ("hermes", {"parallel_tool_calls": False}, f"{WEATHER}\n{WEATHER}", False),
        ("block", {"tool_choice": "required"}, WEATHER, True),
        ("block", {"tool_choice": "required"}, "plain words", False),
        (
            "hermes",
            {"tool_choice": {"type": "function", "function": {"name": "time"}}},
            WEATHER,
            False,
        ),
        (
            "hermes",
            {"tool_choice": {"type": "function", "function": {"name": "time"}}},
            hermes("time", '{"any": [1, 2]}'),
            True,
        ),
        ("llama", {}, BARE, True),
        ("llama", {}, "plain words", True),
        ("llama", {}, '{"name": "rain"}', False),
        ("llama", {"tool_choice": "required"}, "plain words", False),
    ],
)
def test_the_grammar_takes_calls_of_the_plan_and_nothing_else(
    engine: Engine, grammars: Grammars, form: Form, members: dict[str, Any], text: str, fits: bool
) -> None:
    assert accepts(engine, grammars, grammar(form, **members), text) is fits


def test_text_beside_calls_can_have_a_schema_of_its_own(engine: Engine, grammars: Grammars) -> None:
    source = grammar("hermes", Grammar("json_schema", json.dumps(CITY)))
    assert accepts(engine, grammars, source, '{"city": "Paris"}')
    assert accepts(engine, grammars, source, WEATHER)
    assert not accepts(engine, grammars, source, "plain words")
    with pytest.raises(ApiError):
        grammar("llama", Grammar("json_object"))
    with pytest.raises(ApiError):
        grammar("hermes", Grammar("regex", "a+"))


def test_without_calls_the_text_s_grammar_is_the_answer_s() -> None:
    text = Grammar("regex", "a+")
    assert answer_grammar("hermes", plan(tool_choice="none"), text) is text
    assert answer_grammar("hermes", ToolPlan(), None) is None


# ---------------------------------------------------------------- reading


def read(form: Form, pieces: list[str]) -> list[Part]:
    reader = ToolReader(form)
    return [part for piece in pieces for part in reader.push(piece)] + reader.flush()


def joined(parts: list[Part]) -> tuple[str, list[tuple[str, str]]]:
    """The text, and (name, arguments) of each call."""
    calls: list[tuple[str, str]] = []
    for part in parts:
        if part.name is not None:
            calls.append((part.name, ""))
        if part.call is not None:
            name, arguments = calls[part.call]
            calls[part.call] = (name, arguments + part.text)
    return "".join(part.text for part in parts if part.call is None), calls


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text().filter(lambda text: "<" not in text),
    st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3),
    st.data(),
)
def test_calls_are_read_alike_however_the_text_is_cut(
    text: str, arguments: list[dict[str, Any]], data: st.DataObject
) -> None:
    spelled = [json.dumps(value, ensure_ascii=False) for value in arguments]
    whole = text + "\n".join(hermes("f", item) for item in spelled)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    said, calls = joined(read("hermes", pieces))
    assert calls == [("f", item) for item in spelled]
    assert said == (text if text.strip() else "")


@pytest.mark.parametrize("size", range(1, len(BARE)))
def test_llama_s_form_is_read_alike_however_it_is_cut(size: int) -> None:
    pieces = [BARE[at : at + size] for at in range(0, len(BARE), size)]
    assert joined(read("llama", pieces)) == ("", [("weather", '{"city": "Paris"}')])
    assert joined(read("llama", ["pl", "ain {x}"])) == ("plain {x}", [])


def test_a_call_that_was_cut_off_is_kept_as_far_as_it_came() -> None:
    assert joined(read("hermes", ["hi <tool_call>\n", '{"name": "f"'])) == (
        'hi <tool_call>\n{"name": "f"',
        [],
    )
    assert joined(read("hermes", [WEATHER[:-25]]))[1] == [("weather", WEATHER[45:-25])]
    assert joined(read("hermes", ["a <tool_"])) == ("a <tool_", [])


# ---------------------------------------------------------------- prompt


def test_the_form_follows_from_the_template() -> None:
    assert form_of(HERMES) == "hermes"
    assert form_of(LLAMA) == "llama"
    assert form_of("{{ messages }}") == "block"
    assert form_of("{% if tools %}[AVAILABLE_TOOLS]{% endif %}") == "block"


CONVERSATION = (
    Turn("user", "hi"),
    Turn("assistant", "", (ToolCall("c1", "weather", '{"city": "Paris"}'),)),
    Turn("tool", "sunny", (), "c1"),
)


def test_a_template_with_tools_gets_them_and_arguments_as_objects() -> None:
    messages, tools = prompt_values("hermes", CONVERSATION, plan())
    assert [tool["function"]["name"] for tool in tools or ()] == ["weather", "time"]
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert messages[2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}


def test_a_template_without_tools_gets_a_system_text_and_written_calls() -> None:
    messages, tools = prompt_values("block", CONVERSATION, plan())
    assert tools is None
    assert messages[0]["role"] == "system"
    assert '"name": "weather"' in messages[0]["content"]
    assert messages[2]["content"] == hermes("weather", '{"city": "Paris"}')
    assert messages[3] == {
        "role": "user",
        "content": "<tool_response>\nsunny\n</tool_response>",
    }
    own = (Turn("system", "be brief"), *CONVERSATION)
    merged = prompt_values("block", own, plan())[0]
    assert merged[0]["content"].startswith("be brief\n\n# Tools")
    assert len(merged) == len(messages)


def test_tools_that_may_not_be_called_are_not_told_of() -> None:
    messages, tools = prompt_values("block", CONVERSATION[:1], plan(tool_choice="none"))
    assert (messages, tools) == ([{"role": "user", "content": "hi"}], None)
    assert prompt_values("hermes", CONVERSATION[:1], plan(tool_choice="none"))[1] is None


def test_arguments_in_a_conversation_must_be_an_object() -> None:
    for arguments in ("[1]", "{", '{"a":1,"a":2}'):
        turns = (Turn("assistant", "", (ToolCall("c", "f", arguments),)),)
        with pytest.raises(ApiError):
            prompt_values("hermes", turns, plan())


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": TOOLS * 65}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "rain"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"logprobs": True}, "logprobs"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
    ],
)
def test_tools_that_cannot_be_offered_are_refused_by_name(
    members: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        plan(**members)
    assert (caught.value.status, caught.value.param) == (400, param)
