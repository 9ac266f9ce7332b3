"""Wraps: the request secret, sealed once to each candidate worker.

    wraps = u8 K ‖ K × ( kid[32] ‖ u16 wlen ‖ wrap[wlen] )

The same bytes stand in an envelope and are the whole body of a late re-wrap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .errors import EnvelopeError
from .ids import b64u, kid_of
from .limits import K_MAX
from .schedule import r_kid, wrap_info
from .suites import HYBRID, SUITES

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENT_TYPE: Final = "application/vnd.anchorhold.wraps"
KID_LEN: Final = 32
_WRAP_LENS = frozenset(suite.wrap_len for suite in SUITES.values())


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker key the client verified and drew: kid (32 bytes), suite name, public key bytes."""

    kid: bytes
    suite: str
    pk: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wrap:
    """One candidate's wrap as received: kid (32 bytes) and HPKE output."""

    kid: bytes
    wrap: bytes = field(repr=False)


def check_candidates(candidates: Sequence[Candidate], suite: str, allow_x25519: bool) -> None:
    """Whether a request of `suite` may be sealed to `candidates`; a mistake here is the caller's.

    Raises:
        ValueError: none or too many, repeated, of another suite, a kid that does not name its key,
            or a suite without post-quantum protection that the caller's policy did not allow.
    """
    if not 1 <= len(candidates) <= K_MAX:
        raise ValueError(f"candidates: expected 1 to {K_MAX}, found {len(candidates)}")
    if len({candidate.kid for candidate in candidates}) != len(candidates):
        raise ValueError("candidates: a key is listed twice")
    if not (SUITES[suite].post_quantum or allow_x25519):
        raise ValueError(f"suite {suite}: the policy does not allow it (expected {HYBRID})")
    for candidate in candidates:
        if candidate.suite != suite:
            raise ValueError(f"candidate suite: expected {suite}, found {candidate.suite}")
        if kid_of(candidate.suite, candidate.pk) != candidate.kid:
            raise ValueError(f"candidate {b64u(candidate.kid)}: the kid does not name its key")


def seal_wraps(candidates: Sequence[Candidate], th: bytes, s: bytes, R: bytes) -> tuple[Wrap, ...]:  # noqa: N803 -- the name in the specification
    """One wrap of `s ‖ r_kid` for each candidate, in order."""
    return tuple(
        Wrap(
            candidate.kid,
            SUITES[candidate.suite].seal(
                candidate.pk, wrap_info(candidate.kid, th), s + r_kid(R, candidate.kid)
            ),
        )
        for candidate in candidates
    )


def encode_wraps(wraps: Sequence[Wrap]) -> bytes:
    """Bytes of a wrap list."""
    if not 1 <= len(wraps) <= K_MAX:
        raise ValueError(f"wraps: expected 1 to {K_MAX}, found {len(wraps)}")
    entries = (entry.kid + len(entry.wrap).to_bytes(2, "big") + entry.wrap for entry in wraps)
    return bytes([len(wraps)]) + b"".join(entries)


def parse_wraps(buf: bytes | memoryview, suite: str | None = None) -> tuple[Wrap, ...]:
    """The wraps that are the whole of `buf`.

    Args:
        buf: body of a late re-wrap.
        suite: the request's suite; None accepts the lengths of any one suite.

    Raises:
        EnvelopeError: not exactly one well-formed wrap list.
    """
    wraps, at = read_wraps(memoryview(buf), 0, suite)
    if at != len(buf):
        raise EnvelopeError(f"wraps: {len(buf) - at} bytes follow the list")
    return wraps


def read_wraps(view: memoryview, at: int, suite: str | None) -> tuple[tuple[Wrap, ...], int]:
    """The wrap list at `at` and where it ends.

    Raises:
        EnvelopeError: K outside 1 to 8, a length that is not the suite's, a repeated kid, or the
            buffer ends.
    """
    if at >= len(view):
        raise EnvelopeError("wraps: cut short")
    count = view[at]
    if not 1 <= count <= K_MAX:
        raise EnvelopeError(f"wraps: K = {count}, expected 1 to {K_MAX}")
    at += 1
    expected = _WRAP_LENS if suite is None else {SUITES[suite].wrap_len}
    found: list[Wrap] = []
    for _ in range(count):
        start = at + KID_LEN + 2
        size = int.from_bytes(view[at + KID_LEN : start], "big")
        if start + size > len(view):
            raise EnvelopeError("wraps: cut short")
        if size not in expected:
            raise EnvelopeError(f"wraps: length {size}, expected {sorted(expected)}")
        expected = {size}
        found.append(Wrap(bytes(view[at : at + KID_LEN]), bytes(view[start : start + size])))
        at = start + size
    if len({entry.kid for entry in found}) != count:
        raise EnvelopeError("wraps: a key is listed twice")
    return tuple(found), at
