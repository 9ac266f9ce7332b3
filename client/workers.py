"""A worker as served, and as verified. Only `worker_checks` turns the first into the second."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.carried import COLLATERAL_MAX, parse_collateral
from attestation.evidence import EVIDENCE_MAX, Evidence, evidence_list
from attestation.posture import CONTAINER_MAX
from evidence.beacon import BeaconProof
from evidence.entry import Logged, VerifiedEntry
from wire.canonical import parse_strict
from wire.errors import MalformedError, ProtocolFailure
from wire.excerpt import json_kind
from wire.ids import b64u, unb64u
from wire.limits import BINDING_MAX

from .report import WorkerSummary, weakest

if TYPE_CHECKING:
    from attestation.examined import CollateralSet
    from attestation.result import AppraisedEvidence, Trust
    from wire.wraps import Candidate

# A binding, a posture record and log entries; the evidence of a node of GPUs; what vouches for it.
DOCUMENT_REPLY_MAX: Final = 512 * 1024 + 2 * EVIDENCE_MAX + COLLATERAL_MAX
_VERIFIER: Final = object()  # held by `worker_checks` alone


@dataclass(frozen=True, slots=True)
class BindingDocument:
    """What `GET /v1/keys/{bh}` served: nothing verified.

    Attributes:
        binding: binding bytes.
        evidence: items as received.
        collateral: vendors' statements about the evidence, as the gateway had them.
        posture: posture container bytes, or None.
        verdict: log entry that is said to hold the gateway's own verdict.
        beacon: what is said to date the beacon in the binding; None where it names none.
    """

    binding: bytes
    evidence: tuple[Evidence, ...]
    collateral: CollateralSet
    posture: bytes | None
    verdict: Logged
    beacon: BeaconProof | None


@dataclass(frozen=True, slots=True)
class VerifiedWorker:
    """A worker key that passed every step under the tenant's policy.

    Attributes:
        candidate: the key to wrap to.
        appraised: the verdict over its evidence.
        document: the raw material, kept for receipts that are checked offline.
        verdict: the verified log entry of the gateway's verdict.
    """

    candidate: Candidate
    appraised: AppraisedEvidence
    document: BindingDocument
    verdict: VerifiedEntry
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _VERIFIER:
            raise TypeError("VerifiedWorker is made by client.worker_checks only")

    @property
    def trust(self) -> Trust:
        """What stands behind the evidence."""
        return self.appraised.trust

    @property
    def bh(self) -> bytes:
        """Binding hash, 32 bytes."""
        return self.appraised.bh

    @property
    def kid(self) -> bytes:
        """Key id, 32 bytes."""
        return self.candidate.kid

    @property
    def sig_pk(self) -> bytes:
        """Raw Ed25519 key of receipts and notices."""
        return self.appraised.binding.sig_pk

    @property
    def policy(self) -> str:
        """Digest of the service policy the worker has loaded."""
        return self.appraised.binding.policy

    def serves(self, model: str) -> bool:
        """Whether the attested binding names this model."""
        return any(item.name == model for item in self.appraised.binding.models)

    def summary(self) -> WorkerSummary:
        """For reports."""
        binding = self.appraised.binding
        return WorkerSummary(
            wid=binding.wid,
            bh=b64u(self.bh),
            kid=b64u(self.kid),
            trust=self.trust,
            kind=self.appraised.kind,
            measurement=self.appraised.measurement,
            suite=self.candidate.suite,
            models=tuple(model.name for model in binding.models),
            expires=self.appraised.expires,
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """The workers drawn for one request.

    Attributes:
        workers: verified, distinct, all of one service policy and one suite; may be empty only when
            some were excluded.
        generation: number of the directory verification they were drawn from.
        log_size: size of the log head known when they were drawn.
    """

    workers: tuple[VerifiedWorker, ...]
    generation: int
    log_size: int

    @property
    def trust(self) -> Trust | None:
        """The weakest level: any of them may answer."""
        return weakest(worker.trust for worker in self.workers)

    def by_kid(self, kid: bytes) -> VerifiedWorker | None:
        """The worker holding a key, or None."""
        return next((worker for worker in self.workers if worker.kid == kid), None)

    def joined(self, more: Candidates) -> Candidates:
        """These and the workers of a later draw: all that one request was wrapped to."""
        fresh = tuple(worker for worker in more.workers if self.by_kid(worker.kid) is None)
        return Candidates(self.workers + fresh, more.generation, self.log_size)


def parse_binding_document(body: bytes) -> BindingDocument:
    """Parse `GET /v1/keys/{bh}`; checks form only.

    Raises:
        ProtocolFailure: not such a document.
    """
    try:
        document = parse_strict(body, max_bytes=DOCUMENT_REPLY_MAX)
    except MalformedError as error:
        raise ProtocolFailure(f"worker document: {error.message}") from error
    return binding_document_of(document)


def binding_document_of(document: object) -> BindingDocument:
    """The same of a strictly parsed body.

    Raises:
        ProtocolFailure: not such a document.
    """
    try:
        if not isinstance(document, dict):
            raise MalformedError(f"found {json_kind(document)}, expected an object")
        return BindingDocument(
            blob(document, "binding", BINDING_MAX),
            evidence_list(document.get("evidence")),
            parse_collateral(document.get("collateral", {})),
            None if document.get("posture") is None else blob(document, "posture", CONTAINER_MAX),
            Logged.from_json(_member(document, "inclusion")),
            None
            if document.get("beacon") is None
            else BeaconProof.from_json(_member(document, "beacon")),
        )
    except MalformedError as error:
        raise ProtocolFailure(f"worker document: {error.message}") from error


def blob(document: dict[str, Any], name: str, most: int) -> bytes:
    """A base64url member of at most `most` bytes."""
    text = document.get(name)
    if not isinstance(text, str) or len(text) > most * 4 // 3 + 4:
        found = f"{len(text)} characters" if isinstance(text, str) else json_kind(text)
        raise MalformedError(f"{name}: found {found}, expected base64url of at most {most} bytes")
    return unb64u(text)


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    if not isinstance(found, dict):
        raise MalformedError(f"{name}: found {json_kind(found)}, expected an object")
    return found
