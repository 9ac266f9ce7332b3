"""An envelope opens whole, for its candidates, once; any changed byte is refused."""

from __future__ import annotations

import pytest
from simulators.sealed_exchange import (
    HEAD,
    SealedExchange,
    SeededRng,
    request_header,
    worker_key,
)

from wire.envelope import Candidate, Envelope, open_envelope, parse_envelope, seal_request
from wire.errors import (
    AnchorholdError,
    EnvelopeError,
    FrameError,
    HeaderError,
    KidUnknownError,
    OpenError,
    ReplayError,
)
from wire.framing import FrameSealer
from wire.limits import BODY_MAX, ENVELOPE_MAX, FRAME_PT_MAX, REQUEST_FRAMES_MAX
from wire.padding import request_size
from wire.records import DATA, TOKENS, Record, encode, json_record
from wire.records import HEAD as HEAD_TYPE
from wire.replay import ReplaySet
from wire.suites import HYBRID, SUITES, X25519

THREE = tuple(worker_key(seed) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    "size", [0, 1, 900, 1024, 65_400, 65_430, 65_536, 131_000, 200_000, 1_048_576]
)
def test_a_body_of_any_length_comes_out_as_it_went_in(size):
    body = SeededRng()(size)
    exchange = SealedExchange(body=body)
    opened = exchange.opened()
    assert opened.body == body
    assert opened.head == HEAD | {"n": size}
    assert opened.header == exchange.request.header
    assert opened.th == exchange.request.th
    assert opened.keys == exchange.request.keys
    assert opened.ct_hash == exchange.request.ct_hash


def test_the_largest_body_fits_and_a_larger_one_is_a_caller_mistake():
    exchange = SealedExchange(body=bytes(BODY_MAX))
    assert len(exchange.request.envelope) <= ENVELOPE_MAX
    assert len(exchange.opened().body) == BODY_MAX
    with pytest.raises(ValueError, match="body"):
        SealedExchange(body=bytes(BODY_MAX + 1))


def test_each_candidate_opens_the_same_request_with_its_own_response_secret():
    exchange = SealedExchange(workers=THREE)
    opened = [exchange.opened(worker) for worker in THREE]
    assert len({o.body for o in opened}) == 1
    assert len({o.keys.commit for o in opened}) == 1
    assert len({o.r_kid for o in opened}) == 3


def test_sizes_on_the_wire_depend_on_the_padded_length_only():
    lengths = {
        size: len(SealedExchange(body=bytes(size)).request.envelope) for size in (0, 1, 500, 700)
    }
    assert len(set(lengths.values())) == 1
    short, long = (SealedExchange(body=bytes(n)).request for n in (70_000, 70_100))
    assert len(short.envelope) == len(long.envelope)


def test_the_header_declares_the_padded_plaintext():
    header = SealedExchange(body=bytes(5000)).request.header
    assert header.in_ == request_size(header.in_)
    assert header.in_ >= 5000


def test_no_two_seals_of_one_request_look_alike():
    rng = SeededRng()
    first, second = (SealedExchange(rng=rng).request.envelope for _ in range(2))
    tail = len(first) - 1000
    assert len(first) == len(second)
    assert first[tail:] != second[tail:]


def two_frame_exchange(suite: str) -> SealedExchange:
    """A small request laid out over two frames, which a real one is only above 64 KiB."""
    exchange = SealedExchange(
        workers=(worker_key(1, suite),),
        header=request_header(suite=suite),
        allow_x25519=True,
    )
    env = parse_envelope(exchange.request.envelope)
    keys = exchange.request.keys
    sealer = FrameSealer(keys.k, keys.iv)
    body = exchange.body
    head = encode([json_record(HEAD_TYPE, HEAD | {"n": len(body)})], 512)
    data = encode([Record(DATA, body)], 512)
    frames = sealer.seal(head) + sealer.seal(data, final=True)
    exchange.request.envelope = Envelope(
        env.hdr_raw, env.header, env.commit, env.wraps, memoryview(frames)
    ).encode()
    return exchange


