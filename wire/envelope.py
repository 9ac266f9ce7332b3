"""The request envelope: sealed by a client, parsed by a gateway, opened by one worker.

    "AHQ1" ‖ u32 len(hdr) ‖ hdr ‖ commit[32] ‖ wraps ‖ frames … FINAL

The gateway's `parse_envelope` uses no key. `open_envelope` is the worker's; its numbered steps are
those of the specification, §7.3.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .errors import EnvelopeError, KidUnknownError, MalformedError, OpenError
from .framing import FrameOpener, parse_frame_head
from .header import RequestHeader, parse_header
from .limits import ENVELOPE_MAX, FRAME_HEAD, HDR_MAX, REQUEST_FRAMES_MAX, TAG_LEN
from .records import DATA, HEAD, decode
from .schedule import SECRET_LEN, RequestKeys, transcript_hash, wrap_info
from .sealing import MAGIC, SealedRequest, seal_request
from .wraps import Candidate, Wrap, encode_wraps, parse_wraps, read_wraps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .replay import ReplaySet
    from .suites import PrivateKey, Suite

__all__ = [
    "Candidate",
    "Envelope",
    "OpenedRequest",
    "SealedRequest",
    "Wrap",
    "encode_wraps",
    "open_envelope",
    "parse_envelope",
    "parse_wraps",
    "seal_request",
]

COMMIT_LEN: Final = 32
CONTENT_TYPE: Final = "application/vnd.anchorhold.request"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope; nothing in it is authenticated yet.

    Attributes:
        hdr_raw: header bytes as received.
        header: their parsed members.
        commit: key commitment (32 bytes).
        wraps: one per candidate.
        frames: the request's frames, through the final one.
    """

    hdr_raw: bytes = field(repr=False)
    header: RequestHeader
    commit: bytes = field(repr=False)
    wraps: tuple[Wrap, ...]
    frames: memoryview = field(repr=False)

    @property
    def th(self) -> bytes:
        """Transcript hash (32 bytes)."""
        return transcript_hash(self.hdr_raw)

    @property
    def kids(self) -> tuple[bytes, ...]:
        """Candidates, in the order received."""
        return tuple(entry.kid for entry in self.wraps)

    @property
    def ct_hash(self) -> bytes:
        """SHA-256 of the frames, which a receipt names."""
        return hashlib.sha256(self.frames).digest()

    def encode(self, wraps: Sequence[Wrap] | None = None) -> bytes:
        """The envelope's bytes, with other wraps where given (after a late re-wrap)."""
        listed = encode_wraps(self.wraps if wraps is None else wraps)
        size = len(self.hdr_raw).to_bytes(4, "big")
        return b"".join((MAGIC, size, self.hdr_raw, self.commit, listed, self.frames))


def parse_envelope(buf: bytes) -> Envelope:
    """Cut an envelope into its parts, with every limit checked and no key used.

    1. overall size, magic
    2. header length and members
    3. commitment, wraps: count, lengths of the header's suite, no kid twice
    4. frame headers: flags, lengths, one FINAL, nothing after it
    5. the frames' plaintext is exactly what the header declares as `in`

    Raises:
        EnvelopeError: steps 1, 3, 5.
        HeaderError: step 2.
        FrameError: step 4.
    """
    # 1
    if len(buf) > ENVELOPE_MAX:
        raise EnvelopeError(f"envelope: at most {ENVELOPE_MAX} bytes, found {len(buf)}")
    view = memoryview(buf)
    if bytes(view[:4]) != MAGIC:
        raise EnvelopeError(f"envelope: expected to begin with {MAGIC.decode()}")
    # 2
    size = int.from_bytes(view[4:8], "big")
    if size > HDR_MAX:
        raise EnvelopeError(f"envelope: header of {size} bytes, at most {HDR_MAX}")
    at = 8 + size + COMMIT_LEN
    if len(view) < at:
        raise EnvelopeError("envelope: cut short before its wraps")
    header = parse_header(bytes(view[8 : 8 + size]))
    # 3
    commit = bytes(view[8 + size : at])
    wraps, at = read_wraps(view, at, header.suite)
    # 4
    frames = view[at:]
    plaintext = _walk(frames)
    # 5
    if plaintext != header.in_:
        raise EnvelopeError(f"envelope: in = {header.in_}, found frames of {plaintext} bytes")
    return Envelope(header.raw, header, commit, wraps, frames)


