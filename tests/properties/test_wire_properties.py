"""Whatever arrives, `wire` answers with a value or with one of its own errors."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulators.sealed_exchange import SealedExchange, SeededRng, request_header, worker_key

from wire.canonical import encode as encode_evj1
from wire.canonical import parse_evj1, parse_strict
from wire.conformance import run_vectors
from wire.envelope import parse_envelope, parse_wraps
from wire.errors import AnchorholdError, GatewayError, MalformedError
from wire.framing import FrameOpener, FrameSealer
from wire.header import parse_header
from wire.ids import b64u, unb64u
from wire.limits import JSON_DEPTH_MAX, OUT_CLASSES, REQUEST_MIN
from wire.link import BYTES, Decoder, raw_message
from wire.link import encode as encode_message
from wire.notice import verify_notice
from wire.packing import RecordQueue
from wire.padding import out_class, padme, request_size
from wire.problems import parse_problem
from wire.records import DATA, HEAD, RECEIPT, TOKENS, Record, TokenDelta, decode, encode
from wire.shaping import FINAL_SIZE, FRAME_SIZE, TICK_S, shaper_for
from wire.suites import X25519

K, IV = bytes(32), bytes(12)
EXCHANGE = SealedExchange(
    workers=(worker_key(1, X25519),), header=request_header(suite=X25519), allow_x25519=True
)
ENVELOPE = EXCHANGE.request.envelope
RESPONSE = bytes(
    (lambda w: w.prelude() + w.frame([Record(HEAD, b"{}")], 64) + w.frame([], 64, final=True))(
        EXCHANGE.writer()
    )
)
WRAPS = EXCHANGE.request.rewrap([EXCHANGE.workers[0].candidate])

chunks = st.binary(max_size=200)
records = st.lists(
    st.builds(Record, st.sampled_from([HEAD, DATA, TOKENS, RECEIPT]), st.binary(max_size=80)),
    max_size=6,
)
evj1_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """`original` cut, extended, overwritten or spliced somewhere."""
    at = draw(st.integers(0, len(original)))
    skip = draw(st.integers(0, 40))
    return original[:at] + draw(st.binary(max_size=40)) + original[at + skip :]


def depth(value) -> int:
    """Nesting of containers; a scalar has none."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


# ---------------------------------------------------------------- hostile input


HEADER_MEMBERS = ["v", "in", "out", "rid", "iat", "exp", "pri", "pad", "suite", "zz"]
PARSERS = {
    "envelope": parse_envelope,
    "wraps": parse_wraps,
    "header": parse_header,
    "strict JSON": parse_strict,
    "evj1": parse_evj1,
    "records": decode,
    "token delta": TokenDelta.decode,
    "frames": lambda data: FrameOpener(K, IV).feed(data),
    "link": lambda data: Decoder().feed(data),
    "response": lambda data: EXCHANGE.reader().feed(data),
    "base64url": lambda data: unb64u(data.decode("latin-1")),
}


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS.keys())
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_give_a_value_or_our_own_error(parse, data):
    with contextlib.suppress(AnchorholdError):
        parse(data)


@given(damaged(ENVELOPE))
@settings(max_examples=300)
def test_a_damaged_envelope_is_refused_or_is_the_envelope(data):
    try:
        opened = EXCHANGE.workers[0].open(data)
    except AnchorholdError:
        return
    assert data == ENVELOPE
    assert opened.body == EXCHANGE.body


@given(damaged(RESPONSE), st.lists(st.integers(1, 60), max_size=5))
@settings(max_examples=300)
def test_a_damaged_response_is_refused_or_is_the_response(data, sizes):
    reader = EXCHANGE.reader()
    try:
        for piece in cut(data, sizes):
            reader.feed(piece)
        reader.finish()
    except AnchorholdError:
        return
    assert data == RESPONSE


@given(damaged(WRAPS))
def test_a_damaged_wrap_list_gives_a_list_or_our_own_error(data):
    with contextlib.suppress(MalformedError):
        assert len(parse_wraps(data)) >= 1


