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

from client.clock import wall_clock
from evidence.commit import commit_segments, request_segments, response_segments
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


def echo(body: dict[str, Any]) -> str:
    """What the model says to a request."""
    if "prompt" in body:
        return f"You wrote: {body['prompt']}"
    return f"You said: {body['messages'][-1]['content']}"


def pieces(text: str) -> list[str]:
    """The text as tokens."""
    words = text.split(" ")
    return [word + (" " if n < len(words) - 1 else "") for n, word in enumerate(words)]


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
    chat = opened.header.op == "chat"
    head = {"s": answer.status, "h": {"content-type": "application/json"}}
    usage = {"prompt_tokens": 7, "completion_tokens": len(pieces(answer.text))}
    usage["total_tokens"] = sum(usage.values())
    if answer.status != 200:
        refusal = json.dumps({"error": answer.error}).encode()
        chunks.append(writer.frame([json_record(HEAD, head), Record(DATA, refusal)], 1024))
        return [*chunks, writer.frame([], FINAL, final=True)]
    identity = {"id": "chatcmpl-1" if chat else "cmpl-1", "created": now, "model": "m"}
    if opened.header.stream:
        chunks.append(writer.frame([json_record(HEAD, head | identity)], FRAME))
        words = pieces(answer.text)
        for number, word in enumerate(words):
            last = number == len(words) - 1
            tail = {"f": answer.finish, "u": usage} if last else {}
            if answer.failure is not None and number == 1:
                chunks.append(writer.frame([json_record(5, answer.failure)], FRAME))  # type: ignore[arg-type]
                return [*chunks, writer.frame([], FINAL, final=True)]
            chunks.append(writer.frame([TokenDelta(word, tail).record()], FRAME))
    else:
        choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish, "logprobs": None}
        if chat:
            choice["message"] = {"role": "assistant", "content": answer.text, "refusal": None}
        else:
            choice["text"] = answer.text
        document = identity | {
            "object": "chat.completion" if chat else "text_completion",
            "choices": [choice],
            "usage": usage,
        }
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
    said = response_segments(
        [answer.text if answer.committed_text is None else answer.committed_text]
    )
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
