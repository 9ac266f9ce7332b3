"""The file format of receipt bundles: everything needed to verify one receipt offline.

    {"format":"anchorhold-receipt/1",
     "receipt":{"statement","blind","log":{index, leaf, blind, event, checkpoint, proof}},
     "binding":b64,"evidence":[{"kind","body"}],"collateral":{kind:{role:b64}},"posture":b64|null,
     "verdict":{index, leaf, blind, event, checkpoint, proof}|null,
     "beacon":{"entry":{…},"consistency":[b64…]}|null,"consistency":[b64…],
     "info":{…}}

A bundle holds no prompt, no answer and no salt. `info` is for people and is not believed. Reading
one verifies nothing; `bundle.verify_bundle` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.carried import COLLATERAL_MAX, collateral_json, parse_collateral
from attestation.evidence import EVIDENCE_MAX, Evidence, evidence_list
from attestation.examined import NO_COLLATERAL
from attestation.posture import CONTAINER_MAX
from wire.canonical import encode, parse_strict
from wire.ids import b64u, unb64u
from wire.limits import BINDING_MAX

from . import shape
from .beacon import BeaconProof
from .entry import Logged
from .merkle import PROOF_MAX
from .record import ReceiptRecord, parse_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attestation.examined import CollateralSet

FORMAT: Final = "anchorhold-receipt/1"
# One CPU's evidence takes 30 KiB; this has room for a node of GPUs and all that vouches for them.
BUNDLE_MAX: Final = 1024 * 1024 + 2 * EVIDENCE_MAX + COLLATERAL_MAX
_POSTURE_TEXT_MAX: Final = -(-CONTAINER_MAX // 3) * 4  # in base64
_ANY = shape.shaped({}, closed=False)
_SHAPE = shape.shaped(
    {
        "format": shape.one_of(FORMAT),
        "receipt": _ANY,
        "binding": shape.text(2 * BINDING_MAX),
        "evidence": shape.listed(_ANY, 8),
        "collateral": _ANY,
        "posture": shape.optional(shape.text(_POSTURE_TEXT_MAX)),
        "verdict": shape.optional(_ANY),
        "beacon": shape.optional(_ANY),
        "consistency": shape.listed(shape.raw(32), PROOF_MAX),
        "info": shape.scalars(16),
    }
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's parts, unverified.

    Attributes:
        record: statement, blind and log entry, as the sealed stream carried them.
        binding: the worker's binding bytes.
        evidence: evidence for that binding.
        collateral: vendors' statements about it.
        posture: the posture container, or None.
        verdict: the gateway's logged verdict on that binding, or None.
        beacon: what dates the beacon in the binding, or None.
        consistency: proof between the heads of `verdict` and `record`, empty if they are equal.
        info: notes for people.
    """

    record: ReceiptRecord
    binding: bytes
    evidence: tuple[Evidence, ...]
    collateral: CollateralSet
    posture: bytes | None
    verdict: Logged | None
    beacon: BeaconProof | None
    consistency: tuple[bytes, ...]
    info: Mapping[str, Any]


def build_bundle(
    record: ReceiptRecord,
    *,
    binding: bytes,
    evidence: Sequence[Evidence],
    collateral: CollateralSet = NO_COLLATERAL,
    posture: bytes | None,
    verdict: Logged | None,
    beacon: BeaconProof | None = None,
    consistency: Sequence[bytes] = (),
    info: Mapping[str, str | int | bool | None] | None = None,
) -> bytes:
    """Write a bundle file.

    With the verdict proved under another head than the receipt, `consistency` is the proof from the
    smaller head to the larger. The beacon's entry must stand under one of the two, under the very
    same signed note.
    """
    document = {
        "format": FORMAT,
        "receipt": parse_strict(record.encode()),
        "binding": b64u(binding),
        "evidence": [item.to_json() for item in evidence],
        "collateral": collateral_json(collateral),
        "posture": None if posture is None else b64u(posture),
        "verdict": None if verdict is None else verdict.to_json(),
        "beacon": None if beacon is None else beacon.to_json(),
        "consistency": [b64u(item) for item in consistency],
        "info": dict(info or {}),
    }
    _SHAPE(document, "bundle")
    return encode(document)


def parse_bundle(raw: bytes) -> Bundle:
    """Parse a bundle file; `MalformedError` or `ReceiptError` if it is none."""
    return bundle_of(parse_strict(raw, max_bytes=BUNDLE_MAX))


def bundle_of(found: Any) -> Bundle:
    """The bundle in a strictly parsed file; raises as `parse_bundle`."""
    _SHAPE(found, "bundle")
    return Bundle(
        record=parse_record(encode(found["receipt"])),
        binding=unb64u(found["binding"]),
        evidence=evidence_list(found["evidence"]),
        collateral=parse_collateral(found["collateral"]),
        posture=None if found["posture"] is None else unb64u(found["posture"]),
        verdict=None if found["verdict"] is None else Logged.from_json(found["verdict"]),
        beacon=None if found["beacon"] is None else BeaconProof.from_json(found["beacon"]),
        consistency=tuple(unb64u(item) for item in found["consistency"]),
        info=found["info"],
    )
