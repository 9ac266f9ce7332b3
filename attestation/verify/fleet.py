"""Several devices examined together: what the rules on NVIDIA devices judge.

Reference manifests (RIM) travel in it unread: only a rule that demands them reads and verifies
them, because their signatures need an XML library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.anchors import Anchors

    from .ocsp import Response, Status
    from .spdm import Device


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices of one piece of evidence; no more verified than its ledger says.

    Attributes:
        devices: in the sender's order; none is missing.
        revocation: what the OCSP responses supplied say; None if they did not verify.
        manifests: reference manifests supplied, unread.
        manifest_anchors: roots that may vouch for them.
        responses: OCSP responses, for the manifests' signers.
        ocsp_nonce: what each response must carry, or None.
    """

    devices: tuple[Device, ...]
    revocation: Status | None
    manifests: tuple[bytes, ...]
    manifest_anchors: Anchors
    responses: tuple[Response, ...] = ()
    ocsp_nonce: bytes | None = None


def check_distinct(fleet: Fleet, named: Sequence[str] = ()) -> str:
    """Every device is there once: one chip may not answer for two.

    Args:
        fleet: the devices shown.
        named: fingerprints that must be distinct too.

    Raises:
        AttestationError: `gpu_repeated`.
    """
    devices = fleet.devices
    for what, found in (
        ("key", [device.fingerprint for device in devices]),
        ("serial number", [device.chain.serial for device in devices]),
        ("chip", [device.chain.chip for device in devices]),
        ("fingerprint in the binding", list(named)),
    ):
        if len(set(found)) != len(found):
            raise AttestationError(
                f"GPUs: found a {what} twice, expected distinct GPUs", reasons=("gpu_repeated",)
            )
    return f"{len(devices)} distinct devices"
