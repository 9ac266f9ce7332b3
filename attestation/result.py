"""The verdict's types. `AppraisedEvidence` exists only where `appraise` made it."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .binding import Binding
    from .posture import Posture

NO_CLAIMS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
Trust = Literal["hardware", "vtpm", "simulated", "software"]

# Held by `appraise` alone. It stops a caller from building or `replace`-ing a verdict by mistake;
# it is no wall against code running in the same process, and nothing in Python is.
_APPRAISER: Final = object()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why evidence was refused.

    Attributes:
        code: stable, machine-readable.
        detail: a sentence naming found and expected.
        step: the `Check.step` that refused; empty where no single step did.
        case_of: a broader code that it is a case of, though not all of its code are; or empty.
    """

    code: str
    detail: str
    step: str = ""
    case_of: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One step of an appraisal.

    Attributes:
        step: number and name, such as "3 validity".
        ok: True passed, False failed, None did not run. None is never a pass: an appraisal with
            one is refused.
        detail: what was relied on.
    """

    step: str
    ok: bool | None
    detail: str


@final
@dataclass(frozen=True, slots=True)
class AppraisedEvidence:
    """Evidence that met a policy. Only `attestation.appraise.appraise` constructs it.

    Attributes:
        binding: the binding the evidence speaks for.
        bh: SHA-256 of the binding's bytes, 32 bytes.
        trust: what stands behind it; only "hardware" and "vtpm" rest on a vendor's hardware.
        measurement: the measured worker, a "sha256:" tag.
        kind: evidence kind.
        posture: the verified posture record, or None where the worker bound none.
        expires: Unix seconds after which the verdict must not be used.
        released_until: Unix seconds from which on nothing may be released to the keys, not even
            what was sealed while they were offered: `expires`, but for the end of that offer.
        checks: every step, all passed.
        claims: evidence kind to what its evidence says, JSON-able.
        identities: platforms and keys behind it, as a deny list names them.
        controls: names of the controls that the policy demanded of the posture record.
    """

    binding: Binding
    bh: bytes
    trust: Trust
    measurement: str
    kind: str
    posture: Posture | None
    expires: int
    released_until: int
    checks: tuple[Check, ...]
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: NO_CLAIMS)
    identities: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    token: InitVar[object] = None

    def __post_init__(self, token: object) -> None:
        if token is not _APPRAISER:
            raise TypeError("AppraisedEvidence is made by attestation.appraise.appraise only")


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """Evidence that did not meet a policy; the checks still say what it claimed.

    Attributes:
        reasons: at least one, in the order of the steps.
        checks: every step that was reached, and those that were not (ok=None).
        claims: evidence kind to what its evidence says; nothing vouches for it.
    """

    reasons: tuple[Reason, ...]
    checks: tuple[Check, ...]
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: NO_CLAIMS)

    @property
    def codes(self) -> tuple[str, ...]:
        """The reasons' codes, in order."""
        return tuple(reason.code for reason in self.reasons)
