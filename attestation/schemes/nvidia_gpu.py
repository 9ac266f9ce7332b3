"""Kind `nvidia-gpu-spdm`: one GPU's signed measurements (Hopper, Blackwell).

Examination, steps 1 to 8 of `verify.spdm`; reason codes version_not_accepted, evidence_malformed,
untrusted_root, chain_invalid, certificate_not_valid_at_time, product_not_accepted,
gpu_architecture_mismatch, signature_invalid, fwid_mismatch, revoked, revocation_unknown,
ocsp_invalid, ocsp_nonce_mismatch, collateral_expired, nonce_mismatch. State: `rules.nvidia`.

A GPU alone cannot show which worker uses it: it accompanies a CPU's evidence (`composite`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import NVIDIA, NVIDIA_RIM, Anchors
from attestation.examined import NO_CLAIMS, Examined
from attestation.formats.spdm import parse_report
from attestation.ledger import Ledger
from attestation.rules import nvidia
from attestation.scheme import Scheme
from attestation.verify.device import COLLATERAL, Item, examine_items, further_needs, needs_of
from attestation.verify.spdm import GPUS
from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.examined import Question
    from attestation.scheme import Need

KIND: Final = "nvidia-gpu-spdm"
ROLES: Final = ("evidence", "cert_chain")
ANCHORS: Final = Anchors(NVIDIA.pins | NVIDIA_RIM.pins)


def examine(question: Question) -> Examined:
    """Whether a genuine GPU says this, for the nonce expected."""
    return examine_single(KIND, GPUS, question)


def examine_single(kind: str, architectures: Sequence[str], question: Question) -> Examined:
    """One device of the given architectures under a kind's name."""
    ledger = Ledger()
    item = Item(question.evidence.get(ROLES[0], b""), question.evidence.get(ROLES[1], b""))
    examination = examine_items(ledger, [item], question, architectures)
    fleet = examination.fleet
    claims = fleet.devices[0].claims() if fleet is not None else _reported(item.report)
    return examination.finish(kind, claims)


def _reported(report: bytes) -> Mapping[str, Any]:
    """What a report says whose chain does not parse: that is no reason not to tell."""
    try:
        return parse_report(report).claims()
    except MalformedError:
        return NO_CLAIMS


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Collateral for this evidence."""
    return needs_of([Item(evidence.get(ROLES[0], b""), evidence.get(ROLES[1], b""))])


def further(evidence: Mapping[str, bytes], collateral: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Answers about the signers of the manifests at hand."""
    return further_needs(needs(evidence), collateral)


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=(ROLES, ()),
    collateral=COLLATERAL,
    anchors=ANCHORS,
    examine=examine,
    needs=needs,
    rule=nvidia.parse_gpu,
    judge=nvidia.judge,
    carries=None,
    rule_keys=(nvidia.GPU_KEYS, nvidia.OPTIONAL_KEYS),
    further=further,
)
