"""A whole deployment in one object, served on loopback, that can be told to lie.

Honest by default: real HPKE keys, real software evidence, a real Merkle log with real signatures,
sealed answers with receipts. `service.lies.add("truncated")` and the like change exactly one thing
a hostile gateway could change; `LIES` lists them all. The client under test is never touched.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.answers import Answer, Listed, echo
from simulators.beacon_lies import BEACON_LIES, fork, shown_beacon
from simulators.challenge_lies import live_answer
from simulators.listing_lies import LISTING_LIES, list_with, shown_verdict
from simulators.log import SimulatedLog
from simulators.loopback import Loopback
from simulators.sealed_replies import problem_reply, reply_to
from simulators.tee import AUD, SoftwareTee, Tee
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from attestation.binding import Beacon
from attestation.carried import collateral_json
from client.clock import wall_clock
from evidence.directory import (
    WorkerEntry,
    build_snapshot,
    directory_document,
    sign_snapshot,
    snapshot_event,
)
from evidence.events import ATTEST_VERDICT, DIRECTORY_SNAPSHOT, attest_verdict_event
from wire.envelope import parse_envelope
from wire.ids import b64u, sha256_tag, unb64u
from wire.problems import BAD_REQUEST, NO_WORKER, NOT_FOUND, REWRAP_NEEDED, problem
from wire.suites import HYBRID
from wire.wraps import parse_wraps

if TYPE_CHECKING:
    from starlette.requests import Request

LIES = frozenset(
    {
        # directory and log
        "stale_directory", "unsigned_directory", "rolled_back", "older_snapshot", "forked",
        "unlogged_directory",
        # workers
        "swapped_keys", "swapped_evidence", "foreign_verdict", "refused_verdict",
        # answers
        "replayed", "truncated", "cut_inside_frame", "broken_connection", "no_final", "reordered",
        "spliced", "edited", "trailing_bytes", "wrong_type", "plaintext", "compressed",
        "redirected",
        # errors
        "gateway_error", "html_error", "forged_notice", "foreign_notice",
        # receipts
        "receipt_forked", "receipt_rolled_back",
    }
    | LISTING_LIES
    | BEACON_LIES
)  # fmt: skip


@dataclass
class Seen:
    """One request as the gateway saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """The deployment.

    Attributes:
        workers: those that are up; `hidden` are up but not listed, `unanswered` answer no live
            challenge, `busy` no ping.
        answer: makes the logical answer of a request body; replace it to change what is sealed.
        lies: what the gateway does wrong; `liars`: the workers of which what it says in their
            listing, log entry, binding or beacon is wrong, () for all of them.
        fail_next: problems to answer the next requests with, before anything else.
        pause_s: seconds between response chunks.
        kind: of the workers; `carried`: collateral as served, None for what their vendors state.
        seen: every request, in order.
    """

    workers: list[Listed] = field(default_factory=list)
    hidden: set[bytes] = field(default_factory=set)
    unanswered: set[bytes] = field(default_factory=set)
    busy: set[bytes] = field(default_factory=set)
    answer: Any = None
    lies: set[str] = field(default_factory=set)
    liars: tuple[Listed, ...] = ()
    fail_next: list[tuple[int, dict[str, object]]] = field(default_factory=list)
    pause_s: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    cancelled: int = 0
    policy_changes: dict[str, Any] = field(default_factory=dict)
    life_s: int = 600
    max_body: int = 0
    kind: type[Tee] = SoftwareTee
    carried: Any = None
    recorded: list[bytes] = field(default_factory=list)
    recorded_pongs: dict[bytes, list[bytes]] = field(default_factory=dict)
    recorded_live: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    seq: int = 0

    def __post_init__(self) -> None:
        self.now = wall_clock()
        self.log = SimulatedLog(clock_ms=self.now * 1000)
        self.directory_key = Ed25519PrivateKey.from_private_bytes(_digest("directory"))
        self.answer = self.answer or (lambda body: Answer(echo(body)))
        self._first_tee = self.kind("w0", self.now)
        # An empty list comes before the first worker: its log entry is in the worker's binding.
        first = build_snapshot(
            aud=AUD, seq=0, issued=self.now, expires=self.now + self.life_s, workers=[]
        )
        self._date(self.log.append(DIRECTORY_SNAPSHOT, snapshot_event(first)).index)
        self._documents: list[bytes] = []
        self._snapshots: list[tuple[bytes, int]] = []
        self._waiting: dict[bytes, bytes] = {}
        self.api_key = "anchorhold_test_key"

    # ---------------------------------------------------------------- set-up

    def add(self, tee: Tee | None = None) -> Listed:
        """Admit one worker and log the verdict on it."""
        tee = tee or self.kind(f"w{len(self.workers)}", self.now)
        tee.facts.setdefault("beacon", self.beacon)
        binding = tee.binding()
        listed = Listed(tee, binding, tuple(tee.presented(binding)), tee.posture())
        body = attest_verdict_event(
            bh=listed.bh,
            ok=True,
            kind=tee.kind,
            evidence=[sha256_tag(item.body) for item in listed.evidence],
            policy=sha256_tag(self.policy()),
            trust="software" if tee.kind == "software" else "simulated",
            measurement=tee.measurement(),
            checks=[("1 binding", True)],
            expires=tee.facts["exp"],
        )
        listed.verdict = self.log.append(ATTEST_VERDICT, body).index
        self.workers.append(listed)
        return listed

    def lies_about(self, listed: Listed) -> set[str]:
        """What is said wrongly of one worker."""
        return self.lies if not self.liars or listed in self.liars else set()

    def rotate(self, listed: Listed, seed: str) -> Listed:
        """The worker restarts: new keys, a new binding, the old keys are gone."""
        self.workers.remove(listed)
        fresh = self.add(self.kind(seed, self.now))
        self.publish()
        return fresh

    def publish(self, **changes: Any) -> bytes:
        """Log and sign a new directory snapshot."""
        self.seq += 1
        issued = wall_clock()
        entries = [
            WorkerEntry(
                tuple(kem.kid for kem in worker.tee.facts["kems"]),
                worker.bh,
                worker.verdict,
                tuple(model.name for model in worker.tee.facts["models"]),
            )
            for worker in self.workers
            if worker.bh not in self.hidden
        ]
        facts: dict[str, Any] = {
            "aud": AUD,
            "seq": self.seq,
            "issued": issued,
            "expires": issued + self.life_s,
            "workers": entries,
        }
        payload = build_snapshot(**(facts | changes))
        logged = self.log.append(DIRECTORY_SNAPSHOT, snapshot_event(payload))
        self._date(logged.index)
        document = directory_document(payload, [self._sign(payload)], logged)
        self._documents.append(document)
        self._snapshots.append((payload, logged.index))
        return document

    def _date(self, index: int) -> None:
        """What a worker that comes now puts into its binding."""
        self.beacon = Beacon(self.log.origin, index + 1, self.log.root(index + 1))

    def policy(self) -> bytes:
        """The tenant's policy file for this deployment."""
        public = b64u(self.directory_key.public_key().public_bytes_raw())
        document = {
            **self._first_tee.demands,
            "directory": {"keys": [{"kid": "dir-1", "alg": "ed25519", "pk": public}]},
            "log": {"origin": self.log.origin, "vkeys": [self.log.vkey]},
            "freshness": {"require_beacon": True},
        }
        return json.dumps(document | self.policy_changes).encode()

    def serve(self, **where: Any) -> Loopback:
        """The gateway on loopback."""
        if not self.workers:
            self.add()
        if not self._documents:
            self.publish()
        return Loopback(self.app(), **where)

    # ---------------------------------------------------------------- HTTP

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/keys", self._keys),
                Route("/v1/keys/{bh}", self._binding),
                Route("/v1/workers/{wid}/challenge", self._challenge, methods=["POST"]),
                Route("/v1/log/checkpoint", self._checkpoint),
                Route("/v1/log/consistency", self._consistency),
                Route("/v1/log/inclusion", self._inclusion),
                Route("/v1/sealed", self._sealed, methods=["POST"]),
                Route("/v1/sealed/{rid}/wraps", self._wraps, methods=["POST"]),
                Route("/{rest:path}", self._other, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        )

    async def _note(self, request: Request) -> bytes:
        body = await request.body()
        headers = {k.lower(): v for k, v in request.headers.items()}
        self.seen.append(Seen(request.method, str(request.url.path), headers, body))
        return body

    async def _other(self, request: Request) -> Response:
        await self._note(request)
        return problem_reply(404, problem(NOT_FOUND, 404, "no such thing here"))

    async def _keys(self, request: Request) -> Response:
        await self._note(request)
        return Response(self._directory(), media_type="application/vnd.anchorhold.keys+json")

    def _directory(self) -> bytes:
        payload, index = self._snapshots[-1]
        if "rolled_back" in self.lies:
            return self._documents[0]
        if "older_snapshot" in self.lies:
            payload, index = self._snapshots[0]
            return directory_document(payload, [self._sign(payload)], self.log.entry(index))
        if "stale_directory" in self.lies:
            issued = wall_clock() - 700
            return self.publish(issued=issued, expires=issued + 600)
        if "unsigned_directory" in self.lies:
            stranger = Ed25519PrivateKey.from_private_bytes(_digest("stranger"))
            signed = [sign_snapshot(payload, "dir-1", stranger)]
            return directory_document(payload, signed, self.log.entry(index))
        if "unlogged_directory" in self.lies:
            other = build_snapshot(
                aud=AUD, seq=99, issued=wall_clock(), expires=wall_clock() + 60, workers=[]
            )
            return directory_document(other, [self._sign(other)], self.log.entry(index))
        for lie in self.lies & LISTING_LIES:
            return list_with(self, lie)
        return self._documents[-1]

    async def _binding(self, request: Request) -> Response:
        await self._note(request)
        bh = unb64u(request.path_params["bh"], 32)
        listed = next((worker for worker in self.workers if worker.bh == bh), None)
        if listed is None:
            return problem_reply(404, problem(NOT_FOUND, 404, "no such binding"))
        binding, evidence, verdict = listed.binding, listed.evidence, listed.verdict
        lies = self.lies_about(listed)
        if "swapped_keys" in lies:
            stranger = SoftwareTee("stranger", self.now)
            binding = replace_kems(listed.tee, stranger)
        if "swapped_evidence" in lies:
            stranger = SoftwareTee("stranger", self.now)
            evidence = (stranger.evidence(stranger.binding()),)
        beacon = shown_beacon(self, listed)
        inclusion = self.log.entry(verdict).to_json()
        if "forked_beacon" in lies:
            assert beacon is not None
            other = fork(self, listed, beacon.entry.index + 1)
            inclusion = other.entry(verdict).to_json()
        for lie in lies & LISTING_LIES:
            inclusion = shown_verdict(self, listed, lie).to_json()
        if "foreign_verdict" in lies:
            inclusion = self.log.entry(self._snapshots[0][1]).to_json()
        if "refused_verdict" in lies:
            body = attest_verdict_event(
                bh=listed.bh, ok=False, kind="software", evidence=[], policy=sha256_tag(b"p"),
                reasons=["denied"],
            )  # fmt: skip
            inclusion = self.log.append(ATTEST_VERDICT, body).to_json()
        return JSONResponse(
            {
                "binding": b64u(binding),
                "evidence": [item.to_json() for item in evidence],
                "posture": None if listed.posture is None else b64u(listed.posture),
                "inclusion": inclusion,
                "collateral": (
                    collateral_json(listed.tee.collateral())
                    if self.carried is None
                    else self.carried
                ),
                "beacon": None if beacon is None else beacon.to_json(),
            }
        )

    async def _challenge(self, request: Request) -> Response:
        asked = json.loads(await self._note(request))
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return problem_reply(
                401, problem("urn:anchorhold:gw:auth", 401, "credential not valid")
            )
        if set(asked) != {"nonce", "bh", "credential"}:
            return problem_reply(400, problem(BAD_REQUEST, 400, "not valid"))
        listed = next(w for w in self.workers if w.bh == unb64u(asked["bh"], 32))
        if listed.bh in self.unanswered:
            return problem_reply(503, problem(NO_WORKER, 503, "the worker did not answer"))
        return JSONResponse(live_answer(self, listed, asked))

    async def _checkpoint(self, request: Request) -> Response:
        await self._note(request)
        return PlainTextResponse(self.log.checkpoint())

    async def _consistency(self, request: Request) -> Response:
        await self._note(request)
        first, second = (int(request.query_params[name]) for name in ("first", "second"))
        return _proof(self.log.consistency(first, second))

    async def _inclusion(self, request: Request) -> Response:
        await self._note(request)
        index, size = (int(request.query_params[name]) for name in ("index", "size"))
        return _proof(self.log.inclusion(index, size))

    # ---------------------------------------------------------------- sealed requests

    async def _sealed(self, request: Request) -> Response:
        body = await self._note(request)
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return problem_reply(
                401, problem("urn:anchorhold:gw:auth", 401, "credential not valid")
            )
        envelope = parse_envelope(body)
        if self.fail_next:
            status, document = self.fail_next.pop(0)
            if document["type"] == REWRAP_NEEDED:
                self._waiting[envelope.header.rid] = body
            return problem_reply(status, document)
        return reply_to(self, envelope)

    async def _wraps(self, request: Request) -> Response:
        body = await self._note(request)
        original = self._waiting.get(unb64u(request.path_params["rid"], 16))
        if original is None:
            return problem_reply(404, problem(NOT_FOUND, 404, "nothing waits for wraps"))
        if self.fail_next:
            return problem_reply(*self.fail_next.pop(0))
        envelope = parse_envelope(original)
        wraps = parse_wraps(body, envelope.header.suite)
        return reply_to(self, parse_envelope(envelope.encode(wraps)))

    def _sign(self, payload: bytes) -> dict[str, str]:
        return sign_snapshot(payload, "dir-1", self.directory_key)


def replace_kems(tee: Tee, stranger: Tee) -> bytes:
    """The worker's binding with somebody else's key in it."""
    honest = tee.facts
    tee.facts = {**honest, "kems": [stranger.kem(HYBRID)]}
    try:
        return tee.binding()
    finally:
        tee.facts = honest


def _proof(path: Any) -> Response:
    return JSONResponse({"proof": [b64u(item) for item in path]})


def _digest(label: str) -> bytes:
    return hashlib.sha256(label.encode()).digest()
