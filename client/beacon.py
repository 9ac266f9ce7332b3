"""When a listed worker's binding was made at the earliest: the beacon in it, dated by our log.

 a. the proof shows the entry the beacon ends in, under a head a pinned key signed
    (`evidence.beacon.verify_beacon`), the one under which the verdict was shown
 b. that head and *our* head belong to one growing log: a proof to some other signed head would let
    the log date this binding for us alone

What fails here is no error of its own: the appraisal gets no time, and refuses the binding with
`beacon_unverified`; the check says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from attestation.binding import parse_binding
from attestation.result import Check
from evidence.beacon import verify_beacon
from evidence.merkle import verify_consistency
from wire.errors import MalformedError, ReceiptError

from .served import proof

if TYPE_CHECKING:
    from attestation.policy import Policy
    from evidence.checkpoint import SignedCheckpoint

    from .commands import Steps
    from .workers import BindingDocument

STEP: Final = "8 beacon in the log"


@dataclass(frozen=True, slots=True)
class Dated:
    """What was found out about a binding's beacon.

    Attributes:
        time: Unix seconds, for `appraise`; None where there is no beacon or it does not verify.
        checks: one that says how, or why not; empty where the binding names no beacon.
    """

    time: int | None
    checks: tuple[Check, ...] = ()


def date_beacon(document: BindingDocument, policy: Policy, head: SignedCheckpoint) -> Steps[Dated]:
    """Steps a and b of the module docstring, under our verified log head.

    Raises:
        GatewayError: the proof between the heads was not served.
    """
    try:
        beacon = parse_binding(document.binding).beacon
    except MalformedError:
        return Dated(None)  # the appraisal refuses it, with the reason
    if beacon is None:
        return Dated(None)
    shown, origin = document.beacon, policy.log_origin
    assert origin is not None, "a directory was verified"
    if shown is None:
        return _undated("a proof of the beacon's log entry expected, found none")
    try:
        # a
        if shown.entry.checkpoint != document.verdict.checkpoint:
            return _undated("the head of the verdict's proof expected, found another")
        verified = verify_beacon(beacon, shown, origin, policy.log_vkeys)
        # b
        old, new = sorted((verified.checkpoint, head), key=lambda item: item.size)
        path: tuple[bytes, ...] = ()
        if old.size != new.size:
            path = yield from proof(f"/v1/log/consistency?first={old.size}&second={new.size}")
        verify_consistency(old.size, new.size, old.root, new.root, path)
    except (ReceiptError, MalformedError) as error:
        return _undated(error.message)
    said = f"entry {beacon.size - 1}, under the head of size {verified.checkpoint.size}"
    return Dated(verified.time, (Check(STEP, ok=True, detail=said),))


def _undated(why: str) -> Dated:
    return Dated(None, (Check(STEP, ok=False, detail=why),))
