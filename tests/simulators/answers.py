"""What a simulated worker answers: real sealed frames, a real statement, a real log entry.

The "model" echoes the last message, one word a token. Every piece a test may want to change before
it is sealed or signed is an argument or an attribute.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from simulators.claims import honest_claims, receipt_event

from client.calls import ENDPOINTS
from client.clock import wall_clock
from enclave_worker.api.embeddings_reply import embeddings_reply, vector_bytes
from enclave_worker.api.replies import REPLIES
from enclave_worker.api.request import ApiRequest
from enclave_worker.api.results import PREFIX, ChoiceResult, Identity
from enclave_worker.engine.events import Usage
from enclave_worker.engine.params import SamplingParams
from evidence.commit import Role, commit_segments, request_segments, response_segments
from evidence.events import INFER_RECEIPT
from evidence.receipt import ReceiptClaims, Side, sign_statement
from evidence.record import ReceiptRecord
from wire.ids import b64u, bh_of
from wire.records import DATA, HEAD, RECEIPT, Record, TokenDelta, json_record
from wire.response import ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.log import SimulatedLog
    from simulators.tee import Tee

    from attestation.evidence import Evidence
    from wire.envelope import OpenedRequest

FRAME = 256
FINAL = 8192


@dataclass
class Listed:
    """One worker as the service knows it: keys, what it presents, its verdict's log index."""

    tee: Tee
    binding: bytes
    evidence: tuple[Evidence, ...]
    posture: bytes | None
    verdict: int = 0

    @property
    def bh(self) -> bytes:
        return bh_of(self.binding)


