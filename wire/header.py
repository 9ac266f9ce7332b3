"""The request header: what the gateway may read, authenticated to the worker by its hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from .canonical import encode as encode_json
from .canonical import parse_strict
from .errors import ClassExceededError, ExpiredError, HeaderError, MalformedError
from .ids import b64u, is_sha256_tag, unb64u
from .limits import (
    CLOCK_SKEW_S,
    HDR_MAX,
    LIFE_MAX_S,
    NAME_MAX,
    OUT_CLASSES,
    PLAINTEXT_MAX,
    PRIORITY_MAX,
    RID_LEN,
    VERSION,
)
from .padding import request_size
from .suites import HYBRID, SUITES

Pad = Literal["cadence", "bucket", "off"]
Retry = Literal["safe", "never"]

PING: Final = "ping"  # asks for nothing but a sign of the key
OPS: Final = frozenset(
    {"chat", "completion", "embed", "vector.query", "vector.write", "admin", PING}
)
PADS: Final = frozenset({"cadence", "bucket", "off"})
RETRIES: Final = frozenset({"safe", "never"})
_TIME_MAX = 2**40  # seconds; a sane clock never gets there, and arithmetic stays small


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeader:
    """Clear members of one request. No user, conversation or content identifier belongs here.

    Attributes:
        rid: 16 random bytes naming the request.
        aud: deployment the request is for.
        op: one of `OPS`.
        model: model name.
        policy: `sha256:` tag of the service policy the client relies on.
        iat, exp: seconds since 1970; `exp − iat` is 1 to 900.
        in_: bytes of padded plaintext ("in" on the wire); `seal_request` fills it.
        out: output token class.
        stream: whether the answer is streamed.
        pad: shaping profile.
        retry: whether the gateway may send the request to a second candidate.
        pri: 0 (default) to 9, within the tenant's own queue.
        suite: HPKE suite of every wrap.
        raw: the bytes received, which alone are hashed; empty on a header being made.
    """

    rid: bytes
    aud: str
    op: str
    model: str
    policy: str
    iat: int
    exp: int
    in_: int = 0
    out: int = OUT_CLASSES[2]
    stream: bool = True
    pad: Pad = "cadence"
    retry: Retry = "safe"
    pri: int = 0
    suite: str = HYBRID
    raw: bytes = field(default=b"", repr=False, compare=False)

    def encode(self) -> bytes:
        """The members as bytes, for a header being made. A received one is `raw`, not this."""
        return encode_json(
            {
                "v": VERSION,
                "suite": self.suite,
                "rid": b64u(self.rid),
                "aud": self.aud,
                "op": self.op,
                "model": self.model,
                "policy": self.policy,
                "iat": self.iat,
                "exp": self.exp,
                "in": self.in_,
                "out": self.out,
                "stream": self.stream,
                "pad": self.pad,
                "retry": self.retry,
                "pri": self.pri,
            }
        )


def parse_header(raw: bytes) -> RequestHeader:
    """The header in `raw`. Unknown members are ignored, yet stay in the hash through `.raw`.

    Raises:
        HeaderError: too long, not one strict JSON object, or a member missing or wrong.
    """
    if len(raw) > HDR_MAX:
        raise HeaderError(f"header: at most {HDR_MAX} bytes, found {len(raw)}")
    try:
        doc = parse_strict(raw, max_bytes=HDR_MAX)
    except MalformedError as cause:
        raise HeaderError(f"header: {cause.message}") from cause
    if not isinstance(doc, dict):
        raise HeaderError("header: expected a JSON object")
    if _int(doc, "v", 0, _TIME_MAX) != VERSION:
        raise HeaderError(f"header: v is not {VERSION}")
    header = RequestHeader(
        rid=_rid(doc),
        aud=_name(doc, "aud"),
        op=_one_of(doc, "op", OPS),
        model=_name(doc, "model"),
        policy=_policy(doc),
        iat=_int(doc, "iat", 0, _TIME_MAX),
        exp=_int(doc, "exp", 0, _TIME_MAX),
        in_=_int(doc, "in", 1, PLAINTEXT_MAX),
        out=_int(doc, "out", OUT_CLASSES[0], OUT_CLASSES[-1]),
        stream=_bool(doc, "stream"),
        pad=cast("Pad", _one_of(doc, "pad", PADS)),
        retry=cast("Retry", _one_of(doc, "retry", RETRIES)),
        pri=_int(doc, "pri", 0, PRIORITY_MAX),
        suite=_one_of(doc, "suite", SUITES.keys()),
        raw=bytes(raw),
    )
    if header.in_ != request_size(header.in_):
        raise HeaderError(f"header: in = {header.in_} is not a padded size")
    if header.out not in OUT_CLASSES:
        raise HeaderError(f"header: out = {header.out} is not an output class")
    if not 1 <= header.exp - header.iat <= LIFE_MAX_S:
        raise HeaderError(
            f"header: exp - iat = {header.exp - header.iat}, expected 1 to {LIFE_MAX_S}"
        )
    return header


def check_times(header: RequestHeader, now: int) -> None:
    """Whether the request may be taken up at `now` (seconds), ±120 s of clock difference.

    Raises:
        ExpiredError: past `exp`, or `iat` lies in the future.
    """
    if now > header.exp + CLOCK_SKEW_S:
        raise ExpiredError(f"request expired {now - header.exp} s ago")
    if now < header.iat - CLOCK_SKEW_S:
        raise ExpiredError(f"request is dated {header.iat - now} s in the future")


def check_class(header: RequestHeader, body_len: int, max_tokens: int) -> None:
    """Whether the opened request stays within what its clear header declared.

    The gateway charged and ordered by the declared classes; a larger request would be service
    taken from other tenants. The worker calls this before it does any work.

    Args:
        header: the authenticated header.
        body_len: bytes of the opened body.
        max_tokens: output tokens the body asks for, after defaults.

    Raises:
        ClassExceededError: either is larger than declared.
    """
    if body_len > header.in_:
        raise ClassExceededError(f"body: declared {header.in_} bytes, found {body_len}")
    if max_tokens > header.out:
        raise ClassExceededError(f"max_tokens: declared class {header.out}, found {max_tokens}")


def _member(doc: dict[str, Any], key: str) -> Any:
    if key not in doc:
        raise HeaderError(f"header: {key} is missing")
    return doc[key]


def _int(doc: dict[str, Any], key: str, low: int, high: int) -> int:
    value = _member(doc, key)
    if type(value) is not int:  # bool is an int to isinstance; true is not a number here
        raise HeaderError(f"header: {key} is {type(value).__name__}, expected an integer")
    if not low <= value <= high:
        raise HeaderError(f"header: {key} is out of range {low} to {high}")
    return value


def _bool(doc: dict[str, Any], key: str) -> bool:
    value = _member(doc, key)
    if not isinstance(value, bool):
        raise HeaderError(f"header: {key} is {type(value).__name__}, expected true or false")
    return value


def _text(doc: dict[str, Any], key: str) -> str:
    value = _member(doc, key)
    if not isinstance(value, str):
        raise HeaderError(f"header: {key} is {type(value).__name__}, expected a string")
    return value


def _name(doc: dict[str, Any], key: str) -> str:
    value = _text(doc, key)
    if not (value and value.isprintable() and len(value) <= NAME_MAX):
        raise HeaderError(f"header: {key} is not 1 to {NAME_MAX} printable characters")
    return value


def _one_of(doc: dict[str, Any], key: str, allowed: frozenset[str] | Any) -> str:
    value = _text(doc, key)
    if value not in allowed:
        raise HeaderError(f"header: {key} is not one of {', '.join(sorted(allowed))}")
    return value


def _rid(doc: dict[str, Any]) -> bytes:
    try:
        return unb64u(_text(doc, "rid"), RID_LEN)
    except HeaderError:
        raise
    except MalformedError as cause:
        raise HeaderError(f"header: rid: {cause.message}") from cause


def _policy(doc: dict[str, Any]) -> str:
    value = _text(doc, "policy")
    if not is_sha256_tag(value):
        raise HeaderError("header: policy is not a sha256: tag")
    return value
