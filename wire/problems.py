"""Problem documents (RFC 9457) the gateway answers with, and how a client reads them.

A problem is an untrusted hint: it may steer a retry, never what the client believes.
"""

from __future__ import annotations

from typing import Any, Final

from .canonical import encode, parse_strict
from .errors import GatewayError, MalformedError
from .limits import PROBLEM_MAX

CONTENT_TYPE: Final = "application/problem+json"
URN: Final = "urn:anchorhold:gw:"

AUTH: Final = URN + "auth"
QUOTA: Final = URN + "quota"
QUEUE_FULL: Final = URN + "queue_full"
EXPIRED: Final = URN + "expired"
NO_WORKER: Final = URN + "no_worker"
REWRAP_NEEDED: Final = URN + "rewrap_needed"
TOO_LARGE: Final = URN + "too_large"
KID_UNKNOWN: Final = URN + "kid_unknown"
BAD_ENVELOPE: Final = URN + "bad_envelope"
NOT_FOUND: Final = URN + "not_found"
BAD_REQUEST: Final = URN + "bad_request"
METHOD: Final = URN + "method"
INTERNAL: Final = URN + "internal"

TYPES: Final = frozenset(
    {
        AUTH,
        QUOTA,
        QUEUE_FULL,
        EXPIRED,
        NO_WORKER,
        REWRAP_NEEDED,
        TOO_LARGE,
        KID_UNKNOWN,
        BAD_ENVELOPE,
        NOT_FOUND,
        BAD_REQUEST,
        METHOD,
        INTERNAL,
    }
)
_RETRY_AFTER_MAX = 3600  # seconds; a gateway cannot park a client for longer


def problem(
    type: str,  # noqa: A002 -- the member's name in RFC 9457
    status: int,
    title: str,
    detail: str = "",
    **ext: object,
) -> dict[str, object]:
    """A problem document ready for JSON.

    Args:
        type: one of `TYPES`.
        status: HTTP status, 400–599.
        title: short sentence, the same for every problem of the type.
        detail: what happened this time, without content; left out when empty.
        ext: further members, e.g. `retry_after` (seconds) or `notice` (a signed worker notice).
    """
    if type not in TYPES:
        raise ValueError(f"problem type: expected one of TYPES, found {type!r}")
    doc: dict[str, object] = {"type": type, "status": status, "title": title}
    if detail:
        doc["detail"] = detail
    return doc | ext


def encode_problem(doc: dict[str, object]) -> bytes:
    """Bytes of a problem document as sent."""
    return encode(doc)


def parse_problem(status: int, content_type: str | None, body: bytes) -> GatewayError:
    """The hint in a non-200 answer; never raises, since any bytes may come.

    Args:
        status: HTTP status received.
        content_type: the answer's Content-Type, or None.
        body: the answer's body.
    """
    media = (content_type or "").split(";", 1)[0].strip().lower()
    doc: Any = None
    if media == CONTENT_TYPE:
        try:
            doc = parse_strict(body, max_bytes=PROBLEM_MAX)
        except MalformedError:
            doc = None
    if not isinstance(doc, dict):
        return GatewayError(status=status)
    kind = doc.get("type")
    words = [doc[key] for key in ("title", "detail") if isinstance(doc.get(key), str)]
    wait = doc.get("retry_after")
    notice = doc.get("notice")
    return GatewayError(
        status=status,
        type=kind if isinstance(kind, str) and kind in TYPES else "",
        text=": ".join(words),
        retry_after=min(wait, _RETRY_AFTER_MAX) if type(wait) is int and wait >= 0 else None,
        notice=notice if isinstance(notice, dict) else None,
    )
