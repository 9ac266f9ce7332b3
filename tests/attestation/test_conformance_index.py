"""One bad value in an index is the fault of the sample or root that has it, and of no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.conformance.document import DEPTH_MAX, LongNumber, read_document
from attestation.conformance.index import Index, parse_index
from wire.canonical import DIGITS_MAX
from wire.errors import MalformedError
from wire.limits import TIME_MAX

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


def test_a_bad_sample_keeps_its_name_and_has_one_where_it_gave_none() -> None:
    assert parsed(sample(verify_at="now")).samples[0].id == "bad"
    assert parsed("{}").samples[0].id == "index.vectors[0]"


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [("1970-01-01T00:00:00Z", 0), ("9999-12-31T00:00:00Z", TIME_MAX)],
    ids=["first", "last"],
)
def test_the_first_and_the_last_second_of_time_are_times(moment: str, seconds: int) -> None:
    bad, _ = parsed(sample(verify_at=moment)).samples
    assert (bad.at, bad.fault) == (seconds, "")


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
              f'{{"sha256_der":"{"22" * 32}","sha256_der":"{"33" * 32}"}}']
)  # fmt: skip
def test_a_bad_root_is_no_anchor_and_is_told(entry: str) -> None:
    good = f'{{"sha256_der":"{"11" * 32}"}}'
    index = parsed(sample(), roots=f'{{"bad":{entry},"good":{good}}}')
    assert index.roots == {bytes.fromhex("11" * 32)}
    (note,) = index.notes
    assert note.startswith("index.roots.'bad'")


@pytest.mark.parametrize(
    "policy",
    ['{"amd":["a"],"amd":["b"]}', '{"amd":["\\ud800"]}', '{"amd":[[]]}', f'{{"amd":[{LONG}]}}'],
)
def test_a_policy_that_two_readers_would_read_differently_is_refused(policy: str) -> None:
    with pytest.raises(MalformedError, match=r"^index\.strict_policy"):
        parsed(sample(), strict_policy=policy)


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


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"\xff", "not valid UTF-8"),
        (b'{"a":NaN}', "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b'{"a":1', "not well formed near byte 6"),
        (b"[" * 100_000, "nested too deep"),
    ],
    ids=["bytes", "a number", "another", "an end", "a depth"],
)
def test_what_is_no_json_is_no_document(raw: bytes, sentence: str) -> None:
    with pytest.raises(MalformedError, match=sentence):
        read_document(raw, len(raw))


def test_a_number_has_its_greatest_length_and_no_more() -> None:
    assert read_document(b"1" * DIGITS_MAX, DIGITS_MAX) == int("1" * DIGITS_MAX)
    assert isinstance(read_document(LONG.encode(), len(LONG)), LongNumber)


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


def test_a_number_longer_than_any_float_is_not_read() -> None:
    assert read_document(b"-2.2250738585072014e-308", 64) == -2.2250738585072014e-308
    assert isinstance(read_document(b"-2.22507385850720140e-308", 64), LongNumber)
