"""The rule for evidence of a vendor's hardware: what every kind shares, and the kind's demands.

    {"kind": …, "measurements": […], "posture": {…}, "roots": [PEM], "simulated": bool, "gpu": {…}}

`roots` replaces the vendor's pinned roots by the policy's own, which is how simulators are judged:
the verdict then says "simulated", and `simulated` may say so too, or say false without `roots`. A
kind without a vendor's root needs roots, or keys, of the policy's own; whether a simulator stands
behind them only the policy knows, so there `simulated` must be stated.

Whoever starts an image writes what names the worker in it: host data is the host's, and a register
the guest's own. So a rule must say which images these may be, and each kind's demands tell whether
they do (`Demands`). Rules of the conformance index judge no worker and are parsed elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from attestation.anchors import NONE, Anchors
from attestation.members import Members
from wire.errors import PolicyError

from .demands import fingerprints, measurements, posture, roots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.scheme import Scheme

GPU_KIND: Final = "nvidia-gpu-spdm-list"
_SHARED_REQUIRED = ("kind", "measurements")
_SHARED_OPTIONAL = ("posture", "roots", "simulated", "gpu")


class Demands(Protocol):
    """What a kind's demands tell of themselves; all else is between `parse` and `judge`."""

    @property
    def unsaid(self) -> str:
        """What a rule for workers must say and these leave open, as a sentence; "" if nothing."""


@dataclass(frozen=True, slots=True)
class HardwareRule:
    """Accepts one kind of hardware evidence.

    Attributes:
        kind: evidence kind.
        measurements: accepted worker measurements, "sha256:" tags.
        posture: control name to the weakest state accepted.
        anchors: the vendor's pinned roots, or the policy's own (then its verdict says so).
        demands: what the kind's `judge` demands of the state.
        roots: the policy's own roots, DER; () for the vendor's.
        gpu: demands on the GPUs behind the same binding; None demands none.
        gpu_anchors: roots for their evidence.
    """

    kind: str
    measurements: frozenset[str]
    posture: Mapping[str, str]
    anchors: Anchors
    demands: Any
    roots: tuple[bytes, ...] = ()
    gpu: Any = None
    gpu_anchors: Anchors = NONE


def parse(item: object, scheme: Scheme, gpu: Scheme) -> HardwareRule:
    """The rule in an `accept` item.

    Args:
        item: the parsed JSON value.
        scheme: the kind it names.
        gpu: the scheme of accompanying GPU evidence.

    Raises:
        PolicyError: anything unknown, missing or of another type; a kind that cannot carry a
            worker's measurement and so proves no worker; demands that any image would meet.
    """
    if scheme.carries is None:
        raise PolicyError(
            f'policy.accept.kind: found "{scheme.kind}", which names no worker; '
            "expected a kind that carries a measurement"
        )
    required, optional = scheme.rule_keys
    members = Members(
        item,
        "policy.accept",
        required=(*_SHARED_REQUIRED, *required),
        optional=(*_SHARED_OPTIONAL, *optional),
        error=PolicyError,
    )
    demands: Demands = scheme.rule(members)
    if demands.unsaid:
        raise PolicyError(f"policy.accept.{demands.unsaid}")
    own = _roots(members)
    gpu_rule, gpu_anchors = _gpu(members, gpu)
    return HardwareRule(
        kind=scheme.kind,
        measurements=measurements(members),
        posture=posture(members),
        anchors=_anchors(members, scheme, demands, own),
        demands=demands,
        roots=own,
        gpu=gpu_rule,
        gpu_anchors=gpu_anchors,
    )


def _roots(members: Members) -> tuple[bytes, ...]:
    return roots(members) if "roots" in members else ()


def _anchors(members: Members, scheme: Scheme, demands: Any, own: tuple[bytes, ...]) -> Anchors:
    vendor = bool(scheme.anchors.pins)
    named = scheme.own is not None and any(scheme.own(demands, own).values())
    if not vendor and not named:
        raise members.fail("roots", "PEM texts of the roots trusted: this kind has no vendor's own")
    # Roots of a vendor's own are pinned in the code; any other judges a simulator, unless the
    # kind has no vendor root at all: a TPM's maker is the policy's choice, and silence about what
    # it is would make a simulator's quotes more than simulated.
    if not vendor and "simulated" not in members:
        raise members.fail(
            "simulated",
            "true where a simulator stands behind these roots or keys, false where real TPMs do",
        )
    simulated = members.flag("simulated", default=bool(own))
    if vendor and simulated is not bool(own):
        where = "true: roots of the policy's own are" if own else "false: the vendor's own are not"
        raise members.fail("simulated", f"{where} a simulator's")
    return Anchors(fingerprints(own), simulated) if own or not vendor else scheme.anchors


def _gpu(members: Members, scheme: Scheme) -> tuple[Any, Anchors]:
    if "gpu" not in members:
        return None, NONE
    required, optional = scheme.rule_keys
    inner = Members(
        members.value("gpu"),
        "policy.accept.gpu",
        required=required,
        optional=("roots", *optional),
        error=PolicyError,
    )
    demands: Demands = scheme.rule(inner)
    if demands.unsaid:
        raise PolicyError(f"policy.accept.gpu.{demands.unsaid}")
    return demands, _anchors(inner, scheme, demands, _roots(inner))
