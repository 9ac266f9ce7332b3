"""Opening stays linear: a large request costs its bytes, not their square."""

from __future__ import annotations

from time import perf_counter

from simulators.sealed_exchange import SealedExchange

from wire.framing import FrameOpener, FrameSealer
from wire.link import JOB, Decoder, encode, raw_message

MIB = 1024 * 1024


def best(work, runs=7):
    """Shortest of some runs: the machine may be busy with other things in the others."""
    times = []
    for _ in range(runs):
        begin = perf_counter()
        work()
        times.append(perf_counter() - begin)
    return min(times)


def test_a_request_of_one_mebibyte_opens_in_under_five_milliseconds():
    exchange = SealedExchange(body=bytes(MIB))
    assert best(exchange.opened) < 0.005


def test_small_chunks_do_not_make_opening_quadratic():
    sealer = FrameSealer(bytes(32), bytes(12))
    stream = b"".join(sealer.seal(bytes(65536), final=i == 31) for i in range(32))

    def read(size):
        opener = FrameOpener(bytes(32), bytes(12))
        for at in range(0, size, 1024):
            opener.feed(stream[at : at + 1024])

    quarter, whole = best(lambda: read(len(stream) // 4)), best(lambda: read(len(stream)))
    assert whole < 8 * quarter


def test_small_chunks_do_not_make_the_link_quadratic():
    message = encode(raw_message(JOB, bytes(16), bytes(8 * MIB)))

    def read():
        decoder = Decoder()
        for at in range(0, len(message), 4096):
            decoder.feed(message[at : at + 4096])

    assert best(read, runs=3) < 0.25