@pytest.mark.parametrize("suite", [HYBRID, X25519])
@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_every_single_changed_byte_of_a_two_frame_envelope_is_refused(suite, flip):
    exchange = two_frame_exchange(suite)
    worker, envelope = exchange.workers[0], exchange.request.envelope
    assert worker.open(envelope).body == exchange.body
    accepted = []
    for at in range(len(envelope)):
        changed = bytearray(envelope)
        changed[at] ^= flip
        try:
            worker.open(bytes(changed))
        except AnchorholdError:
            continue
        accepted.append(at)
    assert accepted == []


def test_every_single_changed_bit_of_header_and_lengths_is_refused():
    exchange = two_frame_exchange(X25519)
    worker, envelope = exchange.workers[0], exchange.request.envelope
    env = parse_envelope(envelope)
    start_of_frames = len(envelope) - len(env.frames)
    first = len(env.frames) // 2
    heads = [*range(start_of_frames, start_of_frames + 4)]
    heads += range(start_of_frames + first, start_of_frames + first + 4)
    for at in [*range(start_of_frames), *heads]:
        for bit in range(8):
            changed = bytearray(envelope)
            changed[at] ^= 1 << bit
            with pytest.raises(AnchorholdError):
                worker.open(bytes(changed))


def test_an_envelope_cut_at_any_byte_is_refused():
    envelope = two_frame_exchange(X25519).request.envelope
    for size in range(len(envelope)):
        with pytest.raises((EnvelopeError, HeaderError, FrameError)):
            parse_envelope(envelope[:size])


def test_an_appended_byte_is_refused():
    with pytest.raises(EnvelopeError, match="follow the final frame"):
        parse_envelope(SealedExchange().request.envelope + b"\0")


def test_swapped_frames_are_refused():
    exchange = two_frame_exchange(HYBRID)
    env = parse_envelope(exchange.request.envelope)
    half = len(env.frames) // 2
    first, second = bytearray(env.frames[:half]), bytearray(env.frames[half:])
    first[0], second[0] = 1, 0
    swapped = Envelope(
        env.hdr_raw, env.header, env.commit, env.wraps, memoryview(bytes(second + first))
    )
    with pytest.raises(OpenError):
        exchange.workers[0].open(swapped.encode())


def test_a_frame_of_another_request_is_refused():
    rng = SeededRng()
    one, other = SealedExchange(rng=rng), SealedExchange(rng=rng)
    env = parse_envelope(one.request.envelope)
    spliced = Envelope(
        env.hdr_raw,
        env.header,
        env.commit,
        env.wraps,
        parse_envelope(other.request.envelope).frames,
    )
    with pytest.raises(OpenError):
        one.workers[0].open(spliced.encode())


def test_a_wrap_moved_under_another_header_does_not_open():
    rng = SeededRng()
    one = SealedExchange(rng=rng)
    other = SealedExchange(rng=rng, header=request_header(model="other"))
    env, donor = (parse_envelope(e.request.envelope) for e in (one, other))
    moved = Envelope(env.hdr_raw, env.header, donor.commit, donor.wraps, donor.frames)
    with pytest.raises(OpenError):
        one.workers[0].open(moved.encode())


def test_a_commitment_of_another_secret_is_refused_before_any_frame():
    rng = SeededRng()
    one, other = (SealedExchange(rng=rng) for _ in range(2))
    env = parse_envelope(one.request.envelope)
    changed = Envelope(
        env.hdr_raw,
        env.header,
        parse_envelope(other.request.envelope).commit,
        env.wraps,
        memoryview(b"never read"),
    )
    with pytest.raises(OpenError, match="commitment"):
        open_envelope(changed, one.workers[0].kid, one.workers[0].sk, SUITES[HYBRID])


