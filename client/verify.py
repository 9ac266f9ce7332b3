"""Which worker keys a prompt may be sealed to: the whole of protocol §3.2, numbered.

 1. the policy is in force                                   PolicyExpiredError
 2. directory: DSSE signature, age, log entry, inclusion,    DirectoryError, StaleDirectoryError,
    no rollback, no fork against what was remembered         RollbackError, ForkError
 3. the new head is remembered on disk                       ConfigError
 4. the list serves the model and is no shorter than the     BelowPolicyError
    policy's min_workers; denied workers do not count
 5. K workers are drawn at random from the complete list     (drawn anew for every request)
 6. binding fetched, its hash is the listed one              AttestationError binding_hash_mismatch
 7. the logged verdict is a leaf under our own log head,     AttestationError verdict_invalid
    about this binding, positive
 8. live credential activation for evidence that needs it    AttestationError (in step 9)
 9. raw evidence appraised here, under the tenant's policy   AttestationError, its reasons
10. the key is usable: listed, of the strongest suite the    AttestationError
    policy allows, verdict and appraisal agree
11. all candidates run one accepted service policy           BelowPolicyError

Steps 6 to 10 are cached by binding hash until the verdict expires; a worker leaves the cache when
the directory drops or denies it. A worker the policy does not accept is passed over (a roll-out may
be under way); a worker whose binding or log entry is not what the signed list says stops
everything, because then the list's server lies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from attestation.appraise import appraise
from attestation.result import AppraisedEvidence
from attestation.verify.credential import Activation, challenge_for
from evidence.bundle import POLICY_REASONS
from evidence.entry import VerifiedEntry, verify_logged
from evidence.events import ATTEST_VERDICT
from evidence.merkle import leaf_hash, verify_inclusion
from wire.canonical import encode
from wire.errors import (
    AttestationError,
    BelowPolicyError,
    MalformedError,
    ReceiptError,
    UnavailableError,
)
from wire.ids import b64u, bh_of
from wire.limits import K_MAX
from wire.suites import strongest
from wire.wraps import Candidate

from .commands import Fetch, Steps, fetch
from .directory import (
    STEP_DIRECTORY,
    STEP_POLICY,
    STEP_REMEMBER,
    DirectoryView,
    check_policy_window,
)
from .report import Report
from .sampling import shuffled
from .served import get, json_body, json_object, proof
from .workers import (
    _VERIFIER,
    BindingDocument,
    Candidates,
    VerifiedWorker,
    parse_binding_document,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.policy import Policy
    from evidence.directory import TrustedSnapshot, WorkerEntry

DOCUMENT_REPLY_MAX: Final = 1024 * 1024  # four pieces of evidence, a binding, a log entry
FETCHES_MAX: Final = 32  # refused workers passed over in one draw before giving up
NONCE_LEN: Final = 32

STEP_LIST: Final = "4 enough workers serve the model"
STEP_DRAW: Final = "5 candidates drawn at random"
STEP_ONE_POLICY: Final = "11 one accepted service policy"
STEPS: Final = (
    STEP_POLICY,
    STEP_DIRECTORY,
    STEP_REMEMBER,
    STEP_LIST,
    STEP_DRAW,
    "6 binding is the listed one",
    "7 verdict is in the log",
    "8 live activation",
    "9 evidence appraised under the policy",
    "10 key is usable",
    STEP_ONE_POLICY,
)


@dataclass(frozen=True, slots=True)
class Want:
    """What one draw is for.

    Attributes:
        model: name the workers must serve.
        exclude: kids the request was already wrapped to.
        count: at most this many; None for the policy's k.
        policy: service policy the request is bound to already, for a re-wrap.
        suite: suite the request is bound to already, for a re-wrap.
    """

    model: str
    exclude: frozenset[bytes] = frozenset()
    count: int | None = None
    policy: str | None = None
    suite: str | None = None


@dataclass(slots=True)
class Verifier:
    """Draws verified candidates. One for each deployment and policy; its state lives in memory,
    except the log head, which the driver stores."""

    policy: Policy
    clock: Callable[[], int]
    tick: Callable[[], float]
    rng: Callable[[int], bytes]
    directory: DirectoryView = field(init=False)
    _cache: dict[bytes, VerifiedWorker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = DirectoryView(self.policy, self.clock, self.tick)

    def draw(
        self,
        want: Want,
        *,
        not_generation: int | None = None,
        report: Report | None = None,
    ) -> Steps[Candidates]:
        """Steps 1 to 11.

        Args:
            want: what for.
            not_generation: a directory generation that proved useless.
            report: collects every check; also switches the cache off.

        Raises:
            AnchorholdError: as the module docstring lists. With `want.exclude` an empty draw is no
                error: there may be nobody else.
        """
        fresh = report is not None
        if report is None:
            report = Report()
            snapshot = yield from self.directory.ensure(report, not_generation)
        else:
            check_policy_window(self.policy, self.clock(), report)
            snapshot = yield from self.directory.refresh(report)
        self._forget(snapshot)
        listed = self._listed(snapshot, want.model, report)
        count = min(self.policy.k if want.count is None else want.count, K_MAX)
        found: list[VerifiedWorker] = []
        refused: list[AttestationError] = []
        tried = 0
        for entry in shuffled(listed, self.rng):  # 5
            if len(found) == count or tried == FETCHES_MAX:
                break
            if not want.exclude.isdisjoint(entry.kids):
                continue
            tried += 1
            before = len(report.checks)
            try:
                worker = yield from self._worker(entry, report, fresh=fresh)
            except AttestationError as error:
                if not set(error.reasons) <= POLICY_REASONS:
                    raise
                refused.append(error)
                report.set_aside(before)
                continue
            if self._fits(worker, want, found):
                found.append(worker)
        self._check_found(found, refused, want, report)
        head = self.directory.head
        return Candidates(tuple(found), self.directory.generation, 0 if head is None else head.size)

    def models(self, report: Report | None = None) -> Steps[dict[str, VerifiedWorker]]:
        """One verified worker for each model that the policy accepts and the list offers."""
        snapshot = yield from self.directory.ensure(report or Report())
        accepted = {rule.name for rule in self.policy.models}
        names = sorted({name for entry in snapshot.workers for name in entry.models} & accepted)
        found: dict[str, VerifiedWorker] = {}
        for name in names:
            candidates = yield from self.draw(Want(name, count=1), report=report)
            found[name] = candidates.workers[0]
        return found

    def _listed(self, snapshot: TrustedSnapshot, model: str, report: Report) -> list[WorkerEntry]:
        with report.step(STEP_LIST) as detail:  # 4
            if all(rule.name != model for rule in self.policy.models):
                known = ", ".join(rule.name for rule in self.policy.models[:8])
                raise BelowPolicyError(
                    f"model {model[:64]!r}: expected one the policy accepts: {known}",
                    code="model_not_accepted",
                )
            alive = [
                entry
                for entry in snapshot.workers
                if entry.bh not in snapshot.deny and entry.bh not in self.policy.deny.bh
            ]
            listed = [entry for entry in alive if model in entry.models]
            if not listed and alive:
                offered = sorted({name for entry in alive for name in entry.models})
                raise UnavailableError(
                    f"model {model[:64]!r}: expected one that is served: {', '.join(offered[:8])}",
                    code="model_not_found",
                )
            if len(listed) < self.policy.min_workers:
                raise BelowPolicyError(
                    f"directory: at least {self.policy.min_workers} workers for {model[:64]!r} "
                    f"expected, found {len(listed)}",
                    hint="a short list lets its server steer requests; policy member min_workers",
                )
            detail.text = f"{len(listed)} of {len(snapshot.workers)} listed serve {model!r}"
        return listed

    def _worker(self, entry: WorkerEntry, report: Report, *, fresh: bool) -> Steps[VerifiedWorker]:
        """Steps 6 to 10 for one listed worker, or its cached result."""
        cached = self._cache.get(entry.bh)
        if cached is not None and not fresh and self.clock() < cached.appraised.expires:
            return cached
        mark = f"{b64u(entry.bh)[:8]} "
        with report.step(mark + STEPS[5]) as detail:  # 6
            path = f"/v1/keys/{b64u(entry.bh)}"
            document = parse_binding_document((yield from get(path, DOCUMENT_REPLY_MAX)))
            if bh_of(document.binding) != entry.bh:
                raise _refused("binding_hash_mismatch", "binding: not the one the list names")
            detail.text = f"bh {b64u(entry.bh)}"
        with report.step(mark + STEPS[6]) as detail:  # 7
            verdict = yield from self._verdict(entry, document)
            detail.text = f"leaf {verdict.index}"
        with report.step(mark + STEPS[7]) as detail:  # 8
            activation = yield from self._activation(document)
            detail.text = "not needed for this kind" if activation is None else "answered"
        now = self.clock()
        with report.step(mark + STEPS[8]) as detail:  # 9
            result = appraise(
                document.binding,
                document.evidence,
                document.posture,
                self.policy,
                now,
                activation=activation,
            )
            report.include(result.checks, f"{mark}9.")
            if not isinstance(result, AppraisedEvidence):
                first = result.reasons[0]
                raise AttestationError(
                    f"worker {b64u(entry.bh)[:8]}: {first.detail}", reasons=result.codes
                )
            detail.text = f"trust {result.trust}, {result.kind}, {result.measurement}"
        with report.step(mark + STEPS[9]) as detail:  # 10
            candidate = self._candidate(entry, result, verdict)
            detail.text = f"suite {candidate.suite}, expires {result.expires}"
        worker = VerifiedWorker(candidate, result, document, verdict, _VERIFIER)
        self._cache[entry.bh] = worker
        return worker

    def _verdict(self, entry: WorkerEntry, document: BindingDocument) -> Steps[VerifiedEntry]:
        """Step 7. The leaf must lie under *our* head: a proof to some other signed head would let
        the log show this verdict to us alone."""
        origin, head = self.policy.log_origin, self.directory.head
        assert origin is not None
        assert head is not None, "a directory was verified"
        try:
            verdict = verify_logged(document.verdict, origin, self.policy.log_vkeys)
        except ReceiptError as error:
            raise _refused("verdict_invalid", f"verdict: {error.message}") from error
        if verdict.index != entry.leaf:
            raise _refused("verdict_invalid", f"verdict: leaf {entry.leaf} expected")
        if verdict.checkpoint.size != head.size:
            path = yield from proof(f"/v1/log/inclusion?index={entry.leaf}&size={head.size}")
        else:
            path = document.verdict.proof
        try:
            leaf = leaf_hash(document.verdict.leaf)
            verify_inclusion(leaf, verdict.index, head.size, path, head.root)
        except MalformedError as error:
            raise _refused("verdict_invalid", f"verdict: {error.message}") from error
        body = verdict.event.body
        if verdict.event.type != ATTEST_VERDICT or body["bh"] != b64u(entry.bh) or not body["ok"]:
            raise _refused("verdict_invalid", "verdict: a positive one for this binding expected")
        return verdict

    def _activation(self, document: BindingDocument) -> Steps[Activation | None]:
        """Step 8: our own challenge, relayed. Its failure is judged in step 9."""
        accepted = {rule.kind for rule in self.policy.accept}
        for item in document.evidence:
            if item.kind not in accepted:
                continue
            try:
                challenge = challenge_for(item, self.rng)
            except (AttestationError, MalformedError):
                continue  # evidence that cannot be challenged is refused, with its reason, in 9
            if challenge is None:
                continue
            wid = json_object(document.binding, "binding").get("wid")
            request: dict[str, Any] = {
                "nonce": b64u(self.rng(NONCE_LEN)),
                "bh": b64u(bh_of(document.binding)),
                "credential": challenge.credential.to_json(),
            }
            reply = yield from fetch(
                Fetch(
                    "POST",
                    f"/v1/workers/{_segment(wid)}/challenge",
                    DOCUMENT_REPLY_MAX,
                    encode(request),
                    "application/json",
                )
            )
            answer = json_object(json_body(reply), "challenge").get("answer")
            return challenge.activation(answer)
        return None

    def _candidate(
        self, entry: WorkerEntry, appraised: AppraisedEvidence, verdict: VerifiedEntry
    ) -> Candidate:
        """Step 10."""
        binding = appraised.binding
        suite = strongest(
            (kem.suite for kem in binding.kems), allow_x25519=not self.policy.require_pq
        )
        kem = next((item for item in binding.kems if item.suite == suite), None)
        if kem is None:
            raise _refused("suite_not_accepted", "kems: found no suite the policy accepts")
        if kem.kid not in entry.kids:
            raise _refused("kid_not_listed", "directory: the key of the binding expected")
        body = verdict.event.body
        # The log must not call this worker more than its evidence is.
        if (body["trust"], body["measurement"]) != (appraised.trust, appraised.measurement):
            raise _refused(
                "verdict_mismatch", "verdict: the trust and measurement we found expected"
            )
        return Candidate(kem.kid, kem.suite, kem.pk)

    def _fits(self, worker: VerifiedWorker, want: Want, found: list[VerifiedWorker]) -> bool:
        """Step 11: one service policy and one suite for all, since the header names one of each."""
        policy = want.policy or (found[0].policy if found else worker.policy)
        suite = want.suite or (found[0].candidate.suite if found else worker.candidate.suite)
        return (
            worker.serves(want.model)
            and worker.policy == policy
            and worker.candidate.suite == suite
            and worker.kid not in want.exclude
        )

    def _check_found(
        self,
        found: list[VerifiedWorker],
        refused: list[AttestationError],
        want: Want,
        report: Report,
    ) -> None:
        with report.step(STEP_DRAW) as detail:
            if not found and refused:
                report.take_back()
                raise refused[0]
            enough = min(self.policy.min_workers, self.policy.k)
            if len(found) < enough and not want.exclude and want.count is None:
                raise BelowPolicyError(
                    f"candidates: at least {enough} accepted workers of one policy expected, "
                    f"found {len(found)}"
                )
            if not found and not want.exclude:
                raise BelowPolicyError(f"candidates: found no worker for {want.model[:64]!r}")
            detail.text = f"{len(found)} candidates, {len(refused)} passed over"
        with report.step(STEP_ONE_POLICY) as detail:
            for worker in found:
                if worker.policy not in self.policy.service_policies:
                    raise BelowPolicyError("service policy: one the tenant accepted expected")
            detail.text = found[0].policy if found else "nobody else"

    def _forget(self, snapshot: TrustedSnapshot) -> None:
        """Drop workers that are no longer listed, are denied, or whose verdict has expired."""
        listed = {entry.bh for entry in snapshot.workers} - snapshot.deny
        now = self.clock()
        self._cache = {
            bh: worker
            for bh, worker in self._cache.items()
            if bh in listed and now < worker.appraised.expires
        }


def _segment(wid: object) -> str:
    """A worker id as one path segment; the binding is not yet trusted: refuse anything else."""
    if not isinstance(wid, str) or not wid or not all(c.isalnum() or c in "-_." for c in wid):
        raise _refused("binding_malformed", "wid: expected letters, digits, '-', '_' or '.'")
    return wid


def _refused(code: str, message: str) -> AttestationError:
    return AttestationError(message, reasons=(code,))
