"""A stream of frames: whole, in order, once, to its end, or not at all."""

from __future__ import annotations

import hashlib

import pytest

from wire.errors import FrameError, OpenError
from wire.framing import FrameOpener, FrameSealer

K, IV = bytes(range(32)), bytes(range(12))
PLAINTEXTS = [b"first", b"", b"third" * 100, b"last"]


def sealed(plaintexts=PLAINTEXTS, k=K, iv=IV):
    sealer = FrameSealer(k, iv)
    last = len(plaintexts) - 1
    return [sealer.seal(pt, final=i == last) for i, pt in enumerate(plaintexts)]


def opened(stream, cut=None):
    opener = FrameOpener(K, IV)
    found = []
    step = cut or max(1, len(stream))
    for at in range(0, len(stream), step):
        found += opener.feed(stream[at : at + step])
    opener.finish()
    return found


@pytest.mark.parametrize("cut", [None, 1, 2, 3, 5, 64])
def test_a_stream_opens_however_it_is_cut(cut):
    assert opened(b"".join(sealed()), cut) == PLAINTEXTS


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_accepted_and_not_held(kind):
    data = bytearray(b"".join(sealed()))
    opener = FrameOpener(K, IV)
    assert opener.feed(kind(data)) == PLAINTEXTS
    data.clear()  # would fail while a view is held


def test_a_frame_of_the_largest_size_opens_and_a_larger_one_cannot_be_made():
    assert opened(b"".join(sealed([b"x" * 65536]))) == [b"x" * 65536]
    with pytest.raises(ValueError, match="65536"):
        FrameSealer(K, IV).seal(b"x" * 65537)


def test_a_frame_shows_flag_and_length_and_nothing_else():
    [frame] = sealed([b"x" * 256])
    assert frame[:4] == bytes.fromhex("01000110")
    assert len(frame) == 256 + 20


@pytest.mark.parametrize("at", range(3))
def test_frames_in_another_order_do_not_open(at):
    frames = sealed()
    frames[at], frames[at + 1] = frames[at + 1], frames[at]
    with pytest.raises(OpenError):
        opened(b"".join(frames))


@pytest.mark.parametrize("at", range(3))
def test_a_missing_frame_is_noticed(at):
    frames = sealed()
    del frames[at]
    with pytest.raises(OpenError):
        opened(b"".join(frames))


@pytest.mark.parametrize("at", range(4))
def test_a_repeated_frame_is_noticed(at):
    frames = sealed()
    frames.insert(at, frames[at])
    with pytest.raises((OpenError, FrameError)):
        opened(b"".join(frames))


def test_a_frame_of_another_stream_does_not_open():
    ours, theirs = sealed(), sealed(iv=bytes(12))
    with pytest.raises(OpenError):
        opened(b"".join([ours[0], theirs[1], *ours[2:]]))


@pytest.mark.parametrize("size", range(len(b"".join(sealed([b"ab", b"cd"])))))
def test_a_stream_cut_at_any_byte_is_truncated(size):
    with pytest.raises(FrameError, match="before its final frame"):
        opened(b"".join(sealed([b"ab", b"cd"]))[:size])


@pytest.mark.parametrize("cut", [None, 1])
def test_every_changed_byte_is_noticed(cut):
    stream = b"".join(sealed([b"ab", b"cd"]))
    for at in range(len(stream)):
        for flip in (0x01, 0x80, 0xFF):
            changed = stream[:at] + bytes([stream[at] ^ flip]) + stream[at + 1 :]
            with pytest.raises((OpenError, FrameError)):
                opened(changed, cut)


@pytest.mark.parametrize("tail", [b"\0", b"\x01", b"\x01\0\0\x10" + bytes(16)])
@pytest.mark.parametrize("apart", [True, False])
def test_bytes_after_the_final_frame_are_refused(tail, apart):
    stream = b"".join(sealed())
    opener = FrameOpener(K, IV)
    if apart:
        opener.feed(stream)
    with pytest.raises(FrameError, match="follow the final frame"):
        opener.feed(tail if apart else stream + tail)


def test_a_frame_sealed_after_final_under_the_same_key_is_refused():
    sealer = FrameSealer(K, IV)
    stream = sealer.seal(b"end", final=True)
    with pytest.raises(RuntimeError, match="final"):
        sealer.seal(b"more")
    assert opened(stream) == [b"end"]


@pytest.mark.parametrize(
    "head",
    ["02000016", "ff000016", "00000000", "0000000f", "00010011", "00ffffff", "01000005"],
)
def test_impossible_heads_are_refused_before_any_byte_of_the_frame_is_kept(head):
    with pytest.raises(FrameError):
        FrameOpener(K, IV).feed(bytes.fromhex(head))


def test_a_dead_opener_stays_dead():
    frames = sealed()
    opener = FrameOpener(K, IV)
    with pytest.raises(OpenError):
        opener.feed(frames[1])
    for _ in range(2):
        with pytest.raises(OpenError):
            opener.feed(frames[0])
    with pytest.raises(OpenError):
        opener.finish()


def test_frame_hashes_cover_every_frame_but_the_final_one():
    frames = sealed()
    opener = FrameOpener(K, IV, hash_frames=True)
    opener.feed(b"".join(frames))
    assert opener.digests == [
        hashlib.sha256(b"".join(frames[: i + 1])).digest() for i in range(len(frames) - 1)
    ]


def test_a_nonce_base_of_another_length_is_a_caller_mistake():
    with pytest.raises(ValueError, match="12 bytes"):
        FrameSealer(K, bytes(11))


def test_a_stream_never_uses_a_nonce_twice():
    sealer = FrameSealer(K, IV)
    sealer._nonces._index = 2**32
    with pytest.raises(FrameError, match="at most 4294967296 frames"):
        sealer.seal(b"")
