"""What one client is made of: endpoint, policy, memory, terms. Built once, used by both drivers."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attestation import signed_policy
from attestation.policy import Policy
from wire.errors import AnchorholdError, ConfigError, PolicyError, UnavailableError

from .clock import wall_clock
from .collateral import EvaluationMemory, OwnCollateral
from .credential import KeyCheck, after_failure, check_key
from .exchange import LIFE_DEFAULT_S, Terms
from .files import read_file
from .http import Endpoint, endpoint
from .report import Report, Verification, weakest
from .state import TrustState, default_state_dir
from .verify import Verifier, Want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wire.header import Pad

    from .commands import Steps
    from .workers import VerifiedWorker

PolicySource = Path | str | bytes | Policy


@dataclass(frozen=True, slots=True)
class Options:
    """Choices with good defaults.

    Attributes:
        state_dir: where log heads and TCB evaluation numbers are remembered; None for
            `default_state_dir()`.
        receipts_dir: save every receipt bundle here as `<request id>.json`; None saves none.
        pad: "cadence" hides sizes and timing; "bucket" and "off" hide less, for measurements.
        life_s: seconds a request may wait and run, at most 900.
        salt: 32 bytes that let this client's requests share a prefix cache; None shares nothing.
        patient: wait a few seconds for a gateway that is restarting.
        live: ask every worker for evidence over a fresh nonce, not only where its kind needs it.
        collateral_dir: judge hardware evidence with this folder's collateral alone; None takes what
            the gateway carries.
        strict: before a worker's first prompt, also have it prove by a sealed ping that it holds
            its key; implies `live`.
        clock: Unix seconds.
        tick: monotonic seconds.
        rng: random bytes.
    """

    state_dir: Path | str | None = None
    receipts_dir: Path | None = None
    pad: Pad = "cadence"
    life_s: int = LIFE_DEFAULT_S
    salt: bytes | None = None
    patient: bool = True
    live: bool = False
    strict: bool = False
    collateral_dir: Path | str | None = None
    clock: Callable[[], int] = wall_clock
    tick: Callable[[], float] = time.monotonic
    rng: Callable[[int], bytes] = os.urandom


@dataclass(frozen=True, slots=True)
class Session:
    """The parts both kinds of client share."""

    where: Endpoint
    state: TrustState
    verifier: Verifier
    terms: Terms
    receipts_dir: Path | None

    def receipt_path(self, rid: str) -> Path | None:
        """Where the receipt of a request is saved, if anywhere."""
        return None if self.receipts_dir is None else self.receipts_dir / f"{rid}.json"


def open_session(
    base_url: str, api_key: str | None, policy: PolicySource, options: Options
) -> Session:
    """Check everything that can be checked without the network.

    Raises:
        ConfigError: URL, key, policy file or receipts folder cannot be used.
        PolicyError: the policy is not valid.
    """
    state_dir = Path(options.state_dir or default_state_dir())
    where = endpoint(base_url, api_key, options.life_s, patient=options.patient)
    chosen, own = load_policy(policy), None
    if options.collateral_dir is not None:
        own = OwnCollateral(Path(options.collateral_dir), chosen).find
    verifier = Verifier(
        chosen,
        options.clock,
        options.tick,
        options.rng,
        live=options.live or options.strict,
        strict=options.strict,
        own=own,
        admit=EvaluationMemory(state_dir).admit,
    )
    if options.receipts_dir is not None and not options.receipts_dir.is_dir():
        raise ConfigError(f"receipts folder {options.receipts_dir}: expected an existing folder")
    return Session(
        where,
        TrustState(state_dir),
        verifier,
        Terms(verifier, options.pad, options.life_s, salt=options.salt),
        options.receipts_dir,
    )


def in_state_dir(options: Options, state_dir: Path | str | None) -> Options:
    """The options, remembering in another folder where one is given."""
    return options if state_dir is None else replace(options, state_dir=state_dir)


def load_policy(source: PolicySource, keys: Sequence[bytes] = ()) -> Policy:
    """A policy from a file, from its bytes, or as it is.

    Args:
        source: a path, bytes, or a policy that was loaded before.
        keys: Ed25519 public keys (32 bytes), one of which must have signed it; () takes unsigned
            policies only.

    Raises:
        ConfigError: the file cannot be read.
        PolicyError: not a valid policy.
    """
    if isinstance(source, Policy):
        return source
    limit = signed_policy.DOCUMENT_MAX
    raw = source if isinstance(source, bytes) else read_file(Path(source), limit, "policy")
    try:
        return signed_policy.load_policy(raw, keys)
    except PolicyError as error:
        if not isinstance(source, bytes):
            error.hint = error.hint or mend_hint(source)
        raise


def mend_hint(path: Path | str) -> str:
    """What to do about a file that is no policy."""
    return f"mend {path}; docs/operate/policies.md says what a policy may hold"


def verification(session: Session, model: str | None) -> Steps[Verification]:
    """Verify the deployment afresh and report every check; never raises for what it finds.

    Args:
        session: whose deployment and policy.
        model: what the candidates must serve; None takes the first accepted model that is served.
    """
    policy = session.verifier.policy
    names = [rule.name for rule in policy.models] if model is None else [model]
    report, error = Report(), None
    workers: tuple[VerifiedWorker, ...] = ()
    for name in names:
        report, error = Report(), None
        try:
            candidates = yield from session.verifier.draw(Want(name), report=report)
        except AnchorholdError as refusal:
            error = refusal
            if isinstance(refusal, UnavailableError) and refusal.code == "model_not_found":
                continue
        else:
            workers = candidates.workers
        break
    if error is not None:
        key = after_failure(error)
    else:
        key = yield from check_key(session.where.api_key)
        error = key.error
    return _conclude(session, report, error, workers, key)


def _conclude(
    session: Session,
    report: Report,
    error: AnchorholdError | None,
    workers: Iterable[VerifiedWorker],
    key: KeyCheck,
) -> Verification:
    policy, head = session.verifier.policy, session.verifier.directory.head
    found = list(workers)
    if error is not None:
        ran = {check.step.partition(" ")[2] for check in report.checks} | {
            check.step for check in report.checks
        }
        report.not_run(step for step in session.verifier.steps if step not in ran)
    return Verification(
        url=session.where.url,
        policy=f"{policy.id} seq {policy.seq} {policy.digest}",
        checks=tuple(report.checks),
        workers=tuple(worker.summary() for worker in found),
        log="" if head is None else f"{head.checkpoint.origin} size {head.size}",
        error=error,
        trust=weakest(worker.trust for worker in found),
        passed_over=tuple(report.aside),
        api_key=key.said,
    )


def model_list(workers: dict[str, VerifiedWorker]) -> list[dict[str, Any]]:
    """OpenAI's model objects, from verified bindings only."""
    return [model_card(name, worker) for name, worker in sorted(workers.items())]


def model_card(name: str, worker: VerifiedWorker) -> dict[str, Any]:
    """OpenAI's model object, with the trust level and digest of the binding that names it."""
    binding = worker.appraised.binding
    digest = next(model.digest for model in binding.models if model.name == name)
    return {
        "id": name,
        "object": "model",
        "created": binding.nbf,
        "owned_by": binding.aud,
        "trust": worker.trust,
        "digest": digest,
    }
