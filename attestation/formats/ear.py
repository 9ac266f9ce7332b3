"""EAT attestation results (EAR) with the AR4SI trust vector: structure only, nothing believed.

    claims = {"eat_profile", "iat", "ear.verifier-id": {"developer", "build"},
              "submods": {name: {"ear.status", "ear.trustworthiness-vector"?,
                                 "ear.appraisal-policy-id"?, …}}, "exp"?, "eat_nonce"?, …}

Sources: draft-ietf-rats-ear (claims), draft-ietf-rats-ar4si §2.3 (vector and tiers). Members this
module does not name may be present and are kept as claims; none of them makes a result better.

Spec: docs/spec/evidence.md §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

Tier = Literal["affirming", "warning", "contraindicated", "none"]

# From best to worst. "none" is worst here: nothing was said, which is no consent.
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)
VECTOR: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
SUBMODS_MAX: Final = 64
TEXT_MAX: Final = 1_024
VERAISON_PROFILE: Final = "tag:github.com,2023:veraison/ear"
TRUSTEE_PROFILE: Final = "tag:github.com,2024:confidential-containers/Trustee"

_STATUS: Final[dict[object, Tier]] = {
    **{name: name for name in TIERS},
    0: "none",
    2: "affirming",
    32: "warning",
    96: "contraindicated",
}


@dataclass(frozen=True, slots=True)
class Submod:
    """One appraisal in a result.

    Attributes:
        status: the tier it claims.
        vector: trust claim to value, −128 to 127; empty when it has none.
        policy: `ear.appraisal-policy-id`, or None.
    """

    status: Tier
    vector: Mapping[str, int]
    policy: str | None


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """The result a token carries.

    Attributes:
        profile: `eat_profile`.
        developer, build: who appraised.
        submods: name to appraisal, at least one.
    """

    profile: str
    developer: str
    build: str
    submods: Mapping[str, Submod]


def tier(value: int) -> Tier:
    """The tier of a trust claim's value (AR4SI §2.3)."""
    if -1 <= value <= 1:
        return "none"
    if -32 <= value <= 31:
        return "affirming"
    return "warning" if -96 <= value <= 95 else "contraindicated"


def parse_result(claims: Mapping[str, Any]) -> AttestationResult:
    """The result in a token's claims.

    Raises:
        MalformedError: a mandatory claim is missing, or one has another type or range; a trust
            claim is unknown; a status is better than its own vector.
    """
    verifier = claims.get("ear.verifier-id")
    if not isinstance(verifier, dict):
        raise MalformedError("ear.verifier-id: expected an object")
    submods = claims.get("submods")
    if not isinstance(submods, dict) or not 1 <= len(submods) <= SUBMODS_MAX:
        raise MalformedError(f"submods: expected an object of 1 to {SUBMODS_MAX} appraisals")
    if isinstance(claims.get("iat"), bool) or not isinstance(claims.get("iat"), int | float):
        raise MalformedError("iat: expected Unix seconds")
    return AttestationResult(
        profile=_text(claims, "eat_profile"),
        developer=_text(verifier, "developer"),
        build=_text(verifier, "build"),
        submods=MappingProxyType({name: _submod(value) for name, value in submods.items()}),
    )


def _submod(value: object) -> Submod:
    if not isinstance(value, dict):
        raise MalformedError("submods: expected an object for each appraisal")
    vector = _vector(value.get("ear.trustworthiness-vector", {}))
    policy = None
    if value.get("ear.appraisal-policy-id") is not None:
        policy = _text(value, "ear.appraisal-policy-id")
    status = _status(value.get("ear.status"))
    worst = max((_rank(tier(number)) for number in vector.values()), default=0)
    if status != "none" and _rank(status) < worst:
        raise MalformedError(f"ear.status: found {status}, expected no better than the vector")
    return Submod(status, MappingProxyType(vector), policy)


def _vector(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise MalformedError("ear.trustworthiness-vector: expected an object")
    for name, number in value.items():
        if name not in VECTOR:
            raise MalformedError("ear.trustworthiness-vector: found an unknown trust claim")
        if isinstance(number, bool) or not isinstance(number, int) or not -128 <= number <= 127:
            raise MalformedError(f"{name}: expected an integer from -128 to 127")
    return dict(value)


def _status(value: object) -> Tier:
    known = isinstance(value, str | int) and not isinstance(value, bool) and value in _STATUS
    if not known:
        raise MalformedError(f"ear.status: expected {', '.join(TIERS)}")
    return _STATUS[value]


def _rank(name: Tier) -> int:
    """How bad a tier is; a claim that says nothing does not make the whole worse."""
    return {"affirming": 0, "none": 0, "warning": 1, "contraindicated": 2}[name]


def _text(obj: Mapping[str, Any], name: str) -> str:
    value = obj.get(name)
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise MalformedError(f"{name}: expected a text of at most {TEXT_MAX} characters")
    return value
