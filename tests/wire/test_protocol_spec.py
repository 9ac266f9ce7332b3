"""The specification's tables say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from wire import limits, problems
from wire.framing import FrameSealer
from wire.header import OPS, PADS, RETRIES, RequestHeader
from wire.limits import OUT_CLASSES
from wire.link import MessageType
from wire.notice import CODES
from wire.records import RecordType
from wire.schedule import RequestKeys, ResponseKeys, transcript_hash
from wire.shaping import BUCKET_TOKENS, FINAL_SIZE, FRAME_SIZE, GRID_S, TICK_S
from wire.suites import SUITES

SPEC = (Path(__file__).resolve().parents[2] / "docs/spec/sealed-protocol.md").read_text()


def section(title: str) -> str:
    """Text from the heading that begins with `title` to the next heading of its level."""
    level = "##" if title.endswith(".") else "###"
    ends = rf"(?=^#{{2,{len(level)}}} |\Z)"
    return re.search(rf"^{level} {re.escape(title)}.*?{ends}", SPEC, re.MULTILINE | re.DOTALL)[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_example_is_what_the_code_computes():
    th = transcript_hash(b'{"v":1,"op":"chat"}')
    req = RequestKeys.derive(th, bytes(range(32)))
    resp = ResponseKeys.derive(th, b"\xaa" * 32, b'{"v":1}', req.rs, bytes(range(32, 64)))
    sealer = FrameSealer(req.k, req.iv)
    frames = sealer.seal(bytes.fromhex("010000027b7d")), sealer.seal(b"", final=True)
    expected = [
        th, req.prk, req.commit, req.k, req.iv, req.rs, req.salt_q, *frames,
        resp.prk_r, resp.k, resp.iv, resp.salt_r,
    ]  # fmt: skip
    assert [row[1].strip("`") for row in rows(section("1."))] == [value.hex() for value in expected]


@pytest.mark.parametrize("row", rows(section("11.")), ids=lambda row: row[0])
def test_a_limit_is_that_of_the_code(row):
    assert getattr(limits, row[0]) == int(row[1])


def test_suites_are_those_of_the_code():
    assert [
        (row[0].strip("`"), int(row[4]), int(row[5]), row[6] == "yes")
        for row in rows(section("4.2"))
    ] == [(s.name, s.pk_len, s.wrap_len, s.post_quantum) for s in SUITES.values()]


def test_record_types_are_those_of_the_code():
    listed = [(int(row[0]), row[1]) for row in rows(section("6.2"))]
    assert listed == [(kind.value, kind.name) for kind in RecordType]


def test_link_messages_are_those_of_the_code():
    listed = [(int(row[0]), row[1]) for row in rows(section("9."))]
    assert listed == [(kind.value, kind.name) for kind in MessageType]


def test_header_members_and_values_are_those_of_the_code():
    text = section("7.1")
    members = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(text)))
    made = RequestHeader(rid=b"", aud="", op="", model="", policy="", iat=0, exp=0)
    assert set(members) == json.loads(made.encode()).keys()
    for value in OPS | PADS | RETRIES:
        assert f"`{value}`" in text
    for size in OUT_CLASSES:
        assert str(size) in text


def test_codes_of_gateway_and_worker_are_all_listed():
    for urn in problems.TYPES:
        assert f"`{urn.removeprefix(problems.URN)}`" in section("10.1")
    for code in CODES:
        assert f"`{code}`" in section("10.2")


def test_numbers_of_the_profiles_are_those_of_the_code():
    text = section("8.3")
    assert (TICK_S, GRID_S, BUCKET_TOKENS, FRAME_SIZE) == (0.1, 0.25, 8, 256)
    for words in ("100 ms", "250 ms", "after 8 deltas", "256 plaintext"):
        assert words in text
    assert f"{FINAL_SIZE:,} bytes" in text


def test_every_label_in_the_code_is_in_the_specification():
    source = Path(limits.__file__).parent
    labels = {
        label
        for path in source.glob("*.py")
        for label in re.findall(r'b"(anchorhold/1 [a-z ]+?)(?:\\0)?"', path.read_text())
    }
    assert len(labels) == 18
    assert [label for label in sorted(labels) if label not in SPEC] == []
