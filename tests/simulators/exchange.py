"""One honest answered request: worker, binding, software evidence, policy, log, receipt.

Everything is real (keys, signatures, trees); only the model is missing. Build with keyword
overrides to change one fact before it is signed, or damage what comes out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.claims import honest_claims, receipt_event
from simulators.log import SimulatedLog

from attestation.binding import Kem, Model, encode_binding, report_data
from attestation.evidence import Evidence
from attestation.formats.software import LABEL, encode_body, encode_statement
from attestation.measurement import combine
from attestation.policy import Policy, parse_policy
from evidence.commit import Role, commit_segments, response_segments
from evidence.directory import (
    WorkerEntry,
    build_snapshot,
    directory_document,
    sign_snapshot,
    snapshot_event,
)
from evidence.events import (
    ATTEST_VERDICT,
    DIRECTORY_SNAPSHOT,
    INFER_RECEIPT,
    attest_verdict_event,
)
from evidence.receipt import ReceiptClaims, Side, sign_statement
from evidence.record import ReceiptRecord
from wire.ids import b64u, bh_of, kid_of, sha256_tag
from wire.suites import X25519

if TYPE_CHECKING:
    from evidence.entry import Logged

NOW = 1_790_000_300
AUD = "deployment.test"
PARTS = {"interpreter": sha256_tag(b"python"), "first_party": sha256_tag(b"ours")}
MEASUREMENT = combine(PARTS)
SERVICE = sha256_tag(b"service policy")
WEIGHTS = sha256_tag(b"weights")
PROMPT = [(Role.SYSTEM, b"Be brief."), (Role.USER, b"What is an anchor?")]
ANSWER = "Something heavy."


def key(label: str) -> Ed25519PrivateKey:
    """A reproducible key: same label, same key."""
    return Ed25519PrivateKey.from_private_bytes(sha256(label.encode()).digest())


def public(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def random(label: str, length: int = 32) -> bytes:
    return sha256(b"random " + label.encode()).digest()[:length]


@dataclass
class Exchange:
    """A deployment with one software worker that has answered one request."""

    log: SimulatedLog = field(default_factory=SimulatedLog)
    changes: dict[str, Any] = field(default_factory=dict)
    binding_changes: dict[str, Any] = field(default_factory=dict)
    policy_changes: dict[str, Any] = field(default_factory=dict)
    event_changes: dict[str, Any] = field(default_factory=dict)
    sig: Ed25519PrivateKey = field(default_factory=lambda: key("worker sig"))
    root: Ed25519PrivateKey = field(default_factory=lambda: key("software root"))
    directory_key: Ed25519PrivateKey = field(default_factory=lambda: key("directory"))

    def __post_init__(self) -> None:
        pk = sha256(b"x25519").digest()
        self.kid = kid_of(X25519, pk)
        facts: dict[str, Any] = {
            "aud": AUD,
            "wid": "w1",
            "boot": random("boot", 16),
            "epoch": 0,
            "kems": [Kem(X25519, pk)],
            "sig_pk": public(self.sig),
            "image": MEASUREMENT,
            "policy": SERVICE,
            "models": [Model("tiny", WEIGHTS)],
            "nbf": NOW - 300,
            "exp": NOW + 3300,
        }
        self.binding = encode_binding(**(facts | self.binding_changes))
        self.bh = bh_of(self.binding)
        self.evidence = self.attest(self.binding)
        self.policy_raw = json.dumps(self._policy() | self.policy_changes).encode()
        self.policy: Policy = parse_policy(self.policy_raw)
        self.verdict: Logged = self.log.append(ATTEST_VERDICT, self._verdict())
        self.claims = replace(self._claims(), **self.changes)
        rid, sig_pk = self.claims.rid, public(self.sig)
        self.statement = sign_statement(self.claims, self.sig, self.claims.bh, rid, sig_pk)
        self.blind = random("blind")
        self.event = receipt_event(self.claims, self.statement, self.blind) | self.event_changes
        self.logged: Logged = self.log.append(INFER_RECEIPT, self.event)
        # the verdict under the receipt's own head: one history without a consistency proof
        self.verdict = self.log.entry(self.verdict.index, self.log.size)
        self.record = ReceiptRecord(self.statement, self.blind, self.logged)

    def attest(self, binding: bytes, measurement: str = MEASUREMENT) -> Evidence:
        """Software evidence for any binding, by this deployment's development root."""
        statement = encode_statement(
            report_data=report_data(binding),
            measurement=measurement,
            parts=PARTS,
            ts=(NOW - 300) * 1000,
        )
        return Evidence("software", encode_body(statement, self.root.sign(LABEL + statement)))

    def directory(self, **changes: Any) -> bytes:
        """A logged, signed directory document of this one worker."""
        facts: dict[str, Any] = {
            "aud": AUD,
            "seq": 1,
            "issued": NOW - 10,
            "expires": NOW + 590,
            "workers": [WorkerEntry((self.kid,), self.bh, self.verdict.index, ("tiny",))],
        }
        payload = build_snapshot(**(facts | changes))
        logged = self.log.append(DIRECTORY_SNAPSHOT, snapshot_event(payload))
        sigs = [sign_snapshot(payload, "dir-1", self.directory_key)]
        return directory_document(payload, sigs, logged)

    def _policy(self) -> dict[str, Any]:
        return {
            "v": 1,
            "id": "test",
            "seq": 1,
            "not_before": NOW - 1000,
            "expires": NOW + 100_000,
            "aud": AUD,
            "require_pq": False,
            "min_workers": 1,
            "allow_software": True,
            "accept": [
                {
                    "kind": "software",
                    "roots": [b64u(public(self.root))],
                    "measurements": [MEASUREMENT],
                    "posture": {},
                }
            ],
            "models": [{"name": "tiny", "digest": WEIGHTS}],
            "service_policies": [SERVICE],
            "directory": {
                "keys": [{"kid": "dir-1", "alg": "ed25519", "pk": b64u(public(self.directory_key))}]
            },
            "log": {"origin": self.log.origin, "vkeys": [self.log.vkey]},
        }

    def _verdict(self) -> dict[str, Any]:
        return attest_verdict_event(
            bh=self.bh,
            ok=True,
            kind="software",
            evidence=[sha256_tag(self.evidence.body)],
            policy=self.policy.digest,
            trust="software",
            measurement=MEASUREMENT,
            checks=[("1 form", True)],
            expires=NOW + 3300,
        )

    def _claims(self) -> ReceiptClaims:
        salt_q, salt_r = random("salt q"), random("salt r")
        answer = response_segments([ANSWER])
        return honest_claims(
            self.binding,
            self.evidence,
            rid=random("rid", 16),
            th=random("th"),
            kid=self.kid,
            op="chat",
            t0=NOW * 1000,
            t1=NOW * 1000 + 900,
            req=Side(commit_segments(salt_q, PROMPT), len(PROMPT), 64, random("ct q")),
            resp=Side(commit_segments(salt_r, answer), 1, 64, random("ct r")),
            tokenizer=sha256_tag(b"tokenizer"),
            par={"temperature": "0.7", "top_k": 0, "seed": None},
            tokens_out=70,
        )
