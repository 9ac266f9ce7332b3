"""Which worker keys a prompt may be sealed to: the whole of protocol §3.2, numbered.

 1. the policy is in force                                   PolicyExpiredError
 2. directory: DSSE signature, age, log entry, inclusion,    DirectoryError, StaleDirectoryError,
    no rollback, no fork against what was remembered         RollbackError, ForkError
 3. the new head is remembered on disk                       ConfigError
 4. the list serves the model and is no shorter than the     BelowPolicyError
    policy's min_workers; denied workers do not count
 5. K distinct workers are drawn at random from the complete (drawn anew for every request)
    list; a second binding of one drawn counts for nothing,  BelowPolicyError under min_workers
    and shortens the list that step 4 measured
 6. binding fetched, its hash is the listed one              AttestationError binding_hash_mismatch
 7. the logged verdict is a leaf under our own log head,     AttestationError verdict_invalid
    about this binding, positive
 8. live evidence over our own nonce, with credential        AttestationError live_mismatch,
    activation: for kinds that need it, or if `live`         or its reasons
 9. raw evidence appraised here, under the tenant's policy;  AttestationError, its reasons
    its age by the log entry its beacon names, proved under
    our own log head; no older collateral than seen before   collateral_rollback
10. the key is usable: listed, of the strongest suite the    AttestationError
    policy allows, verdict and appraisal agree
11. all candidates run one accepted service policy           BelowPolicyError
12. if `strict`: each key has answered a sealed ping         AttestationError possession_unproven

Steps 6 to 10 and 12 are cached by binding hash until the verdict expires; a worker leaves the cache
when the directory drops or denies it. A worker the policy does not accept is passed over (a
roll-out may be under way), and so is one that is gone or could not answer a ping, or that its
vendor, or time, has given up since it was listed. A worker whose binding or log entry is not what
the signed list says stops everything, because then the list's server lies; so does evidence that is
not what it claims to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from evidence.bundle import POLICY_REASONS
from wire.errors import (
    AnchorholdError,
    AttestationError,
    BelowPolicyError,
    GatewayError,
    StreamTruncated,
    UnavailableError,
    WorkerNotice,
)
from wire.limits import K_MAX

from .collateral import ROLLBACK
from .directory import (
    STEP_DIRECTORY,
    STEP_POLICY,
    STEP_REMEMBER,
    DirectoryView,
    check_policy_window,
)
from .distinct import at_most, one_worker
from .report import Report
from .sampling import shuffled
from .worker_checks import STEP_PING, WorkerChecks
from .worker_checks import STEPS as WORKER_STEPS
from .workers import Candidates, VerifiedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attestation.evidence import Evidence
    from attestation.examined import CollateralSet
    from attestation.policy import Policy
    from attestation.result import AppraisedEvidence
    from evidence.directory import TrustedSnapshot, WorkerEntry

    from .commands import Steps

# Genuine once: the time it was good for is not now, or its vendor no longer stands by it. This
# comes to one worker before another. Nothing is sent to it, and no list was forged to show it.
_GIVEN_UP: Final = frozenset(
    {
        "binding_expired",
        "binding_not_yet_valid",
        "certificate_not_valid_at_time",
        "certificate_status",
        "collateral_expired",
        "collateral_not_yet_valid",
        ROLLBACK,
        "crl_expired",
        "crl_not_yet_valid",
        "evidence_not_yet_valid",
        "evidence_stale",
        "manifest_expired",
        "manifest_not_yet_valid",
        "revocation_unknown",
        "revoked",
        "tcb_level_not_found",
        "tcb_revoked",
        "token_expired",
        "token_not_yet_valid",
    }
)
_PASSED_OVER: Final = POLICY_REASONS | _GIVEN_UP
TRIED_MAX: Final = 32  # listed workers looked at in one draw before giving up

STEP_LIST: Final = "4 enough workers serve the model"
STEP_DRAW: Final = "5 candidates drawn at random"
STEP_ONE_POLICY: Final = "11 one accepted service policy"
STEPS: Final = (
    STEP_POLICY,
    STEP_DIRECTORY,
    STEP_REMEMBER,
    STEP_LIST,
    STEP_DRAW,
    *WORKER_STEPS,
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
    except the log head, which the driver stores.

    Attributes:
        live, strict, own, admit: see `WorkerChecks`.
    """

    policy: Policy
    clock: Callable[[], int]
    tick: Callable[[], float]
    rng: Callable[[int], bytes]
    live: bool = False
    strict: bool = False
    own: Callable[[Sequence[Evidence], int], CollateralSet] | None = None
    admit: Callable[[AppraisedEvidence], None] | None = None
    directory: DirectoryView = field(init=False)
    _checks: WorkerChecks = field(init=False)
    _cache: dict[bytes, VerifiedWorker] = field(default_factory=dict)
    _refused: dict[bytes, AttestationError] = field(default_factory=dict)
    _generation: int = 0

    def __post_init__(self) -> None:
        self.directory = DirectoryView(self.policy, self.clock, self.tick)
        self._checks = WorkerChecks(
            self.policy,
            self.clock,
            self.rng,
            self.directory,
            self.live,
            self.strict,
            self.own,
            self.admit,
        )

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of all steps a draw takes."""
        return (*STEPS, STEP_PING) if self.strict else STEPS

    def draw(
        self,
        want: Want,
        *,
        not_generation: int | None = None,
        report: Report | None = None,
    ) -> Steps[Candidates]:
        """Steps 1 to 11, and 12 where `strict`.

        Args:
            want: what for.
            not_generation: a directory generation that proved useless.
            report: collects every check; also switches the cache off.

        Raises:
            AnchorholdError: as the module docstring lists. With `want.exclude` an empty draw is no
                error: there may be nobody else.
        """
        fresh = report is not None
        report = report or Report()
        if fresh:
            check_policy_window(self.policy, self.clock(), report)
            snapshot = yield from self.directory.refresh(report)
        else:
            snapshot = yield from self.directory.ensure(report, not_generation)
        drawn = yield from self._sample(snapshot, want, report, fresh=fresh)
        lost = bool(drawn.gone) and len(drawn.found) < self._count(want)
        short = drawn.listing is not None or lost
        if short and not fresh and self.directory.wait_for_refresh() == 0:
            # The list may be older than a worker's end, or than its return: look at a newer one.
            snapshot = yield from self.directory.ensure(report, self.directory.generation)
            drawn = yield from self._sample(snapshot, want, report, fresh=fresh)
        if drawn.listing is not None:
            raise drawn.listing
        self._check_found(drawn, want, report)
        head = self.directory.head
        assert head is not None, "a directory was verified"
        return Candidates(tuple(drawn.found), self.directory.generation, head.size)

    def _sample(
        self, snapshot: TrustedSnapshot, want: Want, report: Report, *, fresh: bool
    ) -> Steps[_Drawn]:
        """Steps 4 to 10, and 12, over one snapshot."""
        self._forget(snapshot)
        self._check_model(want.model, report)
        try:
            listed = self._listed(snapshot, want.model, report)
        except (BelowPolicyError, UnavailableError) as error:
            return _Drawn([], listing=error)
        drawn = _Drawn(listed)
        tried = 0
        for entry in shuffled(listed, self.rng):  # 5
            if len(drawn.found) == self._count(want) or tried == TRIED_MAX:
                break
            if not want.exclude.isdisjoint(entry.kids):
                continue
            tried += 1
            before = len(report.checks)
            try:
                worker = yield from self._worker(entry, report, fresh=fresh)  # 6 to 10
            except AttestationError as error:
                if not set(error.reasons) <= _PASSED_OVER:
                    raise
                drawn.refused.append(error)
                report.set_aside(before)
            except (GatewayError, WorkerNotice, StreamTruncated) as error:
                drawn.gone.append(error)
                report.set_aside(before)
            else:
                if self._fits(worker, want, drawn.found):
                    drawn.found.append(worker)
        return drawn

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

    def _check_model(self, model: str, report: Report) -> None:
        if any(rule.name == model for rule in self.policy.models):
            return
        with report.step(STEP_LIST):  # 4
            known = ", ".join(rule.name for rule in self.policy.models[:8])
            raise BelowPolicyError(
                f"model {model[:64]!r}: expected one the policy accepts: {known}",
                code="model_not_accepted",
            )

    def _listed(self, snapshot: TrustedSnapshot, model: str, report: Report) -> list[WorkerEntry]:
        with report.step(STEP_LIST) as detail:  # 4
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
                    hint="workers may be restarting, and the list is read again on the next try; "
                    "the policy's min_workers forbids a short one, which could steer requests",
                )
            detail.text = f"{len(listed)} of {len(snapshot.workers)} listed serve {model!r}"
        return listed

    def _worker(self, entry: WorkerEntry, report: Report, *, fresh: bool) -> Steps[VerifiedWorker]:
        """The worker from the cache, where a verdict on it still holds; checked otherwise."""
        if not fresh:
            cached = self._cache.get(entry.bh)
            if cached is not None and self.clock() < cached.appraised.expires:
                return cached
            if entry.bh in self._refused:
                raise self._refused[entry.bh]
        try:
            worker = yield from self._checks.run(entry, report)
        except AttestationError as error:
            self._refused[entry.bh] = error  # until the next directory: no refusal is for ever
            raise
        self._cache[entry.bh] = worker
        return worker

    def _count(self, want: Want) -> int:
        return min(self.policy.k if want.count is None else want.count, K_MAX)

    def _fits(self, worker: VerifiedWorker, want: Want, found: list[VerifiedWorker]) -> bool:
        """Step 11: one service policy and one suite for all, since the header names one of each;
        and step 5: another worker than those drawn already."""
        policy = want.policy or (found[0].policy if found else worker.policy)
        suite = want.suite or (found[0].candidate.suite if found else worker.candidate.suite)
        return (
            worker.serves(want.model)
            and worker.policy == policy
            and worker.candidate.suite == suite
            and worker.kid not in want.exclude
            and not any(one_worker(worker, other) for other in found)
        )

    def _check_found(self, drawn: _Drawn, want: Want, report: Report) -> None:
        found = drawn.found
        with report.step(STEP_DRAW) as detail:
            if not found and (drawn.refused or drawn.gone):
                report.take_back()
                raise (*drawn.refused, *drawn.gone)[0]
            enough = min(self.policy.min_workers, self.policy.k)
            if len(found) < enough and not want.exclude and want.count is None:
                raise BelowPolicyError(
                    f"candidates: at least {enough} distinct workers of one policy expected, "
                    f"found {len(found)}"
                )
            # Every list, not only those longer than k: what was drawn may show that it is padded.
            most = at_most(drawn.listed, self._cache.values())
            if most < self.policy.min_workers and not want.exclude and want.count is None:
                raise BelowPolicyError(
                    f"directory: at least {self.policy.min_workers} workers for "
                    f"{want.model[:64]!r} expected, found {most} in {len(drawn.listed)} entries",
                    hint="a worker under several bindings counts once; policy member min_workers",
                )
            if not found and not want.exclude:
                raise BelowPolicyError(f"candidates: found no worker for {want.model[:64]!r}")
            passed = len(drawn.refused) + len(drawn.gone)
            detail.text = f"{len(found)} candidates, {passed} passed over"
        with report.step(STEP_ONE_POLICY) as detail:
            for worker in found:
                if worker.policy not in self.policy.service_policies:
                    raise BelowPolicyError("service policy: one the tenant accepted expected")
            detail.text = found[0].policy if found else "nobody else"

    def _forget(self, snapshot: TrustedSnapshot) -> None:
        """With a new directory, drop who is no longer listed or is denied, and all refusals."""
        if self._generation == self.directory.generation:
            return
        self._generation = self.directory.generation
        listed = {entry.bh for entry in snapshot.workers} - snapshot.deny
        self._cache = {bh: worker for bh, worker in self._cache.items() if bh in listed}
        self._refused.clear()


@dataclass(slots=True)
class _Drawn:
    """Outcome of one sampling: of what list, accepted, refused by the policy, not there; or why
    the list itself will not do."""

    listed: list[WorkerEntry]
    found: list[VerifiedWorker] = field(default_factory=list)
    refused: list[AttestationError] = field(default_factory=list)
    gone: list[AnchorholdError] = field(default_factory=list)
    listing: AnchorholdError | None = None
