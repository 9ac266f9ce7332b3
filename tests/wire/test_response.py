"""A response is ours, from one of our candidates, whole, or refused."""

from __future__ import annotations

import hashlib
import json

import pytest
from simulators.sealed_exchange import SealedExchange, request_header, worker_key

from wire.errors import (
    AnchorholdError,
    FrameError,
    OpenError,
    ProtocolFailure,
    RecordError,
    SpliceError,
    StreamTruncated,
)
from wire.ids import b64u
from wire.limits import RHDR_MAX
from wire.records import DATA, HEAD, RECEIPT, Record, TokenDelta
from wire.response import ResponseReader, ResponseWriter

THREE = tuple(worker_key(seed) for seed in (1, 2, 3))
STATUS = Record(HEAD, b'{"s":200}')
TEXT = TokenDelta("hello").record()
PROOF = Record(RECEIPT, b"{}")


def answered(exchange: SealedExchange, writer: ResponseWriter | None = None) -> bytes:
    writer = writer or exchange.writer()
    return b"".join(
        [
            writer.prelude(),
            writer.frame([STATUS, TEXT], 256),
            writer.frame([], 256),
            writer.frame([PROOF], 512, final=True),
        ]
    )


@pytest.mark.parametrize("cut", [10_000, 1, 7])
def test_a_response_reads_back_as_written_however_it_is_cut(cut):
    exchange = SealedExchange(workers=THREE)
    stream = answered(exchange, exchange.writer(THREE[1]))
    reader = exchange.reader()
    found = []
    for at in range(0, len(stream), cut):
        found += reader.feed(stream[at : at + cut])
    reader.finish()
    assert found == [STATUS, TEXT, PROOF]
    assert (reader.kid, reader.attempt) == (THREE[1].kid, 1)
    assert reader.complete
    assert reader.has_receipt


def test_a_response_of_more_frames_than_are_kept_is_refused():
    exchange = SealedExchange()
    stream = answered(exchange)
    exact, short = (
        ResponseReader(
            exchange.request.th,
            exchange.request.header.rid,
            exchange.request.keys,
            exchange.request.R,
            exchange.request.kids,
            frames_max=most,
        )
        for most in (2, 1)
    )
    exact.feed(stream)
    exact.finish()
    with pytest.raises(FrameError, match="at most 1 frames"):
        short.feed(stream)


def test_both_sides_agree_on_salt_and_frame_hashes():
    exchange = SealedExchange()
    writer, reader = exchange.writer(), exchange.reader()
    reader.feed(writer.prelude() + writer.frame([STATUS], 256))
    first = writer.ct_hash
    second = writer.frame([TEXT], 256)
    reader.feed(second + writer.frame([PROOF], 512, final=True))
    assert reader.salt_r == writer.salt_r
    assert reader.frames == writer.frames == 2
    assert reader.ct_hash == writer.ct_hash
    assert reader.ct_hash_at(1) == first
    assert reader.ct_hash_at(0) == hashlib.sha256().digest()
    assert writer.complete
    for frames in (3, -1):
        with pytest.raises(FrameError):
            reader.ct_hash_at(frames)


def test_an_answer_to_another_request_is_a_splice():
    exchange = SealedExchange()
    other = SealedExchange(header=request_header(rid=bytes(16)))
    with pytest.raises(SpliceError, match="another request"):
        exchange.reader().feed(answered(other))


def test_an_answer_from_no_candidate_is_a_splice():
    exchange = SealedExchange(workers=THREE)
    request = exchange.request
    reader = ResponseReader(request.th, request.header.rid, request.keys, request.R, [THREE[0].kid])
    with pytest.raises(SpliceError, match="not a candidate"):
        reader.feed(answered(exchange, exchange.writer(THREE[1])))


def test_a_candidate_cannot_answer_in_the_name_of_another():
    exchange = SealedExchange(workers=THREE)
    opened = exchange.opened(THREE[0])
    forged = ResponseWriter(
        opened.th, THREE[1].kid, opened.header.rid, opened.keys.rs, opened.r_kid, exchange.rng
    )
    with pytest.raises(OpenError):
        exchange.reader().feed(answered(exchange, forged))


def test_an_answer_to_the_same_id_under_another_header_does_not_open():
    exchange = SealedExchange()
    other = SealedExchange(header=request_header(model="other"))
    with pytest.raises(OpenError):
        exchange.reader().feed(answered(other))


