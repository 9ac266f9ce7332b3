"""Opening stays linear: a large request costs its bytes, not their square.

Work is counted, not timed: `bench/opening.py` has the times.
"""

from __future__ import annotations

import pytest
from simulators.counted import CountedBytes, calls
from simulators.sealed_exchange import SealedExchange

from wire.framing import FrameOpener, FrameSealer
from wire.link import JOB, Decoder, encode, raw_message

MIB = 1024 * 1024
CHUNK = 1024
FRAMES = 32


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@pytest.fixture(scope="module")
def stream() -> bytes:
    """Frames of the greatest size."""
    sealer = FrameSealer(bytes(32), bytes(12))
    return b"".join(sealer.seal(bytes(65536), final=i == FRAMES - 1) for i in range(FRAMES))


def test_a_request_of_four_times_the_size_is_at_most_four_times_the_work() -> None:
    small, large = SealedExchange(body=bytes(MIB)), SealedExchange(body=bytes(4 * MIB))
    assert len(large.opened().body) == 4 * MIB
    assert calls(large.opened) <= 4 * calls(small.opened)


def test_whole_frames_are_opened_where_they_lie(stream: bytes) -> None:
    opener = FrameOpener(bytes(32), bytes(12))
    held = opener._buffer = CountedBytes()
    assert len(opener.feed(stream)) == FRAMES
    assert held.copied == 0


def test_small_chunks_do_not_make_opening_quadratic(stream: bytes) -> None:
    opener = FrameOpener(bytes(32), bytes(12))
    opener._buffer = CountedBytes()
    assert sum(len(opener.feed(chunk)) for chunk in cut(stream, CHUNK)) == FRAMES
    assert opener.final
    # Each byte comes in once; what follows a whole frame, under a chunk, is moved to the front.
    assert opener._buffer.copied <= len(stream) + FRAMES * CHUNK


def test_small_chunks_do_not_open_frames_twice(stream: bytes) -> None:
    def read(chunks: list[bytes]) -> None:
        opener = FrameOpener(bytes(32), bytes(12))
        for chunk in chunks:
            opener.feed(chunk)

    chunks = cut(stream, CHUNK)
    quarter = chunks[: len(chunks) // 4]
    assert calls(lambda: read(chunks)) <= 5 * calls(lambda: read(quarter))


def test_small_chunks_do_not_make_the_link_quadratic() -> None:
    message = encode(raw_message(JOB, bytes(16), bytes(8 * MIB)))
    decoder = Decoder()
    decoder._buffer = CountedBytes()
    chunks = cut(message, 4 * CHUNK)
    found = [message for chunk in chunks for message in decoder.feed(chunk)]
    assert [len(message.data) for message in found] == [8 * MIB]
    # In once, out once, and the length that each chunk is met with.
    assert decoder._buffer.copied <= 2 * len(message) + 4 * len(chunks)
