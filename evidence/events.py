"""Shapes of log events: the common frame, and the body of each type this version writes.

    {"v":1,"type","eid","ts","src":{"role","id","boot"},"tn":null,"sev","body":{…}}

Bodies carry identifiers, digests, codes and rounded counts. There is no member that could hold a
prompt, an answer, a salt or an exact token count, and bodies of known types are closed: an event
with a member this list does not name is refused before it is written. Unknown *types* stay opaque.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wire.canonical import encode, parse_evj1
from wire.errors import MalformedError
from wire.ids import b64u

from . import shape
from .leaf import EVENT_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INFER_RECEIPT: Final = "infer.receipt"
WORKER_SESSION: Final = "worker.session"
ATTEST_VERDICT: Final = "attest.verdict"
DIRECTORY_SNAPSHOT: Final = "directory.snapshot"

USAGE_STEP: Final = 64  # exact output lengths identify topics and languages; classes do not
_TYPE = re.compile(r"[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)+")
_CODE = shape.text(64)
_TRUST = shape.optional(shape.one_of("hardware", "vtpm", "simulated", "software"))

BODIES: Final = {
    INFER_RECEIPT: shape.shaped(
        {
            "rid": shape.raw(16),
            "th": shape.raw(32),
            "kid": shape.raw(32),
            "wid": shape.text(64),
            "wseq": shape.whole(),
            "model": shape.text(),
            "use": shape.shaped({"in": shape.whole(), "out": shape.whole()}),
            "status": _CODE,
            "sc": shape.raw(32),
        }
    ),
    WORKER_SESSION: shape.shaped(
        {
            "phase": shape.one_of("open", "close"),
            "wid": shape.text(64),
            "bh": shape.raw(32),
            "sig_pk": shape.raw(32),
            "models": shape.listed(shape.text(), 64),
            "lease_s": shape.whole(0, 86_400),
            "reason": _CODE,
        }
    ),
    ATTEST_VERDICT: shape.shaped(
        {
            "bh": shape.raw(32),
            "ok": shape.flag,
            "kind": shape.text(128),
            "evidence": shape.listed(shape.digest, 8),
            "trust": _TRUST,
            "measurement": shape.optional(shape.digest),
            "policy": shape.digest,
            "reasons": shape.listed(_CODE, 64),
            "checks": shape.listed(
                shape.shaped({"step": shape.text(128), "ok": shape.optional(shape.flag)}), 256
            ),
            "expires": shape.optional(shape.whole()),
        }
    ),
    DIRECTORY_SNAPSHOT: shape.shaped(
        {
            "digest": shape.digest,
            "seq": shape.whole(),
            "aud": shape.text(),
            "issued": shape.whole(),
            "expires": shape.whole(),
            "workers": shape.whole(0, 4096),
        }
    ),
}

_FRAME = shape.shaped(
    {
        "v": shape.whole(1, 1),
        "type": shape.text(64),
        "eid": shape.raw(16),
        "ts": shape.whole(),
        "src": shape.shaped({"role": shape.text(32), "id": shape.text(), "boot": shape.raw(16)}),
        "tn": shape.optional(shape.text(64)),
        "sev": shape.one_of("info", "warn", "error"),
        "body": shape.shaped({}, closed=False),
    },
    closed=False,
)


@dataclass(frozen=True, slots=True)
class Source:
    """Who writes: role (`gateway`), id, and 16 random bytes drawn once per process start."""

    role: str
    id: str
    boot: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """A parsed event. `ts` is milliseconds UTC; `body` of an unknown type is unchecked JSON."""

    type: str
    eid: str
    ts: int
    body: Mapping[str, Any]


def stamp(
    event_type: str, body: Mapping[str, Any], *, eid: bytes, ts: int, source: Source
) -> bytes:
    """Frame a body and return the event's bytes; `MalformedError` if the body does not fit."""
    check_body(event_type, body)
    framed = encode(
        {
            "v": 1,
            "type": event_type,
            "eid": b64u(eid),
            "ts": ts,
            "src": {"role": source.role, "id": source.id, "boot": b64u(source.boot)},
            "tn": None,
            "sev": "info",
            "body": dict(body),
        }
    )
    if len(framed) > EVENT_MAX:
        message = f"event of at most {EVENT_MAX} bytes expected, found {len(framed)}"
        raise MalformedError(message)
    return framed


def parse_event(data: bytes) -> Event:
    """Parse event bytes: canonical, framed, and with the body its type demands."""
    found = parse_evj1(data, EVENT_MAX)
    _FRAME(found, "event")
    check_body(found["type"], found["body"])
    return Event(found["type"], found["eid"], found["ts"], found["body"])


def check_body(event_type: str, body: Mapping[str, Any]) -> None:
    """Check a body against its type's closed shape; bodies of unknown types pass unread."""
    if not _TYPE.fullmatch(event_type):
        message = "event type of dotted lower-case words expected"
        raise MalformedError(message, code="shape_invalid")
    known = BODIES.get(event_type)
    if known is not None:
        known(body, event_type)


def round_usage(tokens: int) -> int:
    """Round a token count up to the next step of 64."""
    return -(-tokens // USAGE_STEP) * USAGE_STEP


def infer_receipt_event(
    *,
    rid: bytes,
    th: bytes,
    kid: bytes,
    wid: str,
    wseq: int,
    model: str,
    tokens_in: int,
    tokens_out: int,
    status: str,
    sc: bytes,
) -> dict[str, Any]:
    """Outer event of one receipt. Pass exact counts: they are rounded here, in one place."""
    return {
        "rid": b64u(rid),
        "th": b64u(th),
        "kid": b64u(kid),
        "wid": wid,
        "wseq": wseq,
        "model": model,
        "use": {"in": round_usage(tokens_in), "out": round_usage(tokens_out)},
        "status": status,
        "sc": b64u(sc),
    }


def worker_session_event(
    *,
    phase: str,
    wid: str,
    bh: bytes,
    sig_pk: bytes,
    models: Sequence[str],
    lease_s: int,
    reason: str = "",
) -> dict[str, Any]:
    """A worker came (`open`) or went (`close`, with a reason code)."""
    return {
        "phase": phase,
        "wid": wid,
        "bh": b64u(bh),
        "sig_pk": b64u(sig_pk),
        "models": list(models),
        "lease_s": lease_s,
        "reason": reason,
    }


def attest_verdict_event(
    *,
    bh: bytes,
    ok: bool,
    kind: str,
    evidence: Sequence[str],
    policy: str,
    trust: str | None = None,
    measurement: str | None = None,
    reasons: Sequence[str] = (),
    checks: Sequence[tuple[str, bool | None]] = (),
    expires: int | None = None,
) -> dict[str, Any]:
    """The gateway's verdict on one binding, written also when it refuses.

    evidence: `sha256:` digests of the evidence bodies; policy: digest of the policy applied;
    reasons: machine codes; checks: (step, result), where None means not run; expires: unix seconds.
    """
    return {
        "bh": b64u(bh),
        "ok": ok,
        "kind": kind,
        "evidence": list(evidence),
        "trust": trust,
        "measurement": measurement,
        "policy": policy,
        "reasons": list(reasons),
        "checks": [{"step": step, "ok": result} for step, result in checks],
        "expires": expires,
    }


def directory_event(
    *, digest: str, seq: int, aud: str, issued: int, expires: int, workers: int
) -> dict[str, Any]:
    """A directory snapshot, by digest: two lists shown to two tenants become visible here."""
    return {
        "digest": digest,
        "seq": seq,
        "aud": aud,
        "issued": issued,
        "expires": expires,
        "workers": workers,
    }
