"""Which attesting hardware this machine has: one look at each place, all findings kept.

    configfs  /sys/kernel/config/tsm/report: its provider decides between TDX and SNP
    NSM       /dev/nsm: a Nitro enclave
    TPM       /dev/tpmrm0 or /dev/tpm0: said, but not used; a TPM alone names no CPU
    GPUs      /dev/nvidiactl: said, but no choice; GPUs accompany a CPU (`collect.nvml`)

A choice made by the operator is checked against what is there, never replaced by something weaker:
a worker configured for TDX that came up with software evidence would look alive and prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import ConfigError, UnavailableError
from wire.excerpt import shown

from . import nitro, nsm, snp, tdx, tsm
from .files import OsFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .files import Files

AUTO: Final = "auto"
TPM_DEVICES: Final = (Path("/dev/tpmrm0"), Path("/dev/tpm0"))
GPU_DEVICES: Final = (Path("/dev/nvidiactl"),)
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {tdx.PROVIDER: tdx.KIND, snp.PROVIDER: snp.KIND}
)
HARDWARE: Final = (tdx.KIND, snp.KIND, nitro.KIND)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one place.

    Attributes:
        place: the path looked at.
        found: in words.
        kind: the evidence kind it can make, or None.
    """

    place: str
    found: str
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """All of them.

    Attributes:
        items: one for each place, in the order of preference.
    """

    items: tuple[Finding, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds this machine can make evidence of."""
        return tuple(item.kind for item in self.items if item.kind is not None)

    def describe(self) -> str:
        """One line an operator can act on."""
        return "; ".join(f"{item.place}: {item.found}" for item in self.items)

    def choose(self, wanted: str = AUTO) -> str:
        """The kind to use.

        Args:
            wanted: a kind, or "auto" for the one kind that names the machine's CPU.

        Raises:
            ConfigError: there is no such kind, it is not here, or "auto" finds none or more than
                one.
        """
        if wanted not in (AUTO, *HARDWARE):
            raise ConfigError(
                f"attester: found {shown(wanted)}, expected {AUTO}, {', '.join(HARDWARE)}",
                hint='Name one of these kinds, or "auto" for the one that is here.',
            )
        if wanted != AUTO:
            if wanted in self.kinds:
                return wanted
            raise ConfigError(
                f"attester: expected {wanted}, found {self.describe()}",
                hint="Choose a kind that is here, or run the worker on a machine that has it.",
            )
        if len(self.kinds) == 1:
            return self.kinds[0]
        count = " and ".join(self.kinds) or "none"
        raise ConfigError(
            f"attester: expected one of {', '.join(HARDWARE)}, found {count} ({self.describe()})",
            hint="Name the kind, or software or simulated for a machine without hardware.",
        )


def probe(
    configfs: tsm.Tsm | None = None,
    nsm_device: Path = nsm.DEVICE,
    tpm_devices: tuple[Path, ...] = TPM_DEVICES,
    gpu_devices: tuple[Path, ...] = GPU_DEVICES,
    files: Files | None = None,
) -> Findings:
    """Look at every place; nothing is changed and nothing raises."""
    source: Files = OsFiles() if files is None else files
    return Findings(
        (
            _configfs(tsm.Tsm() if configfs is None else configfs),
            _device(source, (nsm_device,), "present", nitro.KIND),
            _device(source, tpm_devices, "present, but a TPM alone names no CPU", None),
            _device(source, gpu_devices, "GPUs, which attest only beside a CPU", None),
        )
    )


def _configfs(source: tsm.Tsm) -> Finding:
    place = str(source.base)
    try:
        provider = source.provider()
    except UnavailableError as error:
        return Finding(place, f"no provider ({error.message.removeprefix(f'{place}: ')})")
    kind = PROVIDERS.get(provider)
    unknown = "" if kind else ", which this version does not know"
    return Finding(place, f"provider {provider}{unknown}", kind)


def _device(source: Files, paths: tuple[Path, ...], words: str, kind: str | None) -> Finding:
    for path in paths:
        if source.exists(path):
            return Finding(str(path), words, kind)
    return Finding(str(paths[0]), "absent")
