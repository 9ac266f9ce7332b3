"""Posting sealed bytes, and reading whatever comes back that is not a sealed response.

A refusal is the gateway's hint, unless it carries a notice signed by the attested key of a
candidate. A success of any other type than a sealed response is a protocol failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wire.errors import GatewayError, ProtocolFailure, StreamTruncated, WorkerNotice
from wire.limits import CLOCK_SKEW_S, PROBLEM_MAX
from wire.notice import notice_kid, verify_notice
from wire.problems import REWRAP_NEEDED
from wire.response import CONTENT_TYPE as RESPONSE_TYPE

from .commands import FETCH_S, MARGIN_S, Close, Opened, Read, Send, Shorten, Steps
from .served import media_type, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wire.envelope import SealedRequest

    from .workers import VerifiedWorker


def begins_within(life_s: float) -> float:
    """Seconds after which no honest gateway begins to answer a request of such a life.

    It may come slowly, and is taken for as long as it lives: by the gateway's clock, which may be
    behind, and with what is added for clocks that differ. After its last byte the gateway may be
    silent for as long as one read may take: while it waits in line, and runs.
    """
    return (life_s + 2 * CLOCK_SKEW_S) + (life_s + MARGIN_S)


def post(
    path: str,
    body: bytes,
    content_type: str,
    rid: str,
    *,
    begins_s: float,
    whole_s: float | None = None,
) -> Steps[Opened]:
    """Send sealed bytes under a request id (text form); the reply stays open.

    Args:
        begins_s: seconds until the reply has begun, header and all.
        whole_s: seconds until it has ended; None for as long as an answer runs.
    """
    opened = yield Send(path, body, content_type, rid, begins_s, whole_s)
    assert isinstance(opened, Opened)
    return opened


def check_type(opened: Opened) -> None:
    """A success must be a sealed response. Anything else, however plausible, is never shown.

    Raises:
        ProtocolFailure: another type.
    """
    media = media_type(opened.content_type)
    if media != RESPONSE_TYPE:
        raise ProtocolFailure(
            f"gateway: a 200 of type {RESPONSE_TYPE} expected, found {media[:64]!r}",
            hint="something between here and the worker answers in its place",
        )


def read_refusal(
    opened: Opened,
    sealed: SealedRequest,
    candidates: Iterable[VerifiedWorker],
    whole_s: float = FETCH_S,
) -> Steps[GatewayError]:
    """Read a refusal. Returns the gateway's hint, or raises the worker's verified notice.

    Only an answer may run as long as it runs: a refusal that drips has an end. One that is not
    whole by then, or broke off, is a refusal by its status alone.

    Args:
        opened: a reply of another status than 200.
        sealed: the request it answers.
        candidates: everybody that request was wrapped to.
        whole_s: seconds that the rest of the reply may take in all.

    Raises:
        WorkerNotice: signed by the attested key of a candidate, about this request.
        ProtocolFailure: claims to be one and is not.
    """
    yield Shorten(whole_s)
    body = b""
    try:
        while chunk := (yield Read()):
            body += chunk
            if len(body) > PROBLEM_MAX:
                break
    except StreamTruncated:
        body = b""
    yield Close()
    error = refusal(opened.status, opened.content_type, body)
    if error.notice is not None and error.type != REWRAP_NEEDED:
        raise _notice(error.notice, sealed, candidates)
    return error


def _notice(
    document: dict[str, object], sealed: SealedRequest, candidates: Iterable[VerifiedWorker]
) -> WorkerNotice:
    kid = notice_kid(document)
    worker = next((worker for worker in candidates if worker.kid == kid), None)
    if worker is None:
        raise ProtocolFailure("worker notice: from a key that was not a candidate")
    code = verify_notice(document, worker.sig_pk, sealed.header.rid, sealed.th, sealed.kids)
    return WorkerNotice(
        f"worker {worker.appraised.binding.wid}: refused the request ({code})", code=code
    )
