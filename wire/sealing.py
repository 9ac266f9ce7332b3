"""Sealing a request: the client's half of the envelope.

The secrets stay in one `SealedRequest`, which lives as long as the exchange: they read the answer,
and let the request be wrapped to other workers without being encrypted again.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from .errors import MalformedError, ProtocolFailure
from .framing import FrameSealer
from .header import RequestHeader, parse_header
from .limits import BODY_MAX, K_MAX, REQUEST_HEAD_MAX, REWRAPS_MAX
from .packing import RecordQueue, paginate
from .records import DATA, HEAD, Record, encode, json_record
from .schedule import SECRET_LEN, RequestKeys, transcript_hash
from .wraps import Candidate, check_candidates, encode_wraps, seal_wraps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAGIC: Final = b"AHQ1"


class SealedRequest:
    """A request on its way: the bytes to send and the secrets to read the answer with.

    Attributes:
        header: the header as sent.
        envelope: bytes to post.
        th: transcript hash (32 bytes).
        keys: keys of the request direction.
        kids: every key the request was ever wrapped to, first ones first.
        R: secret from which each candidate's response secret comes; never sent.
        ct_hash: SHA-256 of the request's frames.
    """

    __slots__ = (
        "R",
        "_allow_x25519",
        "_rewraps",
        "_s",
        "ct_hash",
        "envelope",
        "header",
        "keys",
        "kids",
        "th",
    )

    def __init__(
        self,
        header: RequestHeader,
        envelope: bytes,
        kids: tuple[bytes, ...],
        secrets: tuple[bytes, bytes, RequestKeys],
        ct_hash: bytes,
        allow_x25519: bool,
    ) -> None:
        self.header = header
        self.envelope = envelope
        self.th = transcript_hash(header.raw)
        self.kids = kids
        self._s, self.R, self.keys = secrets
        self.ct_hash = ct_hash
        self._allow_x25519 = allow_x25519
        self._rewraps = 0

    def rewrap(self, candidates: Sequence[Candidate]) -> bytes:
        """A wrap list for other candidates: the body is not sent, nor encrypted, again.

        A lying gateway could ask for this to widen who can open the request, so it works twice at
        most, and no request is ever wrapped to more than eight keys.

        Raises:
            ProtocolFailure: one re-wrap or one key too many.
        """
        check_candidates(candidates, self.header.suite, self._allow_x25519)
        fresh = tuple(c.kid for c in candidates if c.kid not in self.kids)
        if self._rewraps >= REWRAPS_MAX:
            raise ProtocolFailure(f"re-wrap: at most {REWRAPS_MAX} for one request")
        if len(self.kids) + len(fresh) > K_MAX:
            raise ProtocolFailure(f"re-wrap: at most {K_MAX} keys for one request")
        self._rewraps += 1
        self.kids += fresh
        return encode_wraps(seal_wraps(candidates, self.th, self._s, self.R))


def seal_request(
    header: RequestHeader,
    candidates: Sequence[Candidate],
    head: dict[str, Any],
    body: bytes,
    rng: Callable[[int], bytes],
    *,
    allow_x25519: bool = False,
) -> SealedRequest:
    """Seal one request to its candidates.

    Args:
        header: clear members; `in_` is filled in here.
        candidates: 1 to 8 verified worker keys, all of the header's suite.
        head: members of the HEAD record ("m", "p", "h", …); "n" is filled in here.
        body: the request body, at most 8 MiB.
        rng: random bytes; called twice for 32.
        allow_x25519: whether the caller's policy accepts a suite without post-quantum protection.

    Raises:
        ValueError: the caller's mistake: sizes, suite, candidates, an impossible header.
    """
    check_candidates(candidates, header.suite, allow_x25519)
    if len(body) > BODY_MAX:
        raise ValueError(f"body: at most {BODY_MAX} bytes, found {len(body)}")
    first = json_record(HEAD, {**head, "n": len(body)})
    if first.size > REQUEST_HEAD_MAX:
        raise ValueError(f"head: at most {REQUEST_HEAD_MAX} bytes, found {first.size}")
    queue = RecordQueue()
    queue.push(first)
    queue.push(Record(DATA, body))
    frames = paginate(queue)
    raw = replace(header, in_=sum(size for _, size in frames), raw=b"").encode()
    try:
        header = parse_header(raw)
    except MalformedError as cause:
        raise ValueError(cause.message) from cause
    s, big_r = rng(SECRET_LEN), rng(SECRET_LEN)
    th = transcript_hash(raw)
    keys = RequestKeys.derive(th, s)
    sealer = FrameSealer(keys.k, keys.iv)
    sealed = b"".join(
        sealer.seal(encode(records, size), final=i == len(frames))
        for i, (records, size) in enumerate(frames, start=1)
    )
    wraps = encode_wraps(seal_wraps(candidates, th, s, big_r))
    return SealedRequest(
        header,
        b"".join((MAGIC, len(raw).to_bytes(4, "big"), raw, keys.commit, wraps, sealed)),
        tuple(candidate.kid for candidate in candidates),
        (s, big_r, keys),
        hashlib.sha256(sealed).digest(),
        allow_x25519,
    )
