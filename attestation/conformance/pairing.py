"""CPU and GPU evidence in one sample: which file is which side's, and what a rule may call them.

A sample is of one kind. Evidence of the other side stands beside it, under a role that the kind
does not have; the words of the role's name say which side it is of. Whoever writes an index names
such files freely, and a GPU that went unnoticed would be one that nobody asked the CPU about.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.scheme import Scheme

GPU_KINDS: Final = (
    "nvidia-gpu-spdm",
    "nvidia-gpu-spdm-list",
    "nvidia-nvswitch-spdm",
    "nvidia-nras-eat",
)
GPU_WORDS: Final = frozenset({"gpu", "gpus", "nvidia", "spdm", "nvswitch", "nras"})
CPU_WORDS: Final = frozenset(
    {"cpu", "tee", "td", "tdx", "snp", "sev", "sgx", "nitro", "hcl", "quote", "report", "document"}
)
_DIGESTS: Final = ("hash", "digest", "sha256")
_USUAL: Final = "gpu_evidence"  # what a rule may call it, whatever its role
_EVIDENCE: Final = "_evidence"  # a rule may say it where a role does not


@dataclass(frozen=True, slots=True)
class Pair:
    """Evidence of a CPU and of GPUs in one sample.

    Attributes:
        gpus: role to bytes of the GPUs' side; at least one.
    """

    gpus: Mapping[str, bytes]

    def values(self) -> dict[str, bytes]:
        """What a binding rule may name: the evidence, and its SHA-256 under the names in use."""
        found = {_USUAL: next(iter(self.gpus.values()))}
        for role, data in self.gpus.items():
            found |= {role: data, role.removesuffix(_EVIDENCE) + _EVIDENCE: data}
        return found | {
            f"{name}_{word}": hashlib.sha256(data).digest()
            for name, data in found.items()
            for word in _DIGESTS
        }

    def named_in(self, terms: object) -> bool:
        """Whether a rule speaks of the GPUs' side."""
        return isinstance(terms, str) and any(role in terms for role in (*self.gpus, _USUAL))

    def contradicted(self, inputs: Mapping[str, Any]) -> bool:
        """Whether an input states another digest of GPU evidence than the one that is here.

        A rule takes the input's: it would bind the CPU to GPUs that nobody showed.
        """
        ours = self.values()
        for name, value in inputs.items():
            key = name.removesuffix("_hex")
            if key in ours and key.endswith(_DIGESTS):
                stated = value.lower() if isinstance(value, str) else value
                if stated != ours[key].hex():
                    return True
        return False


def pair_of(scheme: Scheme, files: Mapping[str, bytes]) -> Pair | None:
    """The two sides in a sample's files; None if there is one only.

    Args:
        scheme: of the sample's kind.
        files: role to bytes.
    """
    own = {*scheme.evidence[0], *scheme.evidence[1]}
    beside = set(files) - own - set(scheme.collateral)
    if scheme.kind in GPU_KINDS:
        mine = {role: files[role] for role in sorted(own & set(files)) if "chain" not in role}
        return Pair(mine) if mine and any(_of_cpu(role) for role in beside) else None
    if scheme.trust == "software":
        return None
    gpus = {role: files[role] for role in sorted(beside) if _of_gpu(role)}
    return Pair(gpus) if gpus else None


def _of_cpu(role: str) -> bool:
    words = set(role.split("_"))
    return bool(CPU_WORDS & words) and not GPU_WORDS & words


def _of_gpu(role: str) -> bool:
    words = set(role.split("_"))  # no CPU's kind calls a role "evidence", and some GPU's do
    return bool(GPU_WORDS & words) or ("evidence" in words and not CPU_WORDS & words)