@dataclass
class Answer:
    """One logical answer.

    Attributes:
        text: what the model says.
        finish: why it ends.
        status, error: a sealed refusal instead of an answer.
        claim_changes: members of the statement that differ from the honest ones.
        edit: changes the honest claims, where a test needs to see them first.
        committed_text: what the statement commits to, if not the text.
        receipt: whether there is one.
        failure: an ERROR record after the first words, and no receipt.
        stated_early: a whole answer whose statement does not name its last frame.
        results: choices with calls or log-probabilities, instead of the text.
        vectors: of a request for embeddings.
        raw: a whole body, instead of the one that says the choices.
    """

    text: str
    finish: str = "stop"
    status: int = 200
    error: dict[str, Any] | None = None
    claim_changes: dict[str, Any] = field(default_factory=dict)
    edit: Callable[[ReceiptClaims], ReceiptClaims] = lambda claims: claims
    committed_text: str | None = None
    receipt: bool = True
    failure: dict[str, Any] | None = None
    stated_early: bool = False
    results: tuple[ChoiceResult, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    raw: dict[str, Any] | None = None

    @property
    def choices(self) -> tuple[ChoiceResult, ...]:
        """What the answer's choices are."""
        return self.results or (ChoiceResult(0, self.text, (), self.finish),)

    @property
    def segments(self) -> list[tuple[int, bytes]]:
        """What the statement commits to."""
        if self.vectors:
            return [(Role.OUTPUT, vector_bytes(vector)) for vector in self.vectors]
        if self.committed_text is not None:
            return response_segments([self.committed_text])
        return response_segments([choice.said() for choice in self.choices])


def echo(body: dict[str, Any]) -> str:
    """What the model says to a request."""
    if "prompt" in body:
        return f"You wrote: {body['prompt']}"
    if "input" in body:
        return f"You put in: {body['input']}"
    return f"You said: {body['messages'][-1]['content']}"


def pieces(text: str) -> list[str]:
    """The text as tokens."""
    words = text.split(" ")
    return [word + (" " if n < len(words) - 1 else "") for n, word in enumerate(words)]


def streamed(choice: ChoiceResult) -> list[TokenDelta]:
    """One choice as a stream carries it."""
    place = {"i": choice.index} if choice.index else {}
    deltas = [TokenDelta(entry.line(), place | {"l": 1}) for entry in choice.logprobs or ()]
    if choice.text or not choice.calls:
        deltas += [TokenDelta(word, place) for word in pieces(choice.text)]
    for number, call in enumerate(choice.calls):
        where = place | {"t": number}
        deltas.append(TokenDelta("", where | {"id": call.id, "fn": call.name}))
        half = len(call.arguments) // 2
        deltas += [
            TokenDelta(call.arguments[:half], where),
            TokenDelta(call.arguments[half:], where),
        ]
    tail = place | {"f": choice.finish}
    if choice.stop is not None:
        tail["s"] = choice.stop
    if deltas[-1].tail == place:
        deltas[-1] = TokenDelta(deltas[-1].text, tail)
    else:
        deltas.append(TokenDelta("", tail))
    return deltas


def _document(
    names: Identity, body: dict[str, Any], answer: Answer, usage: dict[str, int]
) -> dict[str, Any]:
    """The whole reply, written by the worker's own code."""
    stops = tuple(body.get("stop_sequences", ()))
    request = ApiRequest(names.kind, "m", SamplingParams(stop=stops), members=body)
    if answer.vectors:
        vectors = [vector_bytes(vector) for vector in answer.vectors]
        return embeddings_reply(names, request, vectors, 7)
    counts = Usage(usage["prompt_tokens"], usage["completion_tokens"])
    return REPLIES[names.kind](names, request, answer.choices, counts)


def seal(
    listed: Listed, opened: OpenedRequest, answer: Answer, log: SimulatedLog, attempt: int = 1
) -> list[bytes]:
    """The response as the chunks a worker would send: prelude, then one chunk a frame."""
    writer = ResponseWriter(
        opened.th, opened.kid, opened.header.rid, opened.keys.rs, opened.r_kid, os.urandom, attempt
    )
    chunks = [writer.prelude()]
    now = wall_clock()
    body = json.loads(opened.body)
    path = str(opened.head.get("p"))
    kind = ENDPOINTS[path]
    head = {"s": answer.status, "h": {"content-type": "application/json"}}
    usage = {"prompt_tokens": 7, "completion_tokens": len(pieces(answer.text))}
    usage["total_tokens"] = sum(usage.values())
    if answer.status != 200:
        refusal = json.dumps({"error": answer.error}).encode()
        chunks.append(writer.frame([json_record(HEAD, head), Record(DATA, refusal)], 1024))
        return [*chunks, writer.frame([], FINAL, final=True)]
    names = Identity(PREFIX[kind] + "1", now, "m", kind)
    identity = {"id": names.id, "created": now, "model": "m", "in": 7}
    if opened.header.stream:
        chunks.append(writer.frame([json_record(HEAD, head | identity)], FRAME))
        deltas = [delta for choice in answer.choices for delta in streamed(choice)]
        deltas[-1] = TokenDelta(deltas[-1].text, deltas[-1].tail | {"u": usage})
        for number, delta in enumerate(deltas):
            if answer.failure is not None and number == 1:
                chunks.append(writer.frame([json_record(5, answer.failure)], FRAME))  # type: ignore[arg-type]
                return [*chunks, writer.frame([], FINAL, final=True)]
            chunks.append(writer.frame([delta.record()], FRAME))
    else:
        document = answer.raw or _document(names, body, answer, usage)
        data = json.dumps(document).encode()
        chunks.append(writer.frame([json_record(HEAD, head | identity), Record(DATA, data)], 4096))
    ct = writer.ct_hash
    if opened.header.stream or answer.stated_early:
        chunks.append(writer.frame([], FRAME))  # padding goes out while the receipt is logged
    final = []
    if answer.receipt:
        final = [Record(RECEIPT, _receipt(listed, opened, answer, writer, ct, body, log))]
    return [*chunks, writer.frame(final, FINAL, final=True)]


def _receipt(
    listed: Listed,
    opened: OpenedRequest,
    answer: Answer,
    writer: ResponseWriter,
    ct: bytes,
    body: dict[str, Any],
    log: SimulatedLog,
) -> bytes:
    tee, now = listed.tee, wall_clock() * 1000
    asked = request_segments(body)
    said = answer.segments
    claims = honest_claims(
        listed.binding,
        listed.evidence[0],
        rid=opened.header.rid,
        th=opened.th,
        kid=opened.kid,
        op=opened.header.op,
        t0=now,
        t1=now,
        req=Side(commit_segments(opened.keys.salt_q, asked), len(asked), 64, opened.ct_hash),
        resp=Side(commit_segments(writer.salt_r, said), len(said), 64, ct),
        finish=answer.finish,
        tokens_in=7,
        tokens_out=len(pieces(answer.text)),
    )
    claims = answer.edit(replace(claims, **answer.claim_changes))
    statement = sign_statement(
        claims, tee.sig, claims.bh, claims.rid, tee.sig.public_key().public_bytes_raw()
    )
    blind = hashlib.sha256(statement).digest()
    event = receipt_event(claims, statement, blind)
    return ReceiptRecord(statement, blind, log.append(INFER_RECEIPT, event)).encode()


def rid_text(opened: OpenedRequest) -> str:
    """The request id as it stands in a path."""
    return b64u(opened.header.rid)
