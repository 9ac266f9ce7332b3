"""Answers that match a JSON schema, a regular expression or a grammar: llguidance, fenced in.

A grammar comes from a caller, and compiling one is the most a caller can make this process do.
llguidance bounds its own work by fuel, but not everywhere: long chains of rules overflow the stack
and take the process with them, intersections of expressions compile for minutes. What is compiled
is therefore smaller and plainer than what llguidance could take.
"""

import json
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from enclave_worker.engine.errors import ModelError, SchemaInvalid
from enclave_worker.engine.params import Grammar

# Compile time grows with the square of an expression's length: this much takes a tenth of a second.
REGEX_MAX_CHARS = 4 * 1024
LARK_MAX_CHARS = 8 * 1024
CHOICES_MAX_CHARS = 16 * 1024
# Each reference to another definition takes some 9 kB of the 8-MiB stack.
REFERENCES_MAX = 256
# Expressions that one value must match at once: 8 compile in milliseconds, 16 in seconds, 40 never.
MEETINGS_MAX = 8
_APPLIED = frozenset(("$ref", "allOf", "anyOf", "oneOf"))
_TESTED = frozenset(("pattern", "format", "multipleOf"))
# Members of one object or list; time grows with the square of an object's properties.
MEMBERS_MAX = 500
# Nothing but white space may not go on for ever: small models do that when they are lost.
_OPTIONS = {"x-guidance": {"whitespace_pattern": r"[ \n\r\t]{1,64}"}}
# Fuel of one mask and of compiling: a few milliseconds, and a few hundred.
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 10_000,
    "verbose_errors": False,
}


class Matcher:
    """Where one answer stands in its grammar. Errors stay here: `mask` is None from then on."""

    def __init__(self, inner: LLMatcher, vocab_size: int) -> None:
        """Wrap a matcher at the start of its grammar."""
        self._inner = inner
        self._vocab_size = vocab_size

    @property
    def finished(self) -> bool:
        """Whether nothing but the end of the answer may follow."""
        return bool(self._inner.is_stopped())

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Tokens that may follow, bool [vocab]; None where a limit was hit.

        When the grammar is finished that is end-of-sequence only.
        """
        if self._inner.is_error():
            return None
        try:
            bits = np.frombuffer(self._inner.compute_bitmask(), np.uint8)
        except ValueError:  # a limit hit while computing this very mask
            return None
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        return None if self._inner.is_error() else mask

    def accept(self, token: int) -> None:
        """Move on by a token of the answer; past the end there is nowhere to move."""
        if not self._inner.is_stopped():
            self._inner.consume_token(token)

    def allowed(self, draft: list[int]) -> int:
        """How many tokens of a draft may follow one after the other; nothing moves."""
        return 0 if self._inner.is_stopped() else int(self._inner.validate_tokens(draft))

    def forced(self) -> list[int]:
        """Tokens that must follow, none where there is a choice; nothing moves."""
        return [] if self._inner.is_stopped() else list(self._inner.compute_ff_tokens())


class Grammars:
    """Compiles grammars for one tokenizer. Thread-safe; opens no file."""

    def __init__(self, tokenizer_json: str, vocab_size: int, eos: frozenset[int]) -> None:
        """Read tokenizer.json; raises ModelError where llguidance cannot.

        Args:
            tokenizer_json: text of the file.
            vocab_size: logits a row.
            eos: end-of-sequence tokens.
        """
        self._vocab_size = vocab_size
        try:
            json.loads(tokenizer_json)  # llguidance takes what is not JSON for the name of a file
            self._tokenizer = LLTokenizer(tokenizer_json, vocab_size, sorted(eos))
        except Exception as error:
            raise ModelError(f"model file tokenizer.json: {type(error).__name__}") from None

    def compile(self, grammar: Grammar) -> Matcher:
        """Return a matcher at the start of a grammar; raises SchemaInvalid.

        May take a good part of a second, without the interpreter lock: call it on no loop.
        """
        try:
            source = _SOURCES[grammar.kind](grammar.source)
        except (ValueError, TypeError, RecursionError):
            raise SchemaInvalid(f"grammar: expected JSON that fits {grammar.kind}") from None
        limits = LLParserLimits(**_LIMITS)
        inner = LLMatcher(self._tokenizer, source, log_level=0, limits=limits)
        if inner.is_error():
            raise SchemaInvalid(f"grammar: found a {grammar.kind} that does not compile")
        return Matcher(inner, self._vocab_size)


def _json_schema(source: str) -> str:
    """A schema as llguidance takes it."""
    return str(LLMatcher.grammar_from_json_schema(_schemas([json.loads(source)])[0]))


def _schemas(schemas: list[Any]) -> list[str]:
    """Schemas in their own writing, checked for what takes too long or too deep."""
    references = meetings = patterns = 0
    queue = list(schemas)
    while queue:
        node = queue.pop()
        if not isinstance(node, (dict, list)):
            continue
        _bounded("members of an object or list", len(node), MEMBERS_MAX)
        queue.extend(node.values() if isinstance(node, dict) else node)
        if isinstance(node, dict):
            references += "$ref" in node
            meetings += bool(node.keys() & _APPLIED and node.keys() & _TESTED)
            meetings += max(0, len(node.get("allOf") or ()) - 1)
            patterns += len(str(node.get("pattern", "")))
            patterns += sum(map(len, node.get("patternProperties") or ()))
    _bounded("references", references, REFERENCES_MAX)
    _bounded("schemas that meet in allOf", meetings, MEETINGS_MAX)
    _bounded("characters of patterns", patterns, REGEX_MAX_CHARS)
    return [json.dumps(s | _OPTIONS if isinstance(s, dict) else s) for s in schemas]


def _regex(source: str) -> str:
    """A regular expression in the syntax of Rust's regex crate."""
    _bounded("characters of a regex", len(source), REGEX_MAX_CHARS)
    return str(LLMatcher.grammar_from_regex(source))


