"""The published samples of vendors' evidence, run as they are or with one fact changed.

They lie in the folder that $ANCHORHOLD_VECTORS names, beside their index; none is in this project.

    found = outcome("tdx-v4-uptodate-b0c06f", {"gpu_evidence": path}, expected_nonce_hex="aa" * 32)

`bound` makes the one sample that nobody published: a CPU that names GPUs. Its TPM is simulated, and
the relying party brings the TPM's key; the GPUs' evidence is genuine.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simulators.vtpm import NOW, Vtpm, VtpmMaker

from attestation.conformance.index import parse_index
from attestation.conformance.run import run_sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.conformance.run import Outcome

FOLDER = Path(os.environ.get("ANCHORHOLD_VECTORS", "/nonexistent"))
INDEX = FOLDER / "index.json"
DOCUMENT = json.loads(INDEX.read_bytes()) if INDEX.is_file() else {"vectors": [], "roots": {}}
needs_samples = pytest.mark.skipif(
    not DOCUMENT["vectors"], reason="ANCHORHOLD_VECTORS names no folder of vendor samples"
)
QUOTE, KEYED = "tdx-v4-uptodate-b0c06f", "snp-milan-v5-key-bound"
GPU, OTHER, GPUS = "nvidia-hopper-550", "nvidia-hopper-580", "nvidia-hopper-multi4"
SWITCH, BLACKWELL = "nvidia-ls10-switch", "nvidia-blackwell-575"
GENUINE = (True, True, set[str]())


def sample(name: str) -> dict[str, Any]:
    """One sample of the index, to be changed."""
    found: dict[str, Any] = copy.deepcopy(
        next(item for item in DOCUMENT["vectors"] if item["id"] == name)
    )
    return found


def files_of(name: str) -> dict[str, str]:
    """Role to path."""
    found: dict[str, str] = sample(name)["files"]
    return found


def file(name: str, role: str) -> bytes:
    """The bytes of one of its files."""
    return published(files_of(name)[role])


def published(path: str) -> bytes:
    """The bytes of a file by its path in the index."""
    return (FOLDER / path).read_bytes()


def changed(
    name: str,
    change: Callable[[dict[str, Any]], object],
    read: Callable[[str], bytes] = published,
) -> Outcome:
    """A published sample after a change to its entry in the index, or to what is read, run."""
    entry = sample(name)
    change(entry)
    index = parse_index(json.dumps({**DOCUMENT, "vectors": [entry]}).encode())
    return run_sample(index.samples[0], index, read)


def outcome(name: str, beside: dict[str, str], **inputs: Any) -> Outcome:
    """A published sample with more files beside its own, run."""

    def add(entry: dict[str, Any]) -> None:
        entry["files"] |= beside
        entry["inputs"] |= inputs

    return changed(name, add)


def bound(
    *gpus: str,
    now: int | None = NOW,
    binding: str = "",
    inputs: Any = None,
    roots: Any = None,
    **files: bytes,
) -> Outcome:
    """A TPM's quote whose caller's data is the digest of these files, and the files, run.

    Args:
        gpus: the roles that it names, one after the other.
        now: the time of the verdict, or None.
        binding: another rule than that it names them.
        inputs: more of them.
        roots: those that the index lists, other than the published ones.
        files: role to bytes.
    """
    tpm = Vtpm(VtpmMaker())
    said = hashlib.sha256(b"".join(files[role] for role in gpus)).digest()
    quoted = tpm.evidence(said, ak_cert=None)
    held = {**quoted, "ak_spki": tpm.spki, **files}
    rule = binding or f"extra_data == SHA-256({' || '.join(gpus)})"
    entry = {
        "id": "made",
        "kind": "tpm2-quote",
        "files": {role: role for role in held},
        "verify_at": None if now is None else datetime.fromtimestamp(now, UTC).isoformat(),
        "inputs": {"binding": rule, **(inputs or {})},
        "expected": {"authentic": True, "strict": "accept"},
    }
    document = {
        "schema": "attestation-vectors/1",
        "roots": DOCUMENT["roots"] if roots is None else roots,
        "vectors": [entry],
    }
    index = parse_index(json.dumps(document).encode())
    return run_sample(index.samples[0], index, held.__getitem__)


def codes(found: Outcome) -> list[str]:
    """The codes of its reasons."""
    return [reason.code for reason in found.reasons]


def verdict(found: Outcome) -> tuple[bool | None, bool | None, set[str]]:
    """Authentic, accepted, and the codes."""
    return found.authentic, found.accepted, set(codes(found))


def report(name: str = GPU) -> dict[str, bytes]:
    """One device's evidence with its chain beside it."""
    return {"gpu_evidence": file(name, "evidence"), "gpu_cert_chain": file(name, "cert_chain")}


def item(name: str = GPU, **changes: Any) -> dict[str, Any]:
    """One device as NVIDIA's tools write it."""
    return {
        "evidence": base64.b64encode(file(name, "evidence")).decode(),
        "certificate": base64.b64encode(file(name, "cert_chain")).decode(),
        **changes,
    }
