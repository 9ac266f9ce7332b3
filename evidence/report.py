"""The outcome of an offline verification: every check, its result, and the bytes it relied on.

A check is True, False or None. None means it did not run, and that is never a pass.
Exit codes: 0 everything holds, 2 something is invalid, 3 nothing is invalid but it is weaker than
the policy demands or a check did not run, 4 the file cannot be read as a receipt bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

WARNINGS: Final[Mapping[str, str]] = {
    "software": "SOFTWARE TRUST: no hardware vouches for this worker; its operator could have "
    "read everything and signed anything",
    "simulated": "SIMULATED TRUST: what vouches for this worker, a TPM or other hardware, may be a "
    "program; its operator could have read everything and signed anything",
}


class ExitCode(IntEnum):
    """What a command that verifies returns to the shell."""

    OK = 0
    INVALID = 2
    BELOW_POLICY = 3
    UNREADABLE = 4


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """One check.

    Attributes:
        id: stable name, such as "signature" or "evidence.15 signature".
        ok: True held, False did not, None not run.
        detail: what was found and expected, or why it did not run.
        relied_on: named bytes, such as "statement (1873 B, sha256:0f…)".
        demand: "genuine" if failing means the receipt is invalid, "policy" if it means weaker.
    """

    id: str
    ok: bool | None
    detail: str
    relied_on: tuple[str, ...] = ()
    demand: Literal["genuine", "policy"] = "genuine"


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one bundle, in order.

    Attributes:
        checks: every check there is, run or not.
        trust: what stands behind the worker, established by the evidence; None if it was not.
        claims: the statement's claims once its signature held, else empty.
        readable: False if the file is no bundle at all.
    """

    checks: tuple[AuditCheck, ...]
    trust: str | None
    claims: Mapping[str, Any]
    readable: bool = True

    @property
    def exit_code(self) -> ExitCode:
        """See the module docstring."""
        if not self.readable:
            return ExitCode.UNREADABLE
        if any(check.ok is False and check.demand == "genuine" for check in self.checks):
            return ExitCode.INVALID
        if any(check.ok is not True for check in self.checks):
            return ExitCode.BELOW_POLICY
        return ExitCode.OK

    @property
    def warning(self) -> str | None:
        """A sentence that must be shown with the result, or None for hardware trust."""
        if self.trust is None:
            said = self.claims.get("att", {}).get("trust", "nothing that could be verified")
            return (
                "TRUST NOT ESTABLISHED: the evidence could not be accepted; "
                f"the statement itself claims: {said}"
            )
        return WARNINGS.get(self.trust)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "exit_code": int(self.exit_code),
            "result": self.exit_code.name.lower(),
            "trust": self.trust,
            "warning": self.warning,
            "checks": [
                {
                    "id": check.id,
                    "ok": check.ok,
                    "detail": check.detail,
                    "relied_on": list(check.relied_on),
                    "demand": check.demand,
                }
                for check in self.checks
            ],
            "claims": dict(self.claims),
        }

    def lines(self) -> list[str]:
        """For a terminal: the warning first and last, between them one line a check."""
        words = {True: "ok  ", False: "FAIL", None: "----"}
        warning = [f"!! {self.warning}"] if self.warning and self.readable else []
        body = []
        for check in self.checks:
            relied = f"   [{', '.join(check.relied_on)}]" if check.relied_on else ""
            body.append(f"{words[check.ok]}  {check.id}: {check.detail}{relied}")
        verdict = {
            ExitCode.OK: "verified: every check ran and held",
            ExitCode.INVALID: "INVALID: at least one check failed",
            ExitCode.BELOW_POLICY: "BELOW POLICY: genuine as far as checked, but weaker than "
            "demanded, or not everything could be checked",
            ExitCode.UNREADABLE: "UNREADABLE: not a receipt bundle",
        }[self.exit_code]
        return [*warning, *body, verdict, *warning]


def named(name: str, data: bytes) -> str:
    """How a check names bytes it relied on."""
    return f"{name} ({len(data)} B, sha256:{sha256(data).hexdigest()[:16]})"
