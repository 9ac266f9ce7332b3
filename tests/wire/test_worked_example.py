"""The specification's worked example, value by value."""

from __future__ import annotations

from wire.framing import FrameOpener, FrameSealer
from wire.records import HEAD, Record, encode
from wire.schedule import RequestKeys, ResponseKeys, transcript_hash

HDR = b'{"v":1,"op":"chat"}'
S = bytes(range(32))
R_KID = bytes(range(32, 64))
KID = b"\xaa" * 32
RHDR = b'{"v":1}'
FRAMES = (
    "000000167423255bada9aad1ff0bd4a6bc002bd7ea59072f9664010000102219cfa4e86c69175d46c8a8a89d8396"
)


def test_the_request_half_of_the_worked_example_holds():
    th = transcript_hash(HDR)
    keys = RequestKeys.derive(th, S)
    assert len(HDR) == 19
    assert th.hex() == "367f8270d8320479b2d4dbc38ed0c1f93c3dccfcae38d3b3466bedf21caed022"
    assert keys.prk.hex() == "af92a1f9fdfced02a72c2f97e640047220efe04b8c8a3a7f6dee0f2c164e4880"
    assert keys.commit.hex() == "071c1b53913d10954cd6cf8e565e8afe6b36c537e6b5d1786a80af9b53afd43b"
    assert keys.k.hex() == "c6bd624dd28b2172a1cbbd81ae1258b554b81fe46d3c75799701d9c9c32ba669"
    assert keys.iv.hex() == "5e2c3bae6288824ff10ddcf0"
    assert keys.salt_q.hex() == "7aed616fa40d8f6f7eb2e2b01853e909ddfd5cec18773e6d18e77bceaefd79e9"


def test_the_response_half_of_the_worked_example_holds():
    th = transcript_hash(HDR)
    keys = ResponseKeys.derive(th, KID, RHDR, RequestKeys.derive(th, S).rs, R_KID)
    assert keys.k.hex() == "762dc503ccc50837bb7bdcce8c6135b64e09afd781b4c0f79961269043979fea"
    assert keys.iv.hex() == "128796edc6d01eecd55125c5"
    assert keys.salt_r.hex() == "a0ac663e0f0e5c9291026de659131ede7ce6224b7291824cb3be2c5a25068a5b"


def test_the_frames_of_the_worked_example_seal_and_open():
    keys = RequestKeys.derive(transcript_hash(HDR), S)
    sealer = FrameSealer(keys.k, keys.iv)
    first = encode([Record(HEAD, b"{}")])
    assert first.hex() == "010000027b7d"
    assert (sealer.seal(first) + sealer.seal(b"", final=True)).hex() == FRAMES
    opener = FrameOpener(keys.k, keys.iv)
    assert opener.feed(bytes.fromhex(FRAMES)) == [first, b""]
    opener.finish()