@given(json_values)
def test_any_document_as_a_notice_gives_our_own_error(doc):
    with pytest.raises(AnchorholdError):
        verify_notice(doc, bytes(32), bytes(16), bytes(32), [bytes(32)])


@given(json_values)
def test_any_document_as_vectors_gives_results_or_our_own_error(doc):
    whole = {"schema": "anchorhold-wire-vectors/1", "vectors": [doc], "reject": [doc]}
    assert not any(case.ok for case in run_vectors(whole))
    with pytest.raises(MalformedError):
        run_vectors(doc)


@given(st.integers(), st.none() | st.text(max_size=40), st.binary(max_size=200) | damaged(b"{}"))
@example(500, "application/problem+json", b'{"title":"\\ud800"}')
def test_any_answer_of_a_gateway_is_a_hint(status, content_type, body):
    assert isinstance(parse_problem(status, content_type, body), GatewayError)


@given(json_values)
def test_any_problem_document_is_a_hint(doc):
    body = json.dumps(doc).encode()
    hint = parse_problem(500, "application/problem+json", body)
    assert hint.type == ""


@given(st.dictionaries(st.sampled_from(HEADER_MEMBERS), json_values))
def test_any_header_member_gives_a_header_or_our_own_error(changes):
    doc = json.loads(request_header(in_=1024).encode()) | changes
    raw = json.dumps(doc).encode()
    with contextlib.suppress(MalformedError):
        assert parse_header(raw).raw == raw


# ---------------------------------------------------------------- round trips


@given(evj1_values.filter(lambda value: depth(value) < JSON_DEPTH_MAX))
def test_evj1_has_one_spelling(value):
    doc = {"v": value}
    raw = encode_evj1(doc)
    assert parse_evj1(raw) == doc
    assert json.loads(raw) == doc


@given(json_values)
def test_strict_json_agrees_with_the_standard_library_where_it_accepts(value):
    raw = json.dumps(value).encode()
    try:
        found = parse_strict(raw)
    except MalformedError:
        return
    assert found == json.loads(raw)


@given(st.binary(max_size=100))
def test_base64url_round_trips(data):
    assert unb64u(b64u(data), len(data)) == data


@given(st.text(alphabet="AB_-Qgw9", max_size=12))
def test_what_base64url_accepts_it_spells_the_same(text):
    with contextlib.suppress(MalformedError):
        assert b64u(unb64u(text)) == text


@given(records, st.integers(0, 600))
def test_records_round_trip_at_any_padding(items, extra):
    plain = encode(items)
    assert decode(encode(items, len(plain) + extra)) == items


@given(st.binary(max_size=100))
def test_what_decodes_encodes_to_the_same_bytes(pt):
    try:
        items = decode(pt)
    except MalformedError:
        return
    assert encode(items, len(pt)) == pt


@given(st.lists(chunks, min_size=1, max_size=6), st.lists(st.integers(1, 50), max_size=12))
def test_frames_open_however_the_stream_is_cut(plaintexts, sizes):
    sealer, opener = FrameSealer(K, IV), FrameOpener(K, IV)
    last = len(plaintexts) - 1
    stream = b"".join(sealer.seal(pt, final=i == last) for i, pt in enumerate(plaintexts))
    found = [pt for piece in cut(stream, sizes) for pt in opener.feed(piece)]
    opener.finish()
    assert found == plaintexts


@given(st.permutations(range(4)))
def test_frames_open_in_their_order_only(order):
    sealer = FrameSealer(K, IV)
    frames = [sealer.seal(bytes([i]), final=i == 3) for i in range(4)]
    opener = FrameOpener(K, IV)
    try:
        opener.feed(b"".join(frames[i] for i in order))
    except AnchorholdError:
        assert order != [0, 1, 2, 3]
    else:
        assert order == [0, 1, 2, 3]


