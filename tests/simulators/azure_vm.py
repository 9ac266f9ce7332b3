"""Confidential VMs of Azure's on AMD's hardware, and the verdict of `azure-vtpm-snp` on them.

vm = started()                                    # a paravisor on one chip, register 11 measured
examine(vm.evidence())                            # genuine
vm.variable["vm-configuration"] = {}              # one fact changed before it is signed
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

from attestation.examined import Expected, Question
from attestation.schemes.azure_snp import SCHEME

from .amd import NOW, Amd, Chip
from .hcl import Paravisor
from .vtpm import NONCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Examined

WORKER = hashlib.sha256(b"worker").digest()


@cache
def amd_of(owner: str = "amd") -> Amd:
    """AMD, or a look-alike by another name."""
    return Amd("Genoa", owner=owner)


@cache
def chip_of(owner: str = "amd") -> Chip:
    """The chip that VMs start on."""
    return amd_of(owner).chip()


def started(chip: Chip | None = None, key: Any = None) -> Paravisor:
    """A VM whose register 11 holds a worker's measurement."""
    vm = Paravisor((chip or chip_of()).report, key)
    vm.tpm.measure(11, WORKER)
    return vm


def examine(evidence: Mapping[str, bytes], chip: Chip | None = None, **changes: Any) -> Examined:
    """The verdict under AMD's own root; `changes` are of the question."""
    honest = {
        "collateral": amd_of().collateral(vcek=(chip or chip_of()).cert),
        "anchors": amd_of().anchors,
        "now": NOW,
        "expected": Expected(nonce=NONCE),
    }
    return SCHEME.examine(Question(evidence=evidence, **{**honest, **changes}))
