"""Fixtures of the attestation tests: vendor samples, one real (simulated) TPM a session, and
services that sign collateral, with a verifier that pins their roots.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.kept_collateral import NOW, World, vendors_under
from simulators.nvidia import Nvidia
from simulators.vendor_collateral import AmdVendor, IntelVendor, OcspVendor

from attestation.collect.swtpm import missing_tools
from attestation.collect.tpm import TpmAttester
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.nvidia_device import Device

    from attestation.collateral.vendors import Vendors

PARTS = {"first_party": sha256_tag(b"code"), "model": sha256_tag(b"weights")}


def _absent(what: str) -> None:
    """Skip visibly on a machine of one's own; where tests must be whole, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: must be present when CI=true")
    pytest.skip(what)


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    """The index of the vendor samples in $ANCHORHOLD_VECTORS, by id, with `root` their folder."""
    folder = Path(os.environ.get("ANCHORHOLD_VECTORS", ""))
    if not (os.environ.get("ANCHORHOLD_VECTORS") and (folder / "index.json").is_file()):
        _absent("ANCHORHOLD_VECTORS names no folder of vendor samples")
    index = json.loads((folder / "index.json").read_bytes())
    assert index["schema"] == "attestation-vectors/1"
    return {"root": folder, **{vector["id"]: vector for vector in index["vectors"]}}


@pytest.fixture(scope="session")
def attester(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TpmAttester]:
    """One measured TPM attester for the whole session."""
    absent = missing_tools()
    if absent:
        _absent(f"simulated TPM: {', '.join(absent)} not installed")
    tpm = TpmAttester(tmp_path_factory.mktemp("tpm"))
    try:
        tpm.measure(PARTS)
        yield tpm
    finally:
        tpm.close()


@pytest.fixture(scope="session")
def pcs() -> IntelVendor:
    """Intel's service for collateral."""
    return IntelVendor(NOW)


@pytest.fixture(scope="session")
def kds() -> AmdVendor:
    """AMD's."""
    return AmdVendor(NOW)


@pytest.fixture(scope="session")
def responder() -> OcspVendor:
    """NVIDIA's, for what is revoked."""
    return OcspVendor(NOW)


@pytest.fixture(scope="session")
def vendors(pcs: IntelVendor, kds: AmdVendor) -> Vendors:
    """The checks of a verifier that pins the roots of both."""
    return vendors_under(pcs.anchors.pins | kds.anchors.pins)


@pytest.fixture(scope="session")
def vendor() -> Nvidia:
    """NVIDIA, whose devices a test may change and whose certificates it may not."""
    return Nvidia()


@pytest.fixture
def gpus(vendor: Nvidia) -> list[Device]:
    """Three of its GPUs, made for one test."""
    return [vendor.gpu() for _ in range(3)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """All vendors served to a verifier with an empty cache, anew for each test."""
    found = World(tmp_path)
    with found.served:
        yield found
