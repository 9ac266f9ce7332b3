"""The account of an appraisal: every step with its outcome, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wire.errors import AttestationError, MalformedError

from .result import Check, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Ledger:
    """Runs steps and records each as a `Check`; a failed step adds a `Reason`.

    A step is a function that returns what it relied on, or raises `AttestationError` with its
    reason code. `MalformedError` takes the code given with the step. Anything else is a bug and
    passes through: an unforeseen exception must never look like a verdict.
    """

    __slots__ = ("checks", "reasons")

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.reasons: list[Reason] = []

    @property
    def accepted(self) -> bool:
        """Whether every recorded step passed. A step that did not run (None) has not."""
        return bool(self.checks) and all(check.ok is True for check in self.checks)

    def run(self, step: str, check: Callable[[], str], malformed: str = "malformed") -> bool:
        """Run one step.

        Args:
            step: number and name.
            check: returns the detail, or raises.
            malformed: reason code of a `MalformedError`.

        Returns:
            Whether the step passed.
        """
        try:
            detail = check()
        except AttestationError as refusal:
            code = (refusal.reasons or (refusal.code,))[0]
            self._refuse(step, code, refusal.message, refusal.case_of)
            return False
        except MalformedError as refusal:
            self._refuse(step, malformed, refusal.message)
            return False
        self.checks.append(Check(step, ok=True, detail=detail))
        return True

    def skip(self, step: str, because: str) -> None:
        """Record that a step did not run. That is no pass: the appraisal is refused."""
        self.checks.append(Check(step, ok=None, detail=f"not run: {because}"))

    def include(self, checks: Iterable[Check], reasons: Iterable[Reason]) -> None:
        """Take over the account of a part that kept its own."""
        self.checks.extend(checks)
        self.reasons.extend(reasons)

    def missing(self, step: str, code: str, detail: str) -> None:
        """Record a step that could not run for want of an input, with its own reason."""
        self.skip(step, detail)
        self.reasons.append(Reason(code, detail, step))

    def _refuse(self, step: str, code: str, detail: str, case_of: str = "") -> None:
        self.checks.append(Check(step, ok=False, detail=detail))
        self.reasons.append(Reason(code, detail, step, case_of))