@given(st.lists(chunks, max_size=5), st.lists(st.integers(1, 50), max_size=12))
def test_link_messages_read_back_however_they_are_cut(payloads, sizes):
    sent = [raw_message(BYTES, bytes(16), payload) for payload in payloads]
    decoder = Decoder()
    stream = b"".join(encode_message(message) for message in sent)
    assert [m for piece in cut(stream, sizes) for m in decoder.feed(piece)] == sent


@given(st.integers(0, 200_000))
@settings(max_examples=30)
def test_a_body_of_any_length_opens_to_itself(size):
    body = SeededRng()(size)
    exchange = SealedExchange(
        body=body,
        workers=EXCHANGE.workers,
        header=EXCHANGE.header,
        allow_x25519=True,
    )
    assert exchange.opened().body == body
    assert exchange.request.header.in_ == request_size(exchange.request.header.in_)


# ---------------------------------------------------------------- sizes and shapes


@given(st.integers(0, 2**40))
def test_padme_never_shrinks_wastes_at_most_an_eighth_and_is_idempotent(n):
    padded = padme(n)
    assert n <= padded <= n + n // 8 + 1
    assert padme(padded) == padded


@given(st.integers(0, 2**30), st.integers(0, 2**20))
def test_padding_is_monotonic(n, more):
    assert padme(n) <= padme(n + more)
    assert request_size(n) >= max(n, REQUEST_MIN)


@given(st.integers(1, OUT_CLASSES[-1]))
def test_an_output_class_is_the_smallest_that_fits(n):
    size = out_class(n)
    assert size >= n
    assert all(smaller < n for smaller in OUT_CLASSES if smaller < size)


@given(
    st.lists(
        st.builds(
            TokenDelta,
            st.text(max_size=60),
            st.sampled_from([{}, {"i": 1}, {"f": "stop"}, {"i": 1, "f": "length"}]),
        ),
        max_size=20,
    ),
    st.integers(64, 300),
)
def test_text_survives_any_frame_size(deltas, room):
    queue = RecordQueue(room)
    for delta in deltas:
        queue.push(delta)
    frames = []
    while queue:
        frame = queue.take(room)
        assert frame
        assert sum(record.size for record in frame) <= room
        frames += frame
    for choice in (0, 1):
        sent = [d for d in deltas if d.tail.get("i", 0) == choice]
        got = list(map(TokenDelta.decode, (r.data for r in frames)))
        got = [d for d in got if d.tail.get("i", 0) == choice]
        assert "".join(d.text for d in got) == "".join(d.text for d in sent)
        assert [d.tail["f"] for d in got if "f" in d.tail] == [
            d.tail["f"] for d in sent if "f" in d.tail
        ]


@given(
    st.lists(st.tuples(st.floats(0, 4), st.text(max_size=30)), max_size=30),
    st.lists(st.floats(0, 4), max_size=20),
    st.integers(0, 8000),
)
def test_cadence_shows_neither_text_nor_when_it_came(texts, polls, proof):
    """Two streams open for the same time look the same, whatever was said and when."""

    def trace(script, extra):
        shaper = shaper_for("cadence", stream=True, start=0.0)
        shaper.push(Record(HEAD, b"{}"))
        seen = []
        for at, text in sorted([*script, *((at, None) for at in extra)], key=lambda e: e[0]):
            if text is not None:
                shaper.push(TokenDelta(text))
            seen += [(plan.size, plan.final) for plan in shaper.due(at)]
        seen += [(plan.size, plan.final) for plan in shaper.due(5.0)]
        shaper.close(Record(RECEIPT, bytes(proof)))
        times = []
        now = 5.0
        while not shaper.done:
            now = shaper.next_at(now)
            plans = shaper.due(now)
            times += [round(now / TICK_S)] * len(plans)
            seen += [(plan.size, plan.final) for plan in plans]
        return seen, times

    silent = trace([], [])
    assert trace(texts, polls) == silent
    assert silent[0][-1] == (FINAL_SIZE, True)
    assert set(silent[0][:-1]) == {(FRAME_SIZE, False)}
    assert len(silent[0]) == padme(len(silent[0]))
