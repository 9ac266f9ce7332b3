"""A late re-wrap reaches other workers with the same request, and cannot be made to reach many."""

from __future__ import annotations

import pytest
from simulators.sealed_exchange import SealedExchange, worker_key

from wire.envelope import encode_wraps, parse_envelope, parse_wraps
from wire.errors import EnvelopeError, KidUnknownError, OpenError, ProtocolFailure
from wire.records import HEAD, Record
from wire.response import ResponseWriter
from wire.suites import HYBRID, X25519

FIRST = tuple(worker_key(seed) for seed in (1, 2, 3))
LATER = tuple(worker_key(seed) for seed in (4, 5, 6))
LAST = tuple(worker_key(seed) for seed in (7, 8, 9))


def candidates(workers):
    return [worker.candidate for worker in workers]


def rewrapped(exchange: SealedExchange, workers) -> bytes:
    wraps = parse_wraps(exchange.request.rewrap(candidates(workers)), HYBRID)
    return parse_envelope(exchange.request.envelope).encode(wraps)


def test_a_re_wrapped_request_is_the_same_request_for_another_worker():
    exchange = SealedExchange(workers=FIRST)
    before = exchange.opened(FIRST[0])
    after = LATER[0].open(rewrapped(exchange, LATER))
    assert (after.th, after.keys, after.body) == (before.th, before.keys, before.body)
    assert after.r_kid != before.r_kid
    assert exchange.request.kids == tuple(w.kid for w in FIRST + LATER)


def test_the_first_candidates_cannot_open_a_re_wrapped_envelope():
    exchange = SealedExchange(workers=FIRST)
    with pytest.raises(KidUnknownError):
        FIRST[0].open(rewrapped(exchange, LATER))


def test_a_gateway_cannot_swap_the_wraps_of_two_workers():
    exchange = SealedExchange(workers=FIRST)
    env = parse_envelope(exchange.request.envelope)
    one, two = env.wraps[0], env.wraps[1]
    swapped = (type(one)(one.kid, two.wrap), type(one)(two.kid, one.wrap))
    for worker in FIRST[:2]:
        with pytest.raises(OpenError):
            worker.open(env.encode(swapped))


def test_a_gateway_cannot_use_the_wraps_of_another_request():
    exchange = SealedExchange(workers=FIRST)
    other = SealedExchange(workers=FIRST, rng=exchange.rng)
    wraps = parse_wraps(other.request.rewrap(candidates(LATER)))
    with pytest.raises(OpenError):
        LATER[0].open(parse_envelope(exchange.request.envelope).encode(wraps))


def test_a_worker_of_a_re_wrap_can_answer():
    exchange = SealedExchange(workers=FIRST)
    opened = LATER[1].open(rewrapped(exchange, LATER))
    writer = ResponseWriter(
        opened.th, opened.kid, opened.header.rid, opened.keys.rs, opened.r_kid, exchange.rng, 4
    )
    reader = exchange.reader()
    record = Record(HEAD, b'{"s":200}')
    assert reader.feed(writer.prelude() + writer.frame([record], final=True)) == [record]
    assert (reader.kid, reader.attempt) == (LATER[1].kid, 4)


def test_a_third_re_wrap_is_refused():
    exchange = SealedExchange(workers=FIRST[:1])
    exchange.request.rewrap(candidates(FIRST[1:2]))
    exchange.request.rewrap(candidates(FIRST[2:]))
    with pytest.raises(ProtocolFailure, match="at most 2"):
        exchange.request.rewrap(candidates(LATER[:1]))
    assert len(exchange.request.kids) == 3


def test_a_ninth_key_is_refused_and_none_of_its_re_wrap_is_made():
    exchange = SealedExchange(workers=FIRST)
    exchange.request.rewrap(candidates(LATER))
    with pytest.raises(ProtocolFailure, match="at most 8 keys"):
        exchange.request.rewrap(candidates(LAST))
    assert len(exchange.request.kids) == 6
    exchange.request.rewrap(candidates(LAST[:2]))
    assert len(exchange.request.kids) == 8


def test_a_key_wrapped_to_before_counts_once():
    exchange = SealedExchange(workers=FIRST)
    exchange.request.rewrap(candidates(FIRST))
    assert exchange.request.kids == tuple(worker.kid for worker in FIRST)


def test_a_re_wrap_cannot_fall_back_to_another_suite():
    exchange = SealedExchange(workers=FIRST)
    with pytest.raises(ValueError, match="candidate suite"):
        exchange.request.rewrap([worker_key(4, X25519).candidate])


def test_a_wrap_list_reads_back_as_written():
    exchange = SealedExchange(workers=FIRST)
    data = exchange.request.rewrap(candidates(LATER))
    assert encode_wraps(parse_wraps(data)) == data
    assert len(data) == 1 + 3 * (32 + 2 + 1200)


@pytest.mark.parametrize("size", [0, 1, 20, 33, 34, 35, 1000])
def test_a_wrap_list_cut_short_is_refused(size):
    data = SealedExchange().request.rewrap(candidates(LATER[:1]))
    with pytest.raises(EnvelopeError, match="cut short"):
        parse_wraps(data[:size])


def test_a_wrap_list_with_more_behind_it_is_refused():
    data = SealedExchange().request.rewrap(candidates(LATER[:1]))
    with pytest.raises(EnvelopeError, match="follow the list"):
        parse_wraps(data + b"\0")


def test_a_wrap_list_of_another_suite_is_refused():
    data = SealedExchange().request.rewrap(candidates(LATER[:1]))
    with pytest.raises(EnvelopeError, match="length 1200"):
        parse_wraps(data, X25519)


def test_an_empty_wrap_list_cannot_be_made():
    with pytest.raises(ValueError, match="found 0"):
        encode_wraps([])