def _walk(frames: memoryview) -> int:
    """Plaintext bytes of a complete stream of frames, from their headers alone."""
    total = at = count = 0
    final = False
    while not final:
        if len(frames) - at < FRAME_HEAD:
            raise EnvelopeError("envelope: ends before its final frame")
        final, length = parse_frame_head(bytes(frames[at : at + FRAME_HEAD]))
        at += FRAME_HEAD + length
        total += length - TAG_LEN
        count += 1
        if count > REQUEST_FRAMES_MAX:
            raise EnvelopeError(f"envelope: more than {REQUEST_FRAMES_MAX} frames")
        if at > len(frames):
            raise EnvelopeError("envelope: ends inside a frame")
    if at != len(frames):
        raise EnvelopeError(f"envelope: {len(frames) - at} bytes follow the final frame")
    return total


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request whose every byte was authenticated to this worker. Content stays out of `repr`.

    Attributes:
        header: authenticated clear members.
        th: transcript hash.
        kid: the key it was opened with.
        keys: keys of the request direction (`rs` and `salt_q` are used for the answer).
        r_kid: response secret of this candidate.
        head: members of the HEAD record.
        body: the request body, exactly `head["n"]` bytes.
        ct_hash: SHA-256 of the request's frames.
    """

    header: RequestHeader
    th: bytes
    kid: bytes
    keys: RequestKeys = field(repr=False)
    r_kid: bytes = field(repr=False)
    head: dict[str, Any] = field(repr=False)
    body: bytes = field(repr=False)
    ct_hash: bytes = field(repr=False)


def open_envelope(
    env: Envelope, kid: bytes, sk: PrivateKey, suite: Suite, *, replay: ReplaySet | None = None
) -> OpenedRequest:
    """Open an envelope with one of the worker's keys.

    1. a wrap for `kid` is there, and the header's suite is the key's
    2. the wrap opens, bound to this kid and this header, to 64 bytes
    3. the commitment is that of the secret found
    4. the request was not taken up under this key before (where `replay` is given)
    5. every frame opens, in order, to the final one
    6. the records are one HEAD, then DATA of exactly the length HEAD declares

    Times and classes are the worker's next checks (`header.check_times`, `header.check_class`).

    Raises:
        KidUnknownError: step 1.
        ReplayError, BusyError: step 4.
        OpenError: any other step; one code, so that a gateway which alters an envelope learns
            nothing from where it failed.
    """
    # 1
    wrap = next((entry.wrap for entry in env.wraps if entry.kid == kid), None)
    if wrap is None or env.header.suite != suite.name:
        raise KidUnknownError("no wrap of the envelope is for this key")
    th = env.th
    # 2
    secret = suite.open(sk, wrap_info(kid, th), wrap)
    if len(secret) != 2 * SECRET_LEN:
        raise OpenError("the wrapped secret did not open")
    # 3
    keys = RequestKeys.derive(th, secret[:SECRET_LEN])
    if not hmac.compare_digest(keys.commit, env.commit):
        raise OpenError("the key commitment does not hold")
    # 4
    if replay is not None:
        replay.enter(th)
    # 5, 6
    try:
        opener = FrameOpener(keys.k, keys.iv)
        plaintexts = opener.feed(env.frames)
        opener.finish()
        head, body = _assemble(plaintexts)
    except MalformedError as cause:
        raise OpenError("the request did not open") from cause
    return OpenedRequest(env.header, th, kid, keys, secret[SECRET_LEN:], head, body, env.ct_hash)


def _assemble(plaintexts: Sequence[bytes]) -> tuple[dict[str, Any], bytes]:
    records = [record for pt in plaintexts for record in decode(pt)]
    if not records or records[0].type != HEAD:
        raise EnvelopeError("request: the first record is not HEAD")
    if any(record.type != DATA for record in records[1:]):
        raise EnvelopeError("request: only DATA follows HEAD")
    head = records[0].json()
    body = b"".join(record.data for record in records[1:])
    if type(head.get("n")) is not int or head["n"] != len(body):
        raise EnvelopeError("request: DATA does not sum to the length HEAD declares")
    return head, body
