"""The official vectors, and that the runner which checks them cannot be fooled."""

from __future__ import annotations

import copy

import pytest

from wire.conformance import run_vectors
from wire.errors import MalformedError
from wire.framing import FrameSealer
from wire.records import DATA, Record, encode

FILE = "protocol/anchorhold-wire-v1.json"


def failures(doc):
    return [(case.id, case.detail) for case in run_vectors(doc) if not case.ok]


def test_every_official_vector_and_refusal_holds(vectors):
    doc = vectors(FILE)
    results = run_vectors(doc)
    assert [case for case in results if not case.ok] == []
    assert len(results) == len(doc["vectors"]) + len(doc["reject"])
    assert results[0].id == doc["vectors"][0]["id"]


@pytest.mark.parametrize(
    "name",
    [
        "th", "r_kid", "wrap_info", "wrap_plaintext", "prk", "commit", "k_req", "iv_req",
        "prk_r", "k_resp", "iv_resp", "salt_q", "salt_r",
    ],
)  # fmt: skip
def test_a_changed_expectation_fails_its_case(vectors, name):
    doc = vectors(FILE)
    expect = doc["vectors"][0]["expect"]
    expect[name] = ("f" if expect[name][0] != "f" else "0") + expect[name][1:]
    assert failures(doc) == [("w1-0", f"{name} differs")]


@pytest.mark.parametrize("stream", ["req", "resp"])
@pytest.mark.parametrize("field", ["plaintext", "bytes", "flags"])
def test_a_changed_frame_fails_its_case(vectors, stream, field):
    doc = vectors(FILE)
    frame = doc["vectors"][0]["expect"][f"{stream}_frames"][0]
    frame[field] = 0 if field == "flags" else frame[field][:-2] + "55"
    assert [name for name, _ in failures(doc)] == ["w1-0"]


def test_a_missing_expectation_is_not_a_pass(vectors):
    doc = vectors(FILE)
    del doc["vectors"][0]["expect"]["salt_r"]
    assert failures(doc) == [("w1-0", "salt_r is missing")]


def test_an_unknown_expectation_is_not_a_pass(vectors):
    doc = vectors(FILE)
    doc["vectors"][0]["expect"]["other"] = "00"
    assert failures(doc) == [("w1-0", "other is unknown")]


@pytest.mark.parametrize("expect", [[], None, "th", 7])
def test_an_expectation_that_is_no_object_fails_its_case_alone(vectors, expect):
    doc = vectors(FILE)
    doc["reject"] = []
    doc["vectors"][0]["expect"] = expect
    said = f"expect: an object expected, found {type(expect).__name__}"
    assert failures(doc) == [("w1-0", said)]
    assert len(run_vectors(doc)) == len(doc["vectors"])


@pytest.mark.parametrize("part", ["vectors", "reject"])
def test_an_id_used_twice_fails_its_second_case_alone(vectors, part):
    doc = vectors(FILE)
    doc[part].append(copy.deepcopy(doc[part][0]))
    assert failures(doc) == [(doc[part][0]["id"], "the id is used twice")]


def test_unknown_expectations_are_named_whatever_their_value(vectors):
    doc = vectors(FILE)
    doc["vectors"][0]["expect"] |= {"later": None, "other": {}}
    assert failures(doc) == [("w1-0", "later is unknown; other is unknown")]


@pytest.mark.parametrize("stream", ["req", "resp"])
def test_an_honest_stream_listed_as_reject_fails_its_case(vectors, stream):
    doc = vectors(FILE)
    frames = doc["vectors"][1]["expect"][f"{stream}_frames"]
    honest = "".join(frame["bytes"] for frame in frames)
    doc["reject"] = [{"id": "x", "of": "w1-1", "stream": stream, "bytes": honest, "why": ""}]
    assert failures(doc) == [("x", "was accepted, must be refused")]


@pytest.mark.parametrize("cut", ["truncated", "trailing", "no-final", "swapped"])
def test_refusals_of_response_streams_are_run_too(vectors, cut):
    doc = vectors(FILE)
    frames = [bytes.fromhex(frame["bytes"]) for frame in doc["vectors"][1]["expect"]["resp_frames"]]
    stream = {
        "truncated": b"".join(frames)[:-1],
        "trailing": b"".join(frames) + b"\0",
        "no-final": frames[0],
        "swapped": frames[1] + frames[0],
    }[cut]
    doc["reject"] = [{"id": "x", "of": "w1-1", "stream": "resp", "bytes": stream.hex()}]
    assert failures(doc) == []


def test_a_refusal_may_lie_in_the_records_of_authentic_frames(vectors):
    doc = vectors(FILE)
    expect = doc["vectors"][0]["expect"]
    sealer = FrameSealer(bytes.fromhex(expect["k_req"]), bytes.fromhex(expect["iv_req"]))
    dirty = sealer.seal(encode([Record(DATA, b"x")], 16)[:-1] + b"\x01", final=True)
    doc["reject"] = [{"id": "x", "of": "w1-0", "stream": "req", "bytes": dirty.hex()}]
    assert failures(doc) == []


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"of": "none"}, "of names no vector: 'none'"),
        ({"stream": "side"}, "unknown stream 'side'"),
        ({"bytes": "zz"}, "cannot be run"),
        ({"bytes": None}, "cannot be run"),
    ],
)
def test_a_refusal_that_cannot_be_run_is_not_a_pass(vectors, change, detail):
    doc = vectors(FILE)
    doc["reject"] = [doc["reject"][0] | change]
    [(_, found)] = failures(doc)
    assert found.startswith(detail)


def test_a_vector_that_cannot_be_read_fails_its_case_and_its_refusals(vectors):
    doc = copy.deepcopy(vectors(FILE))
    del doc["vectors"][0]["s"]
    found = [name for name, _ in failures(doc)]
    assert found[0] == "w1-0"
    assert set(found[1:]) == {r["id"] for r in doc["reject"] if r["of"] == "w1-0"}


def test_an_entry_without_id_fails():
    doc = {"schema": "anchorhold-wire-vectors/1", "vectors": [{}, 5], "reject": []}
    assert [case.ok for case in run_vectors(doc)] == [False, False]


@pytest.mark.parametrize(
    "doc",
    [
        [],
        {},
        {"schema": "anchorhold-wire-vectors/2", "vectors": []},
        {"schema": "anchorhold-wire-vectors/1"},
        {"schema": "anchorhold-wire-vectors/1", "vectors": {}, "reject": []},
    ],
)
def test_another_schema_is_refused(doc):
    with pytest.raises(MalformedError):
        run_vectors(doc)
