"""The tables of docs/spec/api.md are what the parsers do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from enclave_worker.api.endpoints import ENDPOINTS, parse_request
from enclave_worker.api.errors import ApiError
from enclave_worker.api.fields import Fields

PAGE = (Path(__file__).parents[2] / "docs/spec/api.md").read_text()
TITLES = {
    "/v1/chat/completions": "1. Chat completions",
    "/v1/completions": "2. Completions",
    "/v1/responses": "3. Responses",
    "/v1/messages": "4. Messages",
    "/v1/embeddings": "5. Embeddings",
}
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \| (\w+)", re.MULTILINE)
TURNS = [{"role": "user", "content": "x"}]
LEAST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURNS},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": TURNS, "max_tokens": 5},
    "/v1/embeddings": {"input": "x"},
}
# What a field is only good with.
WITH: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True, "include": ["message.output_text.logprobs"]},
    "tool_choice": {"tools": []},
}
# Honoured, yet not by the engine: another model is another worker, the encoding is the reply's.
UNSEEN = ("model", "encoding_format")


def rows(path: str) -> list[tuple[str, Any, str]]:
    section = PAGE.split(f"## {TITLES[path]}\n")[1].split("\n## ")[0]
    return [(name, json.loads(value), verdict) for name, value, verdict in ROW.findall(section)]


ROWS = [(path, *row) for path in TITLES for row in rows(path)]


def body(path: str, name: str, value: Any) -> dict[str, Any]:
    known = {row[0] for row in rows(path)}
    besides = {key: item for key, item in WITH.get(name, {}).items() if key in known}
    return {"model": "m", **LEAST[path], **besides, name: value}


def parsed(path: str, name: str, value: Any) -> Any:
    return parse_request("POST", path, json.dumps(body(path, name, value)).encode())


@pytest.mark.parametrize("path", TITLES)
def test_every_field_a_parser_looks_at_is_in_its_table(path: str) -> None:
    members = {"model": "m", **LEAST[path]}
    fields = Fields(members)
    ENDPOINTS[path](fields, "m", members)
    listed = [row[0] for row in rows(path)]
    assert len(set(listed)) == len(listed)
    refused = {name for name, _, verdict in rows(path) if verdict == "refused"}
    assert fields._seen | {"model"} <= set(listed)
    assert set(listed) - refused <= fields._seen | {"model"}


@pytest.mark.parametrize(("path", "name", "value", "verdict"), ROWS)
def test_a_field_is_treated_as_its_row_says(path: str, name: str, value: Any, verdict: str) -> None:
    if verdict == "refused":
        with pytest.raises(ApiError) as caught:
            parsed(path, name, value)
        assert (caught.value.status, caught.value.param) == (400, name)
        return
    request = parsed(path, name, value)
    least = body(path, name, value)
    least.pop(name)
    if verdict == "ignored":
        assert request == parse_request("POST", path, json.dumps(least).encode())
    elif verdict == "only":
        with pytest.raises(ApiError) as caught:
            parsed(path, name, "another value")
        assert caught.value.param == name
    else:
        assert verdict == "honoured"


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        row[:3]
        for row in ROWS
        if row[3] == "honoured" and row[1] not in ("model", "encoding_format")
    ],
)
def test_an_honoured_field_changes_the_request(path: str, name: str, value: Any) -> None:
    # The tool choice and its like change something only where there is something to choose.
    tools = {row[0]: row[1] for row in rows(path)}.get("tools", [])
    with_tools = {"tools": tools} if name in ("tool_choice", "parallel_tool_calls") else {}
    given = body(path, name, value) | with_tools
    without = {key: item for key, item in given.items() if key != name}
    without |= {key: item for key, item in _other(path).items() if key == name}
    first = parse_request("POST", path, json.dumps(given).encode())
    assert first != parse_request("POST", path, json.dumps(without).encode())


def _other(path: str) -> dict[str, Any]:
    """Other values of what a request cannot be without."""
    turns = [{"role": "user", "content": "other"}]
    return {"messages": turns, "prompt": "other", "input": "other", "max_tokens": 6} | (
        {} if path == "/v1/messages" else {"max_tokens": None}
    )
