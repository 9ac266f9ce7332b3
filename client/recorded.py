"""Recorded evidence: what a worker showed once, in a file.

Two files hold it: the document `GET /v1/keys/{bh}` serves, and a receipt bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.binding import parse_binding
from evidence.archive import BUNDLE_MAX, FORMAT, bundle_of
from evidence.beacon import verify_beacon
from wire.canonical import parse_strict
from wire.errors import MalformedError, ProtocolFailure, ReceiptError

from .workers import DOCUMENT_REPLY_MAX, binding_document_of

if TYPE_CHECKING:
    from attestation.evidence import Evidence
    from attestation.examined import CollateralSet
    from attestation.policy import Policy
    from evidence.beacon import BeaconProof

RECORDED_MAX: Final = max(DOCUMENT_REPLY_MAX, BUNDLE_MAX)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A worker's showing, unverified.

    Attributes:
        binding, evidence, collateral, posture: as they were served.
        beacon: what is said to date the binding's beacon, or None.
    """

    binding: bytes
    evidence: tuple[Evidence, ...]
    collateral: CollateralSet
    posture: bytes | None
    beacon: BeaconProof | None

    def made_at(self) -> int | None:
        """When the binding begins, Unix seconds; None if it does not parse."""
        try:
            return parse_binding(self.binding).nbf
        except MalformedError:
            return None

    def beacon_time(self, policy: Policy) -> int | None:
        """The beacon's time under the log the policy pins; None where nothing vouches for it."""
        try:
            beacon = parse_binding(self.binding).beacon
            if beacon is None or self.beacon is None or policy.log_origin is None:
                return None
            return verify_beacon(beacon, self.beacon, policy.log_origin, policy.log_vkeys).time
        except (MalformedError, ReceiptError):
            return None


def parse_recorded(raw: bytes) -> Recorded:
    """The showing in a file of either form.

    Raises:
        MalformedError, ReceiptError: neither form.
    """
    return recorded_of(parse_strict(raw, max_bytes=RECORDED_MAX))


def recorded_of(found: object) -> Recorded:
    """The same of what a file was strictly parsed to."""
    if isinstance(found, dict) and found.get("format") == FORMAT:
        bundle = bundle_of(found)
        return Recorded(
            bundle.binding, bundle.evidence, bundle.collateral, bundle.posture, bundle.beacon
        )
    try:
        document = binding_document_of(found)
    except ProtocolFailure as error:
        raise MalformedError(error.message) from error
    return Recorded(
        document.binding, document.evidence, document.collateral, document.posture, document.beacon
    )
