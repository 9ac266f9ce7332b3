"""The table of hardware evidence kinds.

A kind is added here and nowhere else: policies, appraisal, collateral and conformance read this
table. Each module documents its numbered steps and reason codes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from . import (
    azure_snp,
    azure_tdx,
    cc_log,
    corim,
    ear,
    nitro,
    nras,
    nvidia_gpu,
    nvidia_list,
    nvidia_switch,
    sgx,
    snp,
    tcg_log,
    tdx,
    tpm_quote,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.scheme import Scheme

_KINDS = (
    snp, tdx, sgx, nitro, nvidia_gpu, nvidia_switch, nvidia_list, tpm_quote, nras, ear, cc_log,
    tcg_log, corim, azure_snp, azure_tdx,
)  # fmt: skip
SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {module.SCHEME.kind: module.SCHEME for module in _KINDS}
)