def _lark(source: str) -> str:
    """A grammar without the operators whose cost has no bound; of the directives only %json."""
    rules, schemas = [], []
    while source:
        rule, directive, source = source.partition("%")
        rules.append(rule)
        if directive:
            if not source.startswith("json"):
                raise SchemaInvalid("grammar: found % in lark, expected %json, or \\x25")
            schema, end = json.JSONDecoder().raw_decode(source := source[4:].lstrip())
            schemas.append(schema)
            source = source[end:]
    if any(sign in rule for rule in rules for sign in "&~"):
        raise SchemaInvalid("grammar: found & or ~ in lark, expected neither, or \\x26 or \\x7e")
    _bounded("characters of lark", sum(map(len, rules)), LARK_MAX_CHARS)
    written = [f"%json {schema}" for schema in _schemas(schemas)]
    pairs = zip_longest(rules, written, fillvalue="")
    return str(LLMatcher.grammar_from_lark("".join(part for pair in pairs for part in pair)))


def _calls(source: str) -> str:
    """A Lark text of the worker's own that names a caller's schemas `@schema_0`, `@schema_1`, …"""
    parts = json.loads(source)
    found = [{"name": "calls", "lark_grammar": parts["lark"]}]
    for number, schema in enumerate(parts["schemas"]):
        (inner,) = json.loads(_json_schema(json.dumps(schema)))["grammars"]
        found.append({"name": f"schema_{number}", **inner})
    return json.dumps({"grammars": found})


def _choice(source: str) -> str:
    """One of some strings, each as it is."""
    options = json.loads(source)
    if type(options) is not list or not options or not all(type(o) is str and o for o in options):
        raise ValueError("choice: expected a list of strings")
    _bounded("choices", len(options), MEMBERS_MAX)
    _bounded("characters of choices", sum(map(len, options)), CHOICES_MAX_CHARS)
    literal = ("".join(f"\\x{{{ord(char):x}}}" for char in option) for option in options)
    return str(LLMatcher.grammar_from_regex("|".join(literal)))


def _bounded(what: str, found: int, most: int) -> None:
    """Refuse what would take too long."""
    if found > most:
        raise SchemaInvalid(f"grammar: found {found} {what}, expected at most {most}")


_SOURCES = {
    "json_schema": _json_schema,
    "json_object": lambda _: _json_schema('{"type": "object"}'),
    "regex": _regex,
    "lark": _lark,
    "calls": _calls,
    "choice": _choice,
}
