"""What the text of an answer must look like: `response_format` and its like → a grammar.

The grammar is compiled by the engine, with bounded time and size; here only its place in the body
is read. Sources are JSON schemas, regular expressions and Lark grammars as llguidance reads them.
"""

import json
from typing import Any

from enclave_worker.engine.params import MAX_GRAMMAR_CHARS, Grammar
from wire.canonical import parse_strict
from wire.errors import MalformedError
from wire.excerpt import json_kind
from wire.limits import BODY_DEPTH_MAX

from .errors import invalid, unsupported
from .fields import Fields, counted

NAME_MAX = 64
DESCRIPTION_MAX = 16 * 1024
CHOICES_MAX = 256
ANY_OBJECT: dict[str, Any] = {"type": "object"}


def schema_grammar(schema: Any, name: str) -> Grammar:
    """A grammar of the JSON texts a schema describes."""
    if not isinstance(schema, dict):
        raise invalid(name, f"found {json_kind(schema)}, expected a JSON schema object")
    return Grammar("json_schema", _bounded(json.dumps(schema, ensure_ascii=False), name))


def read_response_format(fields: Fields) -> Grammar | None:
    """OpenAI chat's `response_format`; strict or not, the schema always holds."""
    options = fields.child("response_format")
    if options is None:
        return None
    kind = options.one_of("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        inner = options.child("json_schema")
        if inner is None:
            raise invalid(options.name("json_schema"), "found none, expected an object")
        grammar: Grammar | None = named_schema(inner)
        inner.done()
    else:
        grammar = Grammar("json_object") if kind == "json_object" else None
    _typed(options, kind)
    options.done()
    return grammar


def named_schema(fields: Fields) -> Grammar:
    """The members that say which schema: name, description, schema, strict."""
    if not fields.text("name", NAME_MAX):
        raise invalid(fields.name("name"), "found none, expected a name")
    fields.text("description", DESCRIPTION_MAX)
    fields.flag("strict")
    return schema_grammar(fields.raw("schema"), fields.name("schema"))


def read_text_format(fields: Fields) -> Grammar | None:
    """The Responses API's `text`."""
    text = fields.child("text")
    if text is None:
        return None
    text.only("verbosity", "medium")
    options = text.child("format")
    text.done()
    if options is None:
        return None
    kind = options.one_of("type", ("text", "json_object", "json_schema"))
    grammar = named_schema(options) if kind == "json_schema" else None
    if kind == "json_object":
        grammar = Grammar("json_object")
    _typed(options, kind)
    options.done()
    return grammar


def read_structured_outputs(fields: Fields) -> Grammar | None:
    """The extension `structured_outputs`: exactly one of json, json_object, regex, choice, grammar.

    `json` is a schema (an object, or its text), `regex` a regular expression the whole answer
    matches, `choice` a list of texts, `grammar` a Lark grammar whose start rule is `start`.
    """
    options = fields.child("structured_outputs")
    if options is None:
        return None
    given = [name for name in _EXTENSIONS if options.raw(name) is not None]
    options.done()
    if len(given) != 1:
        raise invalid(
            "structured_outputs",
            f"found {len(given)} grammars, expected exactly one of {', '.join(_EXTENSIONS)}",
        )
    name = f"structured_outputs.{given[0]}"
    return _EXTENSIONS[given[0]](options.raw(given[0]), name)


def one_format(*grammars: Grammar | None) -> Grammar | None:
    """The one grammar there is; refuses two."""
    found = [grammar for grammar in grammars if grammar is not None]
    if len(found) > 1:
        raise invalid("response_format", "found beside structured_outputs, expected one of them")
    return found[0] if found else None


def _typed(options: Fields, kind: str | None) -> None:
    if kind is None:
        raise invalid(options.name("type"), "found none, expected text, json_object or json_schema")


def _json(value: Any, name: str) -> Grammar:
    if isinstance(value, str):
        try:
            value = parse_strict(
                value.encode(), max_depth=BODY_DEPTH_MAX, max_bytes=4 * MAX_GRAMMAR_CHARS
            )
        except MalformedError as error:
            raise invalid(name, f"found no JSON: {error}") from None
    return schema_grammar(value, name)


def _any_object(value: Any, name: str) -> Grammar:
    if value is not True:
        raise invalid(name, f"found {json_kind(value)}, expected true or absent")
    return Grammar("json_object")


def _regex(value: Any, name: str) -> Grammar:
    return Grammar("regex", _text(value, name))


def _lark(value: Any, name: str) -> Grammar:
    return Grammar("lark", _text(value, name))


def _choice(value: Any, name: str) -> Grammar:
    if not isinstance(value, list) or not 1 <= len(value) <= CHOICES_MAX:
        raise invalid(
            name, f"found {counted(value)}, expected an array of 1 to {CHOICES_MAX} texts"
        )
    texts = [_text(item, name) for item in value]
    return Grammar("choice", _bounded(json.dumps(texts, ensure_ascii=False), name))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise unsupported(name, f"found {json_kind(value)}, expected a text that is not empty")
    return _bounded(value, name)


def _bounded(source: str, name: str) -> str:
    if len(source) > MAX_GRAMMAR_CHARS:
        raise invalid(name, f"found {len(source)} characters, expected ≤ {MAX_GRAMMAR_CHARS}")
    return source


_EXTENSIONS = {
    "json": _json,
    "json_object": _any_object,
    "regex": _regex,
    "choice": _choice,
    "grammar": _lark,
}