def test_every_failure_to_open_has_one_code():
    exchange = two_frame_exchange(HYBRID)
    envelope = exchange.request.envelope
    env = parse_envelope(envelope)
    wrap_at = envelope.index(env.wraps[0].wrap)
    commit_at = envelope.index(env.commit)
    codes = set()
    for at in (wrap_at, wrap_at + 1150, wrap_at + 1199, commit_at, len(envelope) - 1):
        changed = bytearray(envelope)
        changed[at] ^= 1
        with pytest.raises(AnchorholdError) as caught:
            exchange.workers[0].open(bytes(changed))
        codes.add(caught.value.code)
    assert codes == {"open_failed"}


def test_a_worker_without_a_wrap_says_so():
    with pytest.raises(KidUnknownError):
        worker_key(9).open(SealedExchange().request.envelope)


def test_a_key_of_another_suite_is_no_candidate():
    exchange = SealedExchange()
    env = parse_envelope(exchange.request.envelope)
    with pytest.raises(KidUnknownError):
        open_envelope(env, env.kids[0], worker_key(1, X25519).sk, SUITES[X25519])


def test_a_request_is_taken_up_once_under_one_key():
    exchange = SealedExchange(workers=THREE)
    envelope = exchange.request.envelope
    mine, theirs = ReplaySet(), ReplaySet()
    THREE[0].open(envelope, replay=mine)
    with pytest.raises(ReplayError):
        THREE[0].open(envelope, replay=mine)
    THREE[1].open(envelope, replay=theirs)


def test_a_request_that_does_not_open_is_not_entered():
    exchange = SealedExchange()
    changed = bytearray(exchange.request.envelope)
    changed[changed.index(parse_envelope(bytes(changed)).commit)] ^= 1
    seen = ReplaySet()
    with pytest.raises(OpenError):
        exchange.workers[0].open(bytes(changed), replay=seen)
    assert len(seen) == 0
    exchange.workers[0].open(exchange.request.envelope, replay=seen)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "records",
    [
        [],
        [Record(DATA, b"x")],
        [json_record(HEAD_TYPE, {"n": 2}), Record(DATA, b"x")],
        [json_record(HEAD_TYPE, {"n": 0}), Record(DATA, b"x")],
        [json_record(HEAD_TYPE, {"n": True}), Record(DATA, b"x")],
        [json_record(HEAD_TYPE, {}), Record(DATA, b"x")],
        [json_record(HEAD_TYPE, {"n": 1}), json_record(HEAD_TYPE, {"n": 1}), Record(DATA, b"x")],
        [json_record(HEAD_TYPE, {"n": 1}), Record(DATA, b"x"), Record(TOKENS, b"\0\0")],
        [Record(HEAD_TYPE, b'{"n":1,"n":1}'), Record(DATA, b"x")],
        [Record(HEAD_TYPE, b"[1]"), Record(DATA, b"x")],
    ],
)
def test_sealed_records_that_are_no_request_are_refused(records):
    exchange = SealedExchange(body=b"x")
    env = parse_envelope(exchange.request.envelope)
    keys = exchange.request.keys
    frame = FrameSealer(keys.k, keys.iv).seal(encode(records, env.header.in_), final=True)
    changed = Envelope(env.hdr_raw, env.header, env.commit, env.wraps, memoryview(frame))
    with pytest.raises(OpenError):
        exchange.workers[0].open(changed.encode())


@pytest.mark.parametrize("size", [1023, 1025, 2048])
def test_frames_of_another_size_than_declared_are_refused_without_a_key(size):
    exchange = SealedExchange(body=b"x")
    env = parse_envelope(exchange.request.envelope)
    frame = FrameSealer(bytes(32), bytes(12)).seal(bytes(size), final=True)
    changed = Envelope(env.hdr_raw, env.header, env.commit, env.wraps, memoryview(frame))
    with pytest.raises(EnvelopeError, match=f"in = 1024, found frames of {size}"):
        parse_envelope(changed.encode())


