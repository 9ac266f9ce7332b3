"""A verification as a list of checks: what passed, what failed, what did not run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from attestation.result import Check
from evidence.bundle import POLICY_REASONS
from wire.errors import (
    AnchorholdError,
    AttestationError,
    BelowPolicyError,
    ConfigError,
    GatewayError,
    MalformedError,
    PolicyError,
    PolicyExpiredError,
    UnavailableError,
)

from .advice import hint_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from attestation.result import Trust

EXIT_OK: Final = 0
EXIT_INVALID: Final = 2
EXIT_BELOW_POLICY: Final = 3
EXIT_UNREADABLE: Final = 4

_STRENGTH: Final[tuple[Trust, ...]] = ("software", "simulated", "vtpm", "hardware")


@dataclass(slots=True)
class Detail:
    """What a step relied on; set by the step, shown in the report."""

    text: str = ""


@dataclass(slots=True)
class Report:
    """Collects checks in the order they ran; `aside` are those of workers passed over."""

    checks: list[Check] = field(default_factory=list)
    aside: list[Check] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Detail]:
        """Run one named check: a refusal inside it is recorded as failed and goes on up."""
        detail = Detail()
        try:
            yield detail
        except AnchorholdError as error:
            self.checks.append(Check(name, False, error.message))
            raise
        self.checks.append(Check(name, True, detail.text))

    def include(self, checks: Iterable[Check], prefix: str) -> None:
        """Take over checks made elsewhere, under a name of their own."""
        self.checks.extend(Check(f"{prefix}{c.step}", c.ok, c.detail) for c in checks)

    def set_aside(self, start: int) -> None:
        """The checks from `start` on are of a worker that is passed over, not relied on."""
        self.aside += self.checks[start:]
        del self.checks[start:]

    def take_back(self) -> None:
        """Nobody was accepted: the checks set aside are the answer."""
        self.checks += self.aside
        self.aside.clear()

    def not_run(self, names: Iterable[str]) -> None:
        """Record the steps that were never reached: never a pass."""
        seen = {check.step for check in self.checks}
        self.checks.extend(Check(name, None, "not run") for name in names if name not in seen)


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    """One verified candidate, for display. Digests are `sha256:` tags, `expires` Unix seconds."""

    wid: str
    bh: str
    kid: str
    trust: Trust
    kind: str
    measurement: str
    suite: str
    models: tuple[str, ...]
    expires: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of verifying a deployment under one policy.

    Attributes:
        url: what was asked.
        policy: id and digest of the policy applied.
        checks: every step; `ok=None` did not run and is not a pass.
        workers: the candidates drawn, when all of it passed.
        log: origin and size of the verified head, when it was reached.
        error: why it was refused, or None.
        trust: the weakest level among the workers; None when nothing was accepted.
        passed_over: checks of listed workers the policy does not accept; nothing is sent to them.
        api_key: what became of the tenant's credential: not sent, accepted, refused, not tested.
    """

    url: str
    policy: str
    checks: tuple[Check, ...]
    workers: tuple[WorkerSummary, ...]
    log: str
    error: AnchorholdError | None
    trust: Trust | None
    passed_over: tuple[Check, ...] = ()
    api_key: str = ""

    @property
    def ok(self) -> bool:
        """Whether every step ran and passed."""
        return self.error is None and all(check.ok for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0 ok, 2 invalid, 3 genuine but below policy, 4 could not be read."""
        if self.error is not None:
            return exit_code(self.error)
        return EXIT_OK if self.ok else EXIT_INVALID

    def require(self) -> Verification:
        """This verification, if it passed; otherwise raises why not.

        Raises:
            AnchorholdError: `error`; BelowPolicyError where a check failed or did not run without
                one, since a check that did not run is never a pass.
        """
        if self.error is not None:
            raise self.error
        for check in self.checks:
            if not check.ok:
                what = "did not run" if check.ok is None else "failed"
                raise BelowPolicyError(
                    f"verification: every check passed expected, {check.step!r} {what}"
                )
        return self

    def to_json(self) -> dict[str, Any]:
        """The `--json` form."""
        return {
            "ok": self.ok,
            "url": self.url,
            "trust": self.trust,
            "policy": self.policy,
            "log": self.log,
            "checks": _json(self.checks),
            "passed_over": _json(self.passed_over),
            "api_key": self.api_key,
            "workers": [
                {name: getattr(worker, name) for name in WorkerSummary.__slots__}
                for worker in self.workers
            ],
            "error": None
            if self.error is None
            else {
                "code": self.error.code,
                "message": self.error.message,
                "hint": hint_of(self.error),
            },
            "exit_code": self.exit_code,
        }


def _json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    return [{"step": check.step, "ok": check.ok, "detail": check.detail} for check in checks]


def weakest(levels: Iterable[Trust]) -> Trust | None:
    """The weakest of several trust levels: a request may be answered by any candidate."""
    found = list(levels)
    return min(found, key=_STRENGTH.index) if found else None


def exit_code(error: AnchorholdError) -> int:
    """The process exit code an error stands for."""
    if isinstance(error, BelowPolicyError | PolicyExpiredError):
        return EXIT_BELOW_POLICY
    if isinstance(error, AttestationError):
        below = bool(error.reasons) and set(error.reasons) <= POLICY_REASONS
        return EXIT_BELOW_POLICY if below else EXIT_INVALID
    if isinstance(error, ConfigError | GatewayError | PolicyError | UnavailableError):
        return EXIT_UNREADABLE
    if type(error) is MalformedError:  # the caller's own request; hostile bytes have subclasses
        return EXIT_UNREADABLE
    return EXIT_INVALID
