"""Reading one sealed reply to its verified end.

1. prelude: our request id, one of our candidates              ProtocolFailure, SpliceError
2. frames open in order under the key of that one worker       OpenError, FrameError, RecordError
3. HEAD says the logical status; a stream then carries TOKENS, a whole answer DATA
4. the authenticated FINAL is read, and nothing after it       StreamTruncated, FrameError
5. a success has a RECEIPT, which verifies (`receipts`)       ReceiptError, RollbackError, ForkError
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from evidence.commit import response_segments
from wire.errors import (
    FrameError,
    ReceiptError,
    RecordError,
    StreamTruncated,
    WorkerNotice,
)
from wire.ids import b64u
from wire.limits import TOKEN_TEXT_MAX
from wire.records import DATA, ERROR, HEAD, RECEIPT, TOKENS, Record, TokenDelta
from wire.response import ResponseReader

from .commands import Emit, Read, Steps
from .events import Answered, Body, Delta, Done
from .receipts import Heard, check_receipt
from .served import HTTP_OK
from .told import ChoiceTold, logprobs_of, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wire.envelope import SealedRequest

    from .calls import Call
    from .verify import Verifier
    from .workers import Candidates, VerifiedWorker

BODY_LIMIT: Final = 64 * 1024 * 1024  # a whole answer; 64k tokens are under 1 MiB
ERROR_STATUS: Final = 400
FINISHES: Final = frozenset({"stop", "length"})
CHOICES_MAX: Final = 128  # of a request; more would be kept for nobody
SCORES_MAX: Final = 20  # alternatives whose log-probability is told with a token's own
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(slots=True)
class _Answer:
    """One answer in the making."""

    call: Call
    sealed: SealedRequest
    candidates: Candidates
    worker: VerifiedWorker | None = None
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    choices: dict[int, ChoiceTold] = field(default_factory=dict)
    text_len: int = 0
    score_len: int = 0
    receipt: bytes | None = None
    error: WorkerNotice | None = None


def receive(
    verifier: Verifier, call: Call, sealed: SealedRequest, candidates: Candidates
) -> Steps[None]:
    """Read the open reply; emits `Answered`, then `Delta`s or `Body`, then `Done`."""
    reader = ResponseReader(
        sealed.th, sealed.header.rid, sealed.keys, sealed.R, frozenset(sealed.kids)
    )
    answer = _Answer(call, sealed, candidates)
    while True:
        chunk: bytes = yield Read()
        if not chunk:
            break
        for record in reader.feed(chunk):  # 1, 2
            yield from _take(answer, reader, record)  # 3
    reader.finish()  # 4
    if answer.error is not None:
        raise answer.error
    worker = _worker(answer, reader)
    if answer.status != HTTP_OK:
        yield Emit(Body(bytes(answer.body), worker.trust))
        yield Emit(Done(None, worker.trust))
        return
    if answer.receipt is None:
        raise ReceiptError("response: a receipt expected, found none")
    receipt = yield from check_receipt(verifier, _heard(answer, reader, worker))  # 5
    if not call.stream:
        yield Emit(Body(bytes(answer.body), worker.trust))
    yield Emit(Done(receipt, worker.trust))


def _take(answer: _Answer, reader: ResponseReader, record: Record) -> Steps[None]:
    worker = _worker(answer, reader)
    if record.type == HEAD:
        head = _answered(record, worker, answer)
        answer.status = head.status
        yield Emit(head)
    elif record.type == DATA:
        if answer.status == HTTP_OK and answer.call.stream:
            raise RecordError("response: TOKENS expected in a stream, found DATA")
        if len(answer.body) + len(record.data) > BODY_LIMIT:
            raise RecordError(f"response: body of at most {BODY_LIMIT} bytes expected")
        answer.body += record.data
    elif record.type == TOKENS:
        if answer.status != HTTP_OK or not answer.call.stream:
            raise RecordError("response: TOKENS only in a successful stream expected")
        yield Emit(_delta(answer, record, worker))
    elif record.type == RECEIPT:
        answer.receipt = record.data
    elif record.type == ERROR and answer.error is None:
        answer.error = _failure(record)


def _worker(answer: _Answer, reader: ResponseReader) -> VerifiedWorker:
    if answer.worker is None:
        found = None if reader.kid is None else answer.candidates.by_kid(reader.kid)
        if found is None:
            raise StreamTruncated("the response ended before its header")
        answer.worker = found
    return answer.worker


def _answered(record: Record, worker: VerifiedWorker, answer: _Answer) -> Answered:
    head = record.json()
    status, headers = head.get("s"), head.get("h", {})
    if type(status) is not int or not (status == HTTP_OK or ERROR_STATUS <= status < 600):
        raise RecordError("response HEAD: a status of 200 or 400 to 599 expected")
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise RecordError("response HEAD: headers of strings expected")
    rid = b64u(answer.sealed.header.rid)
    return Answered(
        status=status,
        headers={name.lower(): value for name, value in headers.items()},
        id=_text(head, "id", rid),
        created=_count(head, "created", answer.sealed.header.iat),
        model=_text(head, "model", answer.call.model),
        worker=worker,
        rid=rid,
        prompt_tokens=_count(head, "in", 0),
    )


def _delta(answer: _Answer, record: Record, worker: VerifiedWorker) -> Delta:
    delta = TokenDelta.decode(record.data)
    tail, text = delta.tail, delta.text
    index = _count(tail, "i", 0)
    choice = answer.choices.setdefault(index, ChoiceTold())
    if choice.finish or index >= CHOICES_MAX:
        raise RecordError("response: no text after a choice's end expected")
    finish = tail.get("f")
    if finish is not None:
        if finish not in FINISHES:
            raise RecordError("response: finish reason stop or length expected")
        choice.finish = finish
    # An attested worker may still be a faulty one: what it makes us keep is bounded by our request.
    most = answer.sealed.header.out * TOKEN_TEXT_MAX
    if tail.get("l") == 1:
        answer.score_len += len(text)
        scores = choice.scored(text)
        text, call = "", None
    else:
        answer.text_len += len(text)
        scores = ()
        call = choice.called(tail, text) if "t" in tail else None
        text = text if call is None else ""
    if answer.text_len > most or answer.score_len > most * (SCORES_MAX + 1):
        raise RecordError(f"response: at most {most} characters for this request expected")
    choice.texts.append(text)
    return Delta(
        text,
        index,
        finish,
        _usage(tail.get("u")),
        worker.trust,
        call,
        scores,
        _count(tail, "s", -1) if "s" in tail else None,
    )


def _heard(answer: _Answer, reader: ResponseReader, worker: VerifiedWorker) -> Heard:
    assert answer.receipt is not None
    assert reader.salt_r is not None, "frames were opened"
    if answer.call.stream:
        told = [answer.choices[index] for index in sorted(answer.choices)]
        segments = response_segments([choice.said() for choice in told])
        finishes = [choice.finish for choice in told]
        logprobs = tuple(tuple(choice.logprobs) for choice in told if choice.logprobs)
    else:
        logprobs = logprobs_of(answer.call.kind, bytes(answer.body), BODY_LIMIT)
        segments, finishes = whole(answer.call.kind, bytes(answer.body), BODY_LIMIT)
    # A whole answer is sealed before it is stated. A stream's statement follows its first frames
    # while padding still goes out; the hash of nothing is everybody's and would bind no answer.
    least = 1 if answer.call.stream else max(1, reader.frames)
    prefixes = {reader.ct_hash_at(count) for count in range(least, reader.frames + 1)}
    return Heard(
        call=answer.call,
        sealed=answer.sealed,
        worker=worker,
        record=answer.receipt,
        salt_r=reader.salt_r,
        segments=tuple(segments),
        finishes=tuple(finishes),
        ciphertexts=frozenset(prefixes),
        log_size=answer.candidates.log_size,
        logprobs=logprobs,
    )


def _failure(record: Record) -> WorkerNotice:
    """A sealed error after the answer began: authenticated, so it is the worker's own word."""
    document = record.json()
    code, message = document.get("code"), document.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise FrameError("response ERROR: code and message expected")
    return WorkerNotice(f"worker: {message[:256]}", code=code[:64])


def _text(document: Mapping[str, Any], name: str, default: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) and value else default


def _count(document: Mapping[str, Any], name: str, default: int) -> int:
    value = document.get(name)
    return value if type(value) is int and value >= 0 else default


def _usage(raw: Any) -> dict[str, int] | None:
    if not isinstance(raw, dict):
        return None
    found = {name: raw[name] for name in _COUNTS if type(raw.get(name)) is int}
    return found if len(found) == len(_COUNTS) else None
