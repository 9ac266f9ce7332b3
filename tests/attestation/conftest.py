"""Fixtures of the attestation tests: vendor samples, and one real (simulated) TPM a session."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attestation.collect.swtpm import missing_tools
from attestation.collect.tpm import TpmAttester
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

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
