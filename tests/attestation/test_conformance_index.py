"""One bad value in an index is the fault of the sample or root that has it, and of no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.conformance.document import DEPTH_MAX, read_document
from attestation.conformance.index import Index, parse_index
from wire.canonical import DIGITS_MAX
from wire.errors import MalformedError

GOOD = {"id": "good", "kind": "k", "files": {}, "expected": {"authentic": True, "strict": None}}
LONG = "1" * (DIGITS_MAX + 1)


def parsed(text: str, **members: str) -> Index:
    """An index of `text` and a good sample, the members given as JSON."""
    good = json.dumps(GOOD)
    more = "".join(f',"{name}":{value}' for name, value in members.items())
    raw = f'{{"schema":"attestation-vectors/1","vectors":[{text},{good}]{more}}}'
    return parse_index(raw.encode("utf-8", "surrogatepass"))


def sample(**members: Any) -> str:
    """A sample as JSON; a member given as bytes stands there as it is."""
    text = json.dumps(GOOD | {"id": "bad"} | {
        name: f"@{name}@" if isinstance(value, bytes) else value for name, value in members.items()
    })  # fmt: skip
    for name, value in members.items():
        if isinstance(value, bytes):
            text = text.replace(f'"@{name}@"', value.decode())
    return text


EXPECTED = '{"authentic":true,"strict":null'
BAD = {
    "no object": ("1", "index.vectors[0]"),
    "null": ("null", "index.vectors[0]"),
    "no id": ("{}", "index.vectors[0]"),
    "an id of half a character": (sample(id=b'"\\ud800"'), "index.vectors[0]"),
    "a date alone": (sample(verify_at="2025-06-25"), "sample bad.verify_at"),
    "a time as a number": (sample(verify_at=1_750_809_600), "sample bad.verify_at"),
    "a time of many digits": (sample(verify_at=LONG.encode()), "sample bad.verify_at"),
    "an input of many digits": (sample(inputs=f'{{"a":{LONG}}}'.encode()), "sample bad.inputs"),
    "an endless input": (sample(inputs=b'{"a":1e999}'), "sample bad.inputs"),
    "an input twice": (sample(inputs=b'{"a":"00","a":"01"}'), "sample bad.inputs"),
    "half a character": (sample(inputs=b'{"a":"\\ud800"}'), "sample bad.inputs"),
    "half a name": (sample(inputs=b'{"\\ud800":"a"}'), "sample bad.inputs"),
    "deep": (sample(inputs=b'{"a":' + b"[" * 30 + b"]" * 30 + b"}"), "sample bad.inputs"),
    "a claim of many digits": (
        sample(expected=f'{EXPECTED},"claims":{{"a":[{LONG}]}}}}'.encode()),
        "sample bad.expected.claims",
    ),
    "a verdict twice": (
        sample(expected=f'{EXPECTED},"strict":"accept"}}'.encode()),
        "sample bad.expected",
    ),
    "a file twice": (sample(files=b'{"a":"b","a":"c"}'), "sample bad.files"),
    "a member twice": (sample()[:-1] + ',"kind":"other"}', "index.vectors[0]"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_sample_leaves_the_others(what: str) -> None:
    text, where = BAD[what]
    bad, good = parsed(text).samples
    assert bad.fault.startswith(where)
    assert (good.id, good.fault) == ("good", "")
    bad.fault.encode()
    bad.id.encode()


@pytest.mark.parametrize(
    "value",
    ["null", "1.5", LONG, "1e999", '"\\ud800"', '{"a":1,"a":2}', "[" * 200 + "]" * 200, "-0"],
)
def test_what_nothing_reads_may_be_anything(value: str) -> None:
    (first, second) = parsed(
        sample(notes=value.encode(), expected=f'{EXPECTED},"note":{value}}}'.encode()),
        notes=value,
        roots=f'{{"mine":{{"sha256_der":"{"11" * 32}","note":{value}}}}}',
    ).samples
    assert (first.fault, second.fault) == ("", "")


@pytest.mark.parametrize(
    "entry", ["{}", "null", "1", '{"file":"a"}', f'{{"sha256_der":{LONG}}}',
              '{"sha256_der":"11","sha256_der":"22"}']
)  # fmt: skip
def test_a_bad_root_is_no_anchor_and_is_told(entry: str) -> None:
    good = f'{{"sha256_der":"{"11" * 32}"}}'
    index = parsed(sample(), roots=f'{{"bad":{entry},"good":{good}}}')
    assert index.roots == {bytes.fromhex("11" * 32)}
    (note,) = index.notes
    assert note.startswith("index.roots.'bad'")


@pytest.mark.parametrize("member", ["roots", "strict_policy"])
def test_a_member_of_the_index_that_may_be_absent_may_be_null(member: str) -> None:
    index = parsed(sample(), **{member: "null"})
    assert (index.roots, dict(index.strict_policy), index.notes) == (frozenset(), {}, ())


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":Infinity}', b"{", b"[" * 1_000_000,
     b'{"schema":"attestation-vectors/1","roots":{},"roots":{}}',
     b'{"schema":"attestation-vectors/1","vectors":[1],"roots":{"a":1,"a":2}}'],
)  # fmt: skip
def test_what_is_no_json_is_no_index(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_index(raw)


def test_a_document_has_a_largest_size() -> None:
    assert read_document(b"[1]", 3) == [1]
    with pytest.raises(MalformedError):
        read_document(b"[1] ", 3)


def test_what_is_read_is_nested_so_deep_and_no_deeper() -> None:
    for more in (0, 1):
        depth = DEPTH_MAX - 1 + more
        inputs = '{"a":' + "[" * depth + "]" * depth + "}"
        bad, _ = parsed(sample(inputs=inputs.encode())).samples
        assert bool(bad.fault) is bool(more)
