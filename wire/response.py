"""The sealed response: written by one worker, readable by the one client that asked.

    "AHR1" ‖ u32 len(rhdr) ‖ rhdr ‖ frames … FINAL      rhdr = {"v":1,"rid","kid","att","rn"}

The key mixes a secret only this worker was given, so the other candidates, who know the request,
still cannot answer for it. Spec §8.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from .canonical import encode as encode_json
from .canonical import parse_strict
from .errors import (
    AnchorholdError,
    FrameError,
    MalformedError,
    ProtocolFailure,
    RecordError,
    SpliceError,
    StreamTruncated,
)
from .framing import FrameOpener, FrameSealer
from .ids import b64u, unb64u
from .limits import RESPONSE_FRAMES_MAX, RHDR_MAX, VERSION
from .records import HEAD, RECEIPT, Record, decode, encode
from .schedule import RequestKeys, ResponseKeys, r_kid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .shaping import FramePlan

MAGIC: Final = b"AHR1"
CONTENT_TYPE: Final = "application/vnd.anchorhold.response"
_PRELUDE_HEAD = 8  # magic and header length


class ResponseWriter:
    """Writes one response stream.

    Args:
        th: transcript hash of the request.
        kid: the key the request was opened with.
        rid: request id.
        rs: response secret shared by the candidates (`RequestKeys.rs`).
        r_kid: this candidate's response secret.
        rng: random bytes; called once for 32. Even a repeated value cannot repeat a key, since
            a request is answered once per key (replay set).
        attempt: 1 for the first candidate tried.
    """

    __slots__ = ("_digest", "_rhdr", "_sealer", "frames", "salt_r")

    def __init__(
        self,
        th: bytes,
        kid: bytes,
        rid: bytes,
        rs: bytes,
        r_kid: bytes,
        rng: Callable[[int], bytes],
        attempt: int = 1,
    ) -> None:
        self._rhdr = encode_json(
            {
                "v": VERSION,
                "rid": b64u(rid),
                "kid": b64u(kid),
                "att": attempt,
                "rn": b64u(rng(32)),
            }
        )
        keys = ResponseKeys.derive(th, kid, self._rhdr, rs, r_kid)
        self._sealer = FrameSealer(keys.k, keys.iv)
        self._digest = hashlib.sha256()
        self.salt_r = keys.salt_r
        self.frames = 0

    def prelude(self) -> bytes:
        """The bytes before the first frame."""
        return MAGIC + len(self._rhdr).to_bytes(4, "big") + self._rhdr

    def frame(
        self, records: Iterable[Record], size: int | None = None, final: bool = False
    ) -> bytes:
        """One frame: `records`, padded with zeros to `size` plaintext bytes where given."""
        sealed = self._sealer.seal(encode(records, size), final)
        if not final:
            self._digest.update(sealed)
            self.frames += 1
        return sealed

    def write(self, plans: Iterable[FramePlan]) -> bytes:
        """The frames a shaper planned."""
        return b"".join(self.frame(plan.records, plan.size, plan.final) for plan in plans)

    @property
    def complete(self) -> bool:
        """Whether the final frame was written."""
        return self._sealer.final

    @property
    def ct_hash(self) -> bytes:
        """SHA-256 of the `frames` frames so far, without the final one, which holds the receipt."""
        return self._digest.digest()


class ResponseReader:
    """Reads one response stream as bytes arrive, in any cut.

    Args:
        th, rid: of the request that was sent.
        keys: its request keys.
        R: its response secret (`SealedRequest.R`).
        kids: every key it was wrapped to so far.
        frames_max: frames accepted, the final one aside; the hash of each is kept.

    Attributes:
        kid: the key that answered, once the prelude was read.
        attempt: the attempt number the worker states.
        salt_r: salt of the output commitments, once the prelude was read.
        frames: frames read so far, without the final one.
        has_receipt: whether a RECEIPT record arrived.
    """

    __slots__ = (
        "_R",
        "_failed",
        "_frames_max",
        "_keys",
        "_kids",
        "_opener",
        "_prelude",
        "_rid",
        "_th",
        "attempt",
        "has_head",
        "has_receipt",
        "kid",
        "salt_r",
    )

    def __init__(
        self,
        th: bytes,
        rid: bytes,
        keys: RequestKeys,
        R: bytes,  # noqa: N803 -- the name in the specification
        kids: Collection[bytes],
        frames_max: int = RESPONSE_FRAMES_MAX,
    ) -> None:
        self._frames_max = frames_max
        self._th = th
        self._rid = rid
        self._keys = keys
        self._R = R
        self._kids = frozenset(kids)
        self._prelude = bytearray()
        self._opener: FrameOpener | None = None
        self._failed: AnchorholdError | None = None
        self.kid: bytes | None = None
        self.attempt: int | None = None
        self.salt_r: bytes | None = None
        self.has_head = False
        self.has_receipt = False

    def feed(self, chunk: bytes) -> list[Record]:
        """The records completed by `chunk`, in order.

        Raises:
            ProtocolFailure: this is not a sealed response.
            SpliceError: it answers another request, or comes from a key that was no candidate.
            OpenError, FrameError, RecordError: a frame was altered, or is not what it must be.
        """
        if self._failed is not None:
            raise self._failed
        try:
            return self._feed(chunk)
        except AnchorholdError as cause:
            self._failed = cause
            raise

    def _feed(self, chunk: bytes) -> list[Record]:
        if self._opener is None:
            self._prelude += chunk
            chunk = self._read_prelude()
        if self._opener is None:
            return []
        found: list[Record] = []
        plaintexts = self._opener.feed(chunk)
        if self.frames > self._frames_max:
            raise FrameError(f"response: at most {self._frames_max} frames expected")
        for pt in plaintexts:
            records = decode(pt)
            self._check_order(records)
            found += records
        return found

    def _read_prelude(self) -> bytes:
        """Set the stream's keys once the prelude is whole; returns the bytes after it.

        1. magic and length   2. header members   3. our request id   4. one of our candidates
        """
        got = self._prelude
        # 1
        if bytes(got[:4]) != MAGIC[: len(got)]:
            raise ProtocolFailure("response: not a sealed response")
        if len(got) < _PRELUDE_HEAD:
            return b""
        size = int.from_bytes(got[4:_PRELUDE_HEAD], "big")
        if size > RHDR_MAX:
            raise ProtocolFailure(f"response: header of {size} bytes, at most {RHDR_MAX}")
        end = _PRELUDE_HEAD + size
        if len(got) < end:
            return b""
        # 2
        rhdr = bytes(got[_PRELUDE_HEAD:end])
        rid, kid, attempt = _parse_rhdr(rhdr)
        # 3
        if rid != self._rid:
            raise SpliceError("response: answers another request")
        # 4
        if kid not in self._kids:
            raise SpliceError("response: from a key that was not a candidate")
        keys = ResponseKeys.derive(self._th, kid, rhdr, self._keys.rs, r_kid(self._R, kid))
        self._opener = FrameOpener(keys.k, keys.iv, hash_frames=True)
        self.kid, self.attempt, self.salt_r = kid, attempt, keys.salt_r
        rest = bytes(got[end:])
        got.clear()
        return rest

    def _check_order(self, records: list[Record]) -> None:
        """HEAD opens the stream and comes once; RECEIPT closes it."""
        if not self.has_head and (not records or records[0].type != HEAD):
            raise RecordError("response: frame 0 does not begin with HEAD")
        for record in records:
            if record.type == HEAD and self.has_head:
                raise RecordError("response: a second HEAD")
            if self.has_receipt:
                raise RecordError("response: a record follows RECEIPT")
            self.has_head = True
            self.has_receipt = record.type == RECEIPT

    @property
    def complete(self) -> bool:
        """Whether the authenticated end was read."""
        return self._opener is not None and self._opener.final

    @property
    def frames(self) -> int:
        """Frames opened so far, without the final one."""
        return 0 if self._opener is None else len(self._opener.digests)

    def ct_hash_at(self, frames: int) -> bytes:
        """SHA-256 of the first `frames` frames: what a receipt's `resp.ct` is compared with.

        Raises:
            FrameError: that many frames were not read.
        """
        if frames == 0:
            return hashlib.sha256().digest()
        digests = [] if self._opener is None else self._opener.digests
        if not 0 < frames <= len(digests):
            raise FrameError(f"response: {len(digests)} frames were read, asked for {frames}")
        return digests[frames - 1]

    @property
    def ct_hash(self) -> bytes:
        """SHA-256 of all frames read, without the final one."""
        return self.ct_hash_at(self.frames)

    def finish(self) -> None:
        """Called at the end of input.

        Raises:
            StreamTruncated: the stream ended before its authenticated end.
        """
        if self._failed is not None:
            raise self._failed
        if not self.complete:
            raise StreamTruncated(
                "the response ended before its authenticated end",
                hint="What was delivered is incomplete; send the request again.",
            )


def _parse_rhdr(rhdr: bytes) -> tuple[bytes, bytes, int]:
    """Request id, key id and attempt of a response header."""
    try:
        doc = parse_strict(rhdr, max_bytes=RHDR_MAX)
        if not isinstance(doc, dict) or type(doc.get("v")) is not int or doc["v"] != VERSION:
            raise ProtocolFailure(f"response header: expected an object with v = {VERSION}")
        attempt = doc.get("att")
        if type(attempt) is not int or attempt < 1:
            raise ProtocolFailure("response header: att is not a positive integer")
        unb64u(doc.get("rn", ""), 32)
        return unb64u(doc.get("rid", ""), 16), unb64u(doc.get("kid", ""), 32), attempt
    except MalformedError as cause:
        raise ProtocolFailure(f"response header: {cause.message}") from None
