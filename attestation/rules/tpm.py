"""The rule for `tpm2` evidence: a TPM whose endorsement key the policy's own roots certify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.evidence import TPM2
from attestation.members import Members
from wire.errors import PolicyError

from .demands import measurements, posture, roots

if TYPE_CHECKING:
    from collections.abc import Mapping

PCR_DEFAULT: Final = 11
# 0-7 belong to firmware; 16 and 23 can be reset from locality 0 and prove nothing.
PCR_ALLOWED: Final = range(8, 16)


@dataclass(frozen=True, slots=True)
class TpmRule:
    """Accepts `tpm2` evidence under roots that stand for simulated TPMs.

    Attributes:
        roots: trust anchors for endorsement key certificates, DER.
        measurements: accepted measurements, "sha256:" tags.
        pcr: the register that must hold exactly the measurement.
        posture: control name to the weakest state accepted.
    """

    roots: tuple[bytes, ...]
    measurements: frozenset[str]
    pcr: int
    posture: Mapping[str, str]
    kind: str = TPM2


def parse(item: object) -> TpmRule:
    """The rule in an `accept` item.

    Raises:
        PolicyError: anything unknown, missing or of another type.
    """
    members = Members(
        item,
        "policy.accept",
        required=("kind", "roots", "measurements"),
        optional=("pcr", "posture", "trust"),
        error=PolicyError,
    )
    # A TPM quote alone ties to no CPU: whatever its root, it may not be called more than this.
    if "trust" in members and members.value("trust") != "simulated":
        raise members.fail("trust", '"simulated": a TPM quote alone names no hardware')
    pcr = PCR_DEFAULT
    if "pcr" in members:
        pcr = members.integer("pcr", PCR_ALLOWED.start, PCR_ALLOWED.stop - 1)
    return TpmRule(roots(members), measurements(members), pcr, posture(members))
