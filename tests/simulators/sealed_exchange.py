"""One sealed exchange between a client and a worker: real keys, real seals, no network.

Tests change one fact of an honest exchange and assert one error.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from wire.envelope import (
    Candidate,
    OpenedRequest,
    SealedRequest,
    open_envelope,
    parse_envelope,
    seal_request,
)
from wire.header import RequestHeader
from wire.ids import kid_of
from wire.response import ResponseReader, ResponseWriter
from wire.suites import HYBRID, SUITES, PrivateKey

NOW = 1_790_000_000
HEAD = {"m": "POST", "p": "/v1/chat/completions", "h": {"content-type": "application/json"}}


class SeededRng:
    """Random-looking bytes that are the same in every run."""

    def __init__(self, seed: bytes = b"anchorhold tests") -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, n: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(n)


@dataclass(frozen=True)
class WorkerKey:
    """A worker's key of one suite."""

    sk: PrivateKey
    suite: str

    @property
    def kid(self) -> bytes:
        return kid_of(self.suite, self.sk.pk)

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.kid, self.suite, self.sk.pk)

    def open(self, envelope: bytes, **kwargs: object) -> OpenedRequest:
        return open_envelope(
            parse_envelope(envelope), self.kid, self.sk, SUITES[self.suite], **kwargs
        )


def worker_key(seed: int = 1, suite: str = HYBRID) -> WorkerKey:
    return WorkerKey(SUITES[suite].private_key(bytes([seed]) * 32), suite)


def request_header(**changes: object) -> RequestHeader:
    base = RequestHeader(
        rid=bytes(range(16)),
        aud="tests",
        op="chat",
        model="m",
        policy="sha256:" + "0" * 64,
        iat=NOW,
        exp=NOW + 300,
        out=256,
    )
    return replace(base, **changes)


@dataclass
class SealedExchange:
    """A request sealed to `workers`, and both ends of its response."""

    body: bytes = b'{"model":"m","messages":[]}'
    workers: tuple[WorkerKey, ...] = field(default_factory=lambda: (worker_key(1),))
    header: RequestHeader = field(default_factory=request_header)
    rng: SeededRng = field(default_factory=SeededRng)
    allow_x25519: bool = False
    request: SealedRequest = field(init=False)

    def __post_init__(self) -> None:
        self.request = seal_request(
            self.header,
            [worker.candidate for worker in self.workers],
            HEAD,
            self.body,
            self.rng,
            allow_x25519=self.allow_x25519,
        )

    def opened(self, worker: WorkerKey | None = None) -> OpenedRequest:
        return (worker or self.workers[0]).open(self.request.envelope)

    def writer(self, worker: WorkerKey | None = None) -> ResponseWriter:
        opened = self.opened(worker)
        return ResponseWriter(
            opened.th, opened.kid, opened.header.rid, opened.keys.rs, opened.r_kid, self.rng
        )

    def reader(self) -> ResponseReader:
        request = self.request
        return ResponseReader(request.th, request.header.rid, request.keys, request.R, request.kids)