def test_a_flood_of_empty_frames_is_refused_without_a_key():
    env = parse_envelope(SealedExchange().request.envelope)
    flood = bytes.fromhex("00000010") + bytes(16)
    changed = Envelope(
        env.hdr_raw, env.header, env.commit, env.wraps, memoryview(flood * (REQUEST_FRAMES_MAX + 1))
    )
    with pytest.raises(EnvelopeError, match="more than 4096 frames"):
        parse_envelope(changed.encode())


def test_an_envelope_longer_than_the_limit_is_refused():
    with pytest.raises(EnvelopeError, match="at most"):
        parse_envelope(bytes(ENVELOPE_MAX + 1))


def test_a_header_length_beyond_the_limit_is_refused():
    with pytest.raises(EnvelopeError, match="header of"):
        parse_envelope(b"AHQ1" + (8193).to_bytes(4, "big") + bytes(9000))


@pytest.mark.parametrize("count", [0, 9, 255])
def test_an_impossible_number_of_wraps_is_refused(count):
    exchange = SealedExchange()
    env = parse_envelope(exchange.request.envelope)
    at = exchange.request.envelope.index(env.commit) + 32
    changed = bytearray(exchange.request.envelope)
    changed[at] = count
    with pytest.raises(EnvelopeError, match=f"K = {count}"):
        parse_envelope(bytes(changed))


def test_a_wrap_of_the_other_suites_length_is_refused():
    env = parse_envelope(
        SealedExchange(
            workers=(worker_key(1, X25519),), header=request_header(suite=X25519), allow_x25519=True
        ).request.envelope
    )
    hybrid = parse_envelope(SealedExchange().request.envelope)
    with pytest.raises(EnvelopeError, match="length 112"):
        parse_envelope(hybrid.encode(env.wraps))


def test_one_kid_twice_is_refused():
    env = parse_envelope(SealedExchange().request.envelope)
    with pytest.raises(EnvelopeError, match="twice"):
        parse_envelope(env.encode(env.wraps * 2))


def test_an_envelope_encodes_to_the_bytes_received():
    envelope = SealedExchange(workers=THREE).request.envelope
    assert parse_envelope(envelope).encode() == envelope
    assert parse_envelope(envelope).kids == tuple(worker.kid for worker in THREE)


def test_x25519_is_sealed_to_only_when_allowed():
    worker = worker_key(1, X25519)
    header = request_header(suite=X25519)
    with pytest.raises(ValueError, match="policy does not allow"):
        SealedExchange(workers=(worker,), header=header)
    exchange = SealedExchange(workers=(worker,), header=header, allow_x25519=True)
    assert exchange.opened().body == exchange.body


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ([], "1 to 8, found 0"),
        ([worker_key(seed).candidate for seed in range(1, 10)], "found 9"),
        ([worker_key(1).candidate] * 2, "twice"),
        ([worker_key(1, X25519).candidate], "candidate suite"),
        ([Candidate(bytes(32), HYBRID, worker_key(1).sk.pk)], "does not name its key"),
    ],
)
def test_candidates_that_make_no_sense_are_a_caller_mistake(candidates, words):
    with pytest.raises(ValueError, match=words):
        seal_request(request_header(), candidates, HEAD, b"", SeededRng())


@pytest.mark.parametrize("changes", [{"aud": ""}, {"exp": 0}, {"out": 100}, {"rid": b"short"}])
def test_an_impossible_header_is_a_caller_mistake(changes):
    with pytest.raises(ValueError, match="header"):
        SealedExchange(header=request_header(**changes))


def test_a_head_beyond_one_frame_is_a_caller_mistake():
    with pytest.raises(ValueError, match="head"):
        seal_request(
            request_header(), [THREE[0].candidate], {"h": "x" * FRAME_PT_MAX}, b"", SeededRng()
        )


def test_an_opened_request_shows_no_content_and_no_key():
    shown = repr(SealedExchange(body=b"secret prompt").opened())
    assert "secret" not in shown
    assert "body" not in shown
    assert "r_kid" not in shown
