"""Workers on simulated hardware, for tests that take every kind in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attestation.carried import collateral_json

from .gpu_tee import SnpGpuTee
from .hardware_tee import AzureSnpTee, HardwareTee, NitroTee, SnpTee, TdxTee

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .answers import Listed
    from .worker_peer import WorkerPeer

KINDS: Final[tuple[type[HardwareTee], ...]] = (SnpTee, TdxTee, NitroTee, AzureSnpTee, SnpGpuTee)


def tee_of(listed: Listed) -> Any:
    """The worker's hardware."""
    assert isinstance(listed.tee, HardwareTee)
    return listed.tee


def platform(worker: WorkerPeer) -> Any:
    """The hardware of a worker on its link."""
    assert isinstance(worker.tee, HardwareTee)
    return worker.tee


def carried(listed: Listed, **roles: bytes | None) -> dict[str, Any]:
    """The worker's collateral as served, with some roles changed, or absent for None."""
    kind = listed.tee.kind
    found: Mapping[str, bytes] = listed.tee.collateral()[kind]
    changed = {role: data for role, data in {**found, **roles}.items() if data is not None}
    return collateral_json({**listed.tee.collateral(), kind: changed})
