"""Proof of possession: a sealed `ping` that only the holder of one worker key can answer.

Evidence says that a worker made a key. The answer to a ping says that somebody still holds it who
can also speak through this gateway, before any content is sealed to it.

1. one envelope, op "ping", without a body, wrapped to this key alone
2. a refusal is the gateway's hint or the worker's signed      GatewayError, WorkerNotice
   notice: nobody has proved anything, another may serve
3. the reply answers this request under this key, opens        AttestationError possession_unproven
   under its response secret, and is a HEAD of status 200
   with nothing else
4. its authenticated end is read                               StreamTruncated

A new request id and secret each time: an answer recorded earlier opens nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wire.envelope import CONTENT_TYPE as REQUEST_TYPE
from wire.envelope import SealedRequest, seal_request
from wire.errors import (
    AttestationError,
    MalformedError,
    OpenError,
    ProtocolFailure,
    RecordError,
    SpliceError,
)
from wire.header import PING, RequestHeader
from wire.ids import b64u
from wire.limits import OUT_CLASSES, RID_LEN
from wire.records import HEAD
from wire.response import ResponseReader

from .commands import Read, Steps
from .posting import check_type, post, read_refusal
from .served import HTTP_OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.policy import Policy
    from wire.records import Record

    from .workers import VerifiedWorker

# A worker answers within a frame; longer than this it is too busy to be waited for.
LIFE_S: Final = 30
WHOLE_S: Final = 60.0  # its life, and as much again for the way
HEAD_OF_PING: Final[dict[str, Any]] = {"m": "POST", "p": "/v1/ping", "h": {}}
UNPROVEN: Final = "possession_unproven"


def ping(
    worker: VerifiedWorker, policy: Policy, now: int, rng: Callable[[int], bytes]
) -> Steps[None]:
    """Have one worker prove that it holds its key.

    Args:
        worker: passed every other check.
        policy: names the deployment and whether keys that are not post-quantum may be used.
        now: Unix seconds.
        rng: random bytes.

    Raises:
        AttestationError, GatewayError, WorkerNotice, StreamTruncated: as the module lists.
    """
    sealed = _seal(worker, policy, now, rng)  # 1
    rid = b64u(sealed.header.rid)
    opened = yield from post(
        "/v1/sealed", sealed.envelope, REQUEST_TYPE, rid, begins_s=WHOLE_S, whole_s=WHOLE_S
    )
    if opened.status != HTTP_OK:
        raise (yield from read_refusal(opened, sealed, (worker,)))  # 2
    try:
        check_type(opened)
        yield from _pong(sealed)
    except (MalformedError, OpenError, ProtocolFailure, SpliceError) as error:
        raise AttestationError(
            f"ping of worker {worker.appraised.binding.wid}: {error.message}",
            code=UNPROVEN,
            reasons=(UNPROVEN,),
            hint="its key is not proven to be in the worker's hands: nothing was sealed to it",
        ) from error


def _seal(
    worker: VerifiedWorker, policy: Policy, now: int, rng: Callable[[int], bytes]
) -> SealedRequest:
    binding = worker.appraised.binding
    header = RequestHeader(
        rid=rng(RID_LEN),
        aud=policy.aud,
        op=PING,
        model=binding.models[0].name,
        policy=worker.policy,
        iat=now,
        exp=now + LIFE_S,
        out=OUT_CLASSES[0],
        stream=False,
        pad="off",  # the header says that it is a ping: its answer's size and time hide nothing
        retry="never",
        suite=worker.candidate.suite,
    )
    allowed = not policy.require_pq
    return seal_request(header, [worker.candidate], HEAD_OF_PING, b"", rng, allow_x25519=allowed)


def _pong(sealed: SealedRequest) -> Steps[None]:
    """Steps 3 and 4."""
    reader = ResponseReader(
        sealed.th, sealed.header.rid, sealed.keys, sealed.R, frozenset(sealed.kids)
    )
    answered = False
    while True:
        chunk: bytes = yield Read()
        if not chunk:
            break
        for record in reader.feed(chunk):
            _check(record)  # HEAD comes first and once: the reader sees to that
            answered = True
    reader.finish()
    if not answered:
        raise RecordError("found no HEAD, expected one of status 200")


def _check(record: Record) -> None:
    if record.type != HEAD:
        raise RecordError(f"found a record {record.type.name}, expected HEAD alone")
    status = record.json().get("s")
    if type(status) is not int or status != HTTP_OK:
        found = status if type(status) is int else "none"
        raise RecordError(f"found status {found}, expected {HTTP_OK}")
