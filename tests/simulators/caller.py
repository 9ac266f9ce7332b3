"""A tenant's end of sealed exchanges with one worker: seals requests, reads and checks answers."""

import json
import os
from dataclasses import dataclass, field, replace
from typing import Any

from attestation.binding import Binding
from enclave_worker.clock import Clock
from evidence.commit import commit_segments, request_segments, response_segments
from evidence.record import VerifiedReceipt, parse_record, verify_record
from wire.envelope import Candidate, SealedRequest, seal_request
from wire.header import RequestHeader
from wire.ids import unb64u
from wire.notice import verify_notice
from wire.padding import out_class
from wire.records import DATA, ERROR, HEAD, RECEIPT, TOKENS, TokenDelta
from wire.response import ResponseReader


def asked(body: dict[str, Any]) -> int:
    """Tokens of all choices."""
    limit = body.get("max_tokens") or body.get("max_output_tokens") or 64
    return int(limit) * int(body.get("n") or 1)


@dataclass
class Reply:
    """One answer as the tenant sees it after everything was authenticated."""

    head: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    body: bytes = b""
    error: dict[str, Any] | None = None
    receipt: bytes | None = None
    reader: ResponseReader | None = None
    deltas: list[TokenDelta] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.head["s"])

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Caller:
    """Seals to the keys of one binding."""

    def __init__(self, binding: Binding, *, model: str | None = None) -> None:
        self.binding = binding
        self.model = model or binding.models[0].name

    def chat(self, content: str, **members: Any) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 8,
            **members,
        }

    def seal(
        self,
        body: dict[str, Any] | bytes,
        *,
        path: str = "/v1/chat/completions",
        head: dict[str, Any] | None = None,
        candidates: list[Candidate] | None = None,
        **changes: Any,
    ) -> SealedRequest:
        """Seal a body; `changes` go into the clear header."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        members = body if isinstance(body, dict) else {}
        now = Clock().s()
        header = RequestHeader(
            rid=os.urandom(16),
            aud=self.binding.aud,
            op="completion" if path == "/v1/completions" else "chat",
            model=self.model,
            policy=self.binding.policy,
            iat=now,
            exp=now + 300,
            out=out_class(asked(members)),
            stream=bool(members.get("stream", False)),
            pad="off",
        )
        header = replace(header, **changes)
        keys = [Candidate(kem.kid, kem.suite, kem.pk) for kem in self.binding.kems]
        first = {"m": "POST", "p": path, "h": {}} | (head or {})
        wanted = [key for key in keys if key.suite == header.suite]
        return seal_request(header, candidates or wanted, first, raw, os.urandom, allow_x25519=True)

    def read(self, sealed: SealedRequest, data: bytes) -> Reply:
        """Read a complete answer; raises what ResponseReader raises."""
        reader = ResponseReader(sealed.th, sealed.header.rid, sealed.keys, sealed.R, sealed.kids)
        reply = Reply(reader=reader)
        for record in reader.feed(data):
            if record.type == HEAD:
                reply.head = record.json()
            elif record.type == DATA:
                reply.body += record.data
            elif record.type == TOKENS:
                delta = TokenDelta.decode(record.data)
                reply.deltas.append(delta)
                reply.text += delta.text
                reply.finish = delta.tail.get("f", reply.finish)
                reply.usage = delta.tail.get("u", reply.usage)
            elif record.type == ERROR:
                reply.error = record.json()
            elif record.type == RECEIPT:
                reply.receipt = record.data
        reader.finish()
        return reply

    def verify(
        self, sealed: SealedRequest, request: dict[str, Any], reply: Reply, said: Any, log: Any
    ) -> VerifiedReceipt:
        """Check a receipt like a careful client: keys, log, and that it speaks of this exchange."""
        assert reply.receipt is not None
        assert reply.reader is not None
        assert reply.reader.salt_r is not None
        record = parse_record(reply.receipt)
        verified = verify_record(record, self.binding.sig_pk, log.origin, [log.vkey])
        claims = verified.claims
        assert unb64u(claims["rid"]) == sealed.header.rid
        assert unb64u(claims["th"]) == sealed.th
        assert unb64u(claims["kid"]) == reply.reader.kid
        assert unb64u(claims["att"]["bh"]) == self.binding.bh
        asked = commit_segments(sealed.keys.salt_q, request_segments(request))
        assert unb64u(claims["req"]["c"]) == asked
        assert unb64u(claims["req"]["ct"]) == sealed.ct_hash
        if isinstance(said, str):
            said = [said]
        if not (said and isinstance(said[0], tuple)):  # segments already
            said = response_segments(said)
        assert unb64u(claims["resp"]["c"]) == commit_segments(reply.reader.salt_r, said)
        least = 1 if sealed.header.stream else reply.reader.frames
        prefixes = [reply.reader.ct_hash_at(n) for n in range(least, reply.reader.frames + 1)]
        assert unb64u(claims["resp"]["ct"]) in prefixes
        return verified


def caller(worker: Any) -> Caller:
    return Caller(worker.peer.newest.binding)


async def ask(worker: Any, body: dict[str, Any], **kwargs: Any) -> Any:
    who = caller(worker)
    sealed = who.seal(body, **kwargs)
    answer = await worker.peer.exchange(sealed.header.rid, sealed.envelope)
    return who, sealed, answer


def notice_code(worker: Any, sealed: Any, answer: Any) -> str:
    assert answer.notice is not None
    assert not answer.data
    pk = worker.peer.newest.binding.sig_pk
    return verify_notice(answer.notice, pk, sealed.header.rid, sealed.th, sealed.kids)