def test_frames_of_two_attempts_cannot_be_spliced():
    exchange = SealedExchange()
    first, second = exchange.writer(), exchange.writer()
    start = first.prelude() + first.frame([STATUS], 256)
    second.frame([STATUS], 256)
    reader = exchange.reader()
    reader.feed(start)
    with pytest.raises(OpenError):
        reader.feed(second.frame([TEXT], 256))


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_every_single_changed_byte_of_a_response_is_refused(flip):
    exchange = SealedExchange()
    stream = answered(exchange)
    for at in range(len(stream)):
        reader = exchange.reader()
        changed = stream[:at] + bytes([stream[at] ^ flip]) + stream[at + 1 :]

        def read(reader=reader, changed=changed):
            reader.feed(changed)
            reader.finish()

        with pytest.raises(AnchorholdError):
            read()


def test_a_response_cut_at_any_byte_is_truncated():
    exchange = SealedExchange()
    stream = answered(exchange)
    for size in range(len(stream)):
        reader = exchange.reader()
        reader.feed(stream[:size])
        with pytest.raises(StreamTruncated):
            reader.finish()
        assert not reader.complete


def test_bytes_after_the_end_are_refused():
    exchange = SealedExchange()
    with pytest.raises(FrameError):
        exchange.reader().feed(answered(exchange) + b"\0")


@pytest.mark.parametrize("data", [b"HTTP/1.1", b"{", b"AHQ1", b"AHR2", b"\0"])
def test_anything_else_is_a_protocol_failure(data):
    with pytest.raises(ProtocolFailure, match="not a sealed response"):
        SealedExchange().reader().feed(data)


def test_a_response_header_beyond_the_limit_is_refused():
    with pytest.raises(ProtocolFailure, match="at most"):
        SealedExchange().reader().feed(b"AHR1" + (RHDR_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"rid": "short"},
        {"rid": 5},
        {"kid": None},
        {"att": 0},
        {"att": "1"},
        {"att": True},
        {"rn": b64u(bytes(31))},
    ],
    ids=str,
)
def test_a_malformed_response_header_is_a_protocol_failure(changes):
    exchange = SealedExchange()
    doc = {
        "v": 1,
        "rid": b64u(exchange.request.header.rid),
        "kid": b64u(exchange.workers[0].kid),
        "att": 1,
        "rn": b64u(bytes(32)),
    }
    rhdr = json.dumps(doc | changes).encode()
    with pytest.raises(ProtocolFailure, match="header"):
        exchange.reader().feed(b"AHR1" + len(rhdr).to_bytes(4, "big") + rhdr)


@pytest.mark.parametrize("rhdr", [b"", b"[]", b'{"v":1,"v":1}', b"\xff"])
def test_a_response_header_that_is_no_strict_object_is_a_protocol_failure(rhdr):
    with pytest.raises(ProtocolFailure, match="header"):
        SealedExchange().reader().feed(b"AHR1" + len(rhdr).to_bytes(4, "big") + rhdr)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([[]], "does not begin with HEAD"),
        ([[TEXT]], "does not begin with HEAD"),
        ([[STATUS, STATUS]], "second HEAD"),
        ([[STATUS], [STATUS]], "second HEAD"),
        ([[STATUS, PROOF, TEXT]], "follows RECEIPT"),
        ([[STATUS, PROOF], [TEXT]], "follows RECEIPT"),
        ([[STATUS, PROOF], [PROOF]], "follows RECEIPT"),
    ],
)
def test_records_out_of_order_are_refused(frames, words):
    exchange = SealedExchange()
    writer = exchange.writer()
    stream = writer.prelude() + b"".join(writer.frame(records, 256) for records in frames)
    with pytest.raises(RecordError, match=words):
        exchange.reader().feed(stream)


def test_a_dead_reader_stays_dead():
    exchange = SealedExchange()
    stream = answered(exchange)
    reader = exchange.reader()
    with pytest.raises(ProtocolFailure):
        reader.feed(b"nonsense")
    with pytest.raises(ProtocolFailure):
        reader.feed(stream)
    with pytest.raises(ProtocolFailure):
        reader.finish()


def test_a_reader_says_how_to_go_on_after_truncation():
    with pytest.raises(StreamTruncated) as caught:
        SealedExchange().reader().finish()
    assert "send the request again" in caught.value.diagnostics()


def test_data_survives_a_response_of_many_frames():
    exchange = SealedExchange()
    writer, reader = exchange.writer(), exchange.reader()
    body = exchange.rng(200_000)
    pieces = [Record(DATA, body[at : at + 60_000]) for at in range(0, len(body), 60_000)]
    stream = writer.prelude() + writer.frame([STATUS])
    stream += b"".join(writer.frame([piece]) for piece in pieces)
    found = reader.feed(stream + writer.frame([PROOF], final=True))
    reader.finish()
    assert b"".join(record.data for record in found[1:-1]) == body
