"""The key schedule: from one random secret and one header to every key of an exchange.

    th    = SHA-256("anchorhold/1 hdr\\0" ‖ u32 len(hdr) ‖ hdr)
    prk   = HKDF-Extract(salt = th, ikm = s)
    prk_r = HKDF-Extract(salt = SHA-256("anchorhold/1 resp\\0" ‖ th ‖ kid ‖ u32 len(rhdr) ‖ rhdr),
                         ikm = rs ‖ r_kid)

Every label ends the same way in both directions of the protocol; none is ever reused (spec §5).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

SECRET_LEN: Final = 32


def transcript_hash(hdr: bytes) -> bytes:
    """`th`: 32 bytes naming the header as received."""
    return hashlib.sha256(b"anchorhold/1 hdr\0" + len(hdr).to_bytes(4, "big") + hdr).digest()


def r_kid(R: bytes, kid: bytes) -> bytes:  # noqa: N803 -- the name in the specification
    """The response secret for one candidate: 32 bytes; `R` itself never leaves the client."""
    return _expand(R, b"anchorhold/1 r\0" + kid, SECRET_LEN)


def wrap_info(kid: bytes, th: bytes) -> bytes:
    """HPKE `info` of a wrap: ties it to one recipient and one header."""
    return b"anchorhold/1 wrap\0" + kid + th


@dataclass(frozen=True, slots=True, repr=False)
class RequestKeys:
    """Keys of the request direction; shared by the client and every candidate.

    Attributes:
        prk: HKDF pseudorandom key.
        commit: key commitment, in the clear before the frames.
        k, iv: AES-256-GCM key and base nonce of the frames.
        rs: response secret all candidates know; not enough to answer without `r_kid`.
        salt_q: salt of prompt commitments; the gateway never learns it.
    """

    prk: bytes
    commit: bytes
    k: bytes
    iv: bytes
    rs: bytes
    salt_q: bytes

    @classmethod
    def derive(cls, th: bytes, s: bytes) -> RequestKeys:
        """From the transcript hash and the request secret (32 bytes each)."""
        prk = _extract(th, s)
        return cls(
            prk=prk,
            commit=_expand(prk, b"anchorhold/1 commit", 32),
            k=_expand(prk, b"anchorhold/1 req key", 32),
            iv=_expand(prk, b"anchorhold/1 req iv", 12),
            rs=_expand(prk, b"anchorhold/1 resp secret", SECRET_LEN),
            salt_q=_expand(prk, b"anchorhold/1 req salt", 32),
        )


@dataclass(frozen=True, slots=True, repr=False)
class ResponseKeys:
    """Keys of one response stream; known to the client and the one worker that answers.

    Attributes:
        prk_r: HKDF pseudorandom key.
        k, iv: AES-256-GCM key and base nonce of the frames.
        salt_r: salt of output commitments.
    """

    prk_r: bytes
    k: bytes
    iv: bytes
    salt_r: bytes

    @classmethod
    def derive(cls, th: bytes, kid: bytes, rhdr: bytes, rs: bytes, r_kid: bytes) -> ResponseKeys:
        """From the request (`th`, `rs`), the candidate (`kid`, `r_kid`) and its `rhdr` bytes."""
        size = len(rhdr).to_bytes(4, "big")
        salt = hashlib.sha256(b"anchorhold/1 resp\0" + th + kid + size + rhdr).digest()
        prk_r = _extract(salt, rs + r_kid)
        return cls(
            prk_r=prk_r,
            k=_expand(prk_r, b"anchorhold/1 resp key", 32),
            iv=_expand(prk_r, b"anchorhold/1 resp iv", 12),
            salt_r=_expand(prk_r, b"anchorhold/1 resp salt", 32),
        )


def _extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, ikm, "sha256")


def _expand(prk: bytes, info: bytes, n: int) -> bytes:
    """HKDF-Expand; no output here is longer than one hash (32 bytes), so it is a single step."""
    return hmac.digest(prk, info + b"\x01", "sha256")[:n]
