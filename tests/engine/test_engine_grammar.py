"""Answers match their grammar; hostile grammars are refused; an error stays in its request."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.generation import generate, running

from enclave_worker.engine.errors import ModelError, SchemaInvalid
from enclave_worker.engine.params import Grammar, SamplingParams
from enclave_worker.engine.sampling import grammar as bounds
from enclave_worker.engine.sampling.grammar import Grammars, Matcher
from enclave_worker.engine.tokenizer import Tokenizer

EOS = 2
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tiny: tuple[Path, object]) -> Tokenizer:
    return Tokenizer((tiny[0] / "tokenizer.json").read_text())


@pytest.fixture(scope="module")
def grammars(tiny: tuple[Path, object], tokenizer: Tokenizer) -> Grammars:
    source = (tiny[0] / "tokenizer.json").read_text()
    return Grammars(source, tokenizer.vocab_size + 5, frozenset([EOS]))  # five rows of padding


def allowed(matcher: Matcher) -> list[int]:
    mask = matcher.mask()
    assert mask is not None
    return np.flatnonzero(mask).tolist()


def walk(matcher: Matcher, seed: int, most: int = 400) -> list[int]:
    """Tokens at random among those allowed, the end as soon as it is possible half of the time."""
    rng, tokens = np.random.default_rng(seed), []
    while not matcher.finished and len(tokens) < most:
        options = allowed(matcher)
        if EOS in options and rng.random() < 0.5:
            break
        tokens.append(int(rng.choice([token for token in options if token != EOS] or [EOS])))
        matcher.accept(tokens[-1])
    return [token for token in tokens if token != EOS]


def takes(matcher: Matcher, tokens: list[int]) -> bool:
    """Whether the tokens and then the end are allowed, one after the other."""
    for token in tokens:
        if token not in allowed(matcher):
            return False
        matcher.accept(token)
    return EOS in allowed(matcher)


def is_person(value: object) -> bool:
    """PERSON, by hand."""
    return (
        isinstance(value, dict)
        and {"name", "age"} <= value.keys() <= {"name", "age", "tags"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 12
        and type(value["age"]) is int
        and 0 <= value["age"] <= 150
        and set(value.get("tags", [])) <= {"a", "b"}
        and len(value.get("tags", [])) <= 3
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_whatever_is_drawn_under_a_schema_is_an_instance(
    seed: int, grammars: Grammars, tokenizer: Tokenizer
) -> None:
    matcher = grammars.compile(Grammar("json_schema", json.dumps(PERSON)))
    assert is_person(json.loads(tokenizer.decode(walk(matcher, seed, 4000))))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_whatever_is_drawn_under_an_expression_matches_it(
    seed: int, grammars: Grammars, tokenizer: Tokenizer
) -> None:
    pattern = r"(ab|c[0-9]{2,3}){1,5}-[x-z]"
    matcher = grammars.compile(Grammar("regex", pattern))
    assert re.fullmatch(pattern, tokenizer.decode(walk(matcher, seed)).strip())


@settings(deadline=None, max_examples=60)
@given(
    options=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1),
    other=st.text(min_size=1, max_size=8),
)
def test_a_choice_takes_its_options_as_they_are_and_nothing_else(
    options: list[str], other: str, tokenizer: Tokenizer, grammars: Grammars
) -> None:
    source = json.dumps(options)
    for text in [*options[:3], other]:
        tokens = tokenizer.encode(text)
        if tokenizer.decode(tokens) == text:  # some tokenizers do not give every text back
            assert takes(grammars.compile(Grammar("choice", source)), tokens) == (text in options)


def test_any_object_is_a_json_object_and_nothing_else_is(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    for text, expected in (('{"a": [1, null]}', True), ("{}", True), ("[]", False), ("{", False)):
        matcher = grammars.compile(Grammar("json_object"))
        assert takes(matcher, tokenizer.encode(text)) is expected


def test_lark_may_hold_schemas(grammars: Grammars, tokenizer: Tokenizer) -> None:
    source = 'start: "<" body ">" | "no"\nbody: %json {"const": "50% & ~more"}\n'
    for text, expected in (('<"50% & ~more">', True), ("no", True), ('<"x">', False)):
        matcher = grammars.compile(Grammar("lark", source))
        assert takes(matcher, tokenizer.encode(text)) is expected


def test_a_finished_grammar_allows_the_end_only_and_for_ever(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    matcher = grammars.compile(Grammar("choice", '["ab"]'))
    for token in tokenizer.encode("ab"):
        matcher.accept(token)
    for _ in range(3):
        assert matcher.finished
        assert allowed(matcher) == [EOS]
        assert matcher.allowed([5, 6]) == 0
        assert matcher.forced() == []
        matcher.accept(EOS)


def test_white_space_between_members_has_an_end(grammars: Grammars, tokenizer: Tokenizer) -> None:
    matcher = grammars.compile(Grammar("json_object"))
    assert matcher.allowed(tokenizer.encode("{" + "\n" * 60)) == len(
        tokenizer.encode("{" + "\n" * 60)
    )
    long = tokenizer.encode("{" + "\n" * 80)
    assert matcher.allowed(long) < len(long)


def test_looking_ahead_moves_nothing(grammars: Grammars, tokenizer: Tokenizer) -> None:
    matcher = grammars.compile(Grammar("regex", "abc[xy]*"))
    good, bad = tokenizer.encode("abcxy"), tokenizer.encode("abcq")
    before = allowed(matcher)
    assert matcher.allowed(good) == len(good)
    assert matcher.allowed(bad) == len(bad) - 1
    matcher.forced()
    assert allowed(matcher) == before


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json_schema", "{"),
        ("json_schema", "[]"),
        ("json_schema", '{"type": "nonsense"}'),
        ("json_schema", '{}}]}, {"lark_grammar": "start: \\"a\\""'),
        ("json_schema", '{"$ref": "https://example.org/schema"}'),
        ("json_schema", '{"not": {}}'),
        ("json_schema", '{"a": ' * 8000 + "1" + "}" * 8000),
        ("json_schema", '{"patternProperties": 3}'),
        ("regex", "(?=a)b"),
        ("regex", "(" * 3000),
        ("lark", "start"),
        ("lark", 'start: "a" nowhere'),
        ("lark", "start: %json {"),
        ("lark", "start: %json"),
        ("lark", "%import common.NUMBER\nstart: NUMBER"),
        ("choice", "{}"),
        ("choice", "[]"),
        ("choice", '["a", 1]'),
        ("choice", '["a", ""]'),
    ],
)
def test_what_cannot_be_compiled_is_refused_without_being_quoted(
    kind: str, source: str, grammars: Grammars
) -> None:
    with pytest.raises(SchemaInvalid) as refused:
        grammars.compile(Grammar(kind, source))
    assert refused.value.code == "schema_invalid"
    assert len(str(refused.value)) < 120
    assert "nonsense" not in str(refused.value)
    assert "nowhere" not in str(refused.value)


# Each of them ended the process or compiled for more than a minute before there were limits.
HOSTILE = {
    "rules in a chain": (
        "lark",
        "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(4000)) + 'r4000: "a"',
    ),
    "references in a chain": (
        "json_schema",
        json.dumps(
            {"$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(1200)}}
        ),
    ),
    "an intersection": ("lark", "start: T\nT: " + "&".join(f"/.*{i}.*/" for i in range(500))),
    "patterns that meet": (
        "json_schema",
        json.dumps({"allOf": [{"pattern": f".*{i}.*"} for i in range(40)]}),
    ),
    "patterns that meet by reference": (
        "json_schema",
        json.dumps(
            {
                "$defs": {
                    f"d{i}": {"pattern": f".*{i}.*", "$ref": f"#/$defs/d{i + 1}"} for i in range(40)
                }
            }
        ),
    ),
    "a long expression": ("regex", "a?b*" * 16_000),
    "a long pattern": ("json_schema", json.dumps({"pattern": "a?b*" * 15_000})),
    "pattern properties": (
        "json_schema",
        json.dumps({"patternProperties": {f"{'a?b*' * 100}{i}": {} for i in range(100)}}),
    ),
    "a long choice": ("choice", json.dumps(["x" * 60_000])),
    "many properties": (
        "json_schema",
        json.dumps({"properties": {f"p{i}": {} for i in range(3000)}}),
    ),
    "schemas within lark": (
        "lark",
        "start: %json " + json.dumps({"allOf": [{"pattern": f".*{i}.*"} for i in range(40)]}),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_grammar_beyond_what_the_library_survives_is_refused(
    name: str, grammars: Grammars
) -> None:
    with pytest.raises(SchemaInvalid, match="found"):
        grammars.compile(Grammar(*HOSTILE[name]))


WORST = """
import json, sys
from enclave_worker.engine.errors import SchemaInvalid
from enclave_worker.engine.params import Grammar
from enclave_worker.engine.sampling.grammar import *
grammars = Grammars(open(sys.argv[1]).read(), 400, frozenset([2]))
chain = "start: a0\\n" + "".join(f"a{i}: a{i+1}|\\"b\\"\\n" for i in range(5000))
chain = chain[:chain.rindex("\\n", 0, LARK_MAX_CHARS - 20)]
last = chain.count("\\n")
refs = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i+1}"}} for i in range(REFERENCES_MAX - 1)}
refs[f"d{REFERENCES_MAX - 1}"] = {}
worst = [
    ("lark", chain + f'\\na{last}: "c"'),
    ("json_schema", json.dumps({"$defs": refs, "$ref": "#/$defs/d0"})),
    ("json_schema", json.dumps({"allOf": [{"pattern": f".*{i}.*"} for i in range(9)]})),
    ("json_schema", json.dumps({"properties": {f"p{i}": {} for i in range(MEMBERS_MAX)}})),
    ("regex", "a?b*" * (REGEX_MAX_CHARS // 4)),
    ("lark", "start: T0\\n" + "".join(f"T{i}: T{i+1} T{i+1}\\n" for i in range(40)) + 'T40: "a"'),
]
for kind, source in worst:
    try:
        grammars.compile(Grammar(kind, source)).mask()
    except SchemaInvalid as error:
        assert "does not compile" in str(error), error
print("alive")
"""


def test_the_worst_within_the_limits_does_not_end_the_process(tiny: tuple[Path, object]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WORST, str(tiny[0] / "tokenizer.json")],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.strip() == "alive", result.stderr


def test_the_name_of_a_file_is_no_tokenizer(tiny: tuple[Path, object]) -> None:
    with pytest.raises(ModelError):
        Grammars(str(tiny[0] / "tokenizer.json"), 400, frozenset([EOS]))


def test_answers_of_a_batch_each_match_their_own_grammar(tiny: tuple[Path, object]) -> None:
    kinds = [
        SamplingParams(temperature=0, max_tokens=300, grammar=Grammar("choice", '["yes", "no"]')),
        SamplingParams(seed=3, max_tokens=300, grammar=Grammar("regex", "[a-c]{2,4}d")),
        SamplingParams(seed=4, max_tokens=300, grammar=Grammar("json_schema", json.dumps(PERSON))),
        SamplingParams(temperature=0, max_tokens=12),
        SamplingParams(seed=5, top_p=0.8, max_tokens=2, grammar=Grammar("json_object")),
    ]
    with running(tiny[0]) as engine:
        answers = generate(engine, [[5, 6, 7]] * 5, kinds)
        alone = [generate(engine, [[5, 6, 7]], p)[0].tokens for p in kinds]
    assert [a.tokens for a in answers] == alone
    assert answers[0].text in ("yes", "no")
    assert re.fullmatch("[a-c]{2,4}d", answers[1].text.strip())
    assert is_person(json.loads(answers[2].text))
    assert [a.finish for a in answers[:3]] == ["stop"] * 3
    assert answers[4].finish == "length"  # cut inside the JSON, and it says so


def test_a_grammar_that_hits_a_limit_ends_its_own_request_only(tiny: tuple[Path, object]) -> None:
    """Ambiguous to a degree the parser gives up on after some tokens."""
    source = "start: s*\ns: " + " | ".join(f'("a" | "b"){{1,{n}}}' for n in range(100, 160))
    kinds = [
        SamplingParams(temperature=0, max_tokens=300, grammar=Grammar("lark", source)),
        SamplingParams(temperature=0, max_tokens=40, ignore_eos=True),
    ]
    with running(tiny[0]) as engine:
        first, second = generate(engine, [[5, 6, 7]] * 2, kinds)
        assert generate(engine, [[5, 6, 7]], kinds[1])[0].tokens == second.tokens
        stats = engine.stats()
    assert (first.finish, second.finish) == ("error", "length")
    assert stats.step_errors == 0


def test_limits_are_those_of_the_record() -> None:
    assert bounds.REGEX_MAX_CHARS <= 4096
    assert bounds.LARK_MAX_CHARS <= 8192
    assert bounds.REFERENCES_MAX <= 256
    assert bounds.MEETINGS_MAX <= 8
