"""Which attesting hardware this machine has: one look at each place, all findings kept.

    configfs  /sys/kernel/config/tsm/report: its provider decides between TDX and SNP
    NSM       /dev/nsm: a Nitro enclave
    Azure     NV 0x01400001 of the TPM: the paravisor's report, which says whether of SNP or TDX;
              the chassis' asset tag only helps to say why there is none
    TPM       /dev/tpmrm0: used if it is named, never by "auto"; a TPM alone names no CPU
    GPUs      /dev/nvidiactl: said, but no choice; GPUs accompany a CPU (`collect.nvml`)

"auto" takes the CPU's own evidence before a virtual TPM's, which names the CPU at one remove.

A choice made by the operator is checked against what is there, never replaced by something weaker:
a worker configured for TDX that came up with software evidence would look alive and prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wire.errors import AnchorholdError, ConfigError, UnavailableError
from wire.excerpt import shown

from . import azure, nitro, nsm, snp, tdx, tpm_quote, tsm
from .files import OsFiles
from .tpm_device import DEVICE, open_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .files import Files
    from .tpm_device import TpmDevice

AUTO: Final = "auto"
ASSET_TAG: Final = Path("/sys/class/dmi/id/chassis_asset_tag")
AZURE_TAG: Final = b"7783-7084-3265-9085-8269-3286-77"  # "MSFT AZURE VM" in decimal
TAG_MAX: Final = 256
GPU_DEVICES: Final = (Path("/dev/nvidiactl"),)
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {tdx.PROVIDER: tdx.KIND, snp.PROVIDER: snp.KIND}
)
CPUS: Final = (tdx.KIND, snp.KIND, nitro.KIND)
PARAVISORS: Final = (azure.SNP_KIND, azure.TDX_KIND)
HARDWARE: Final = (*CPUS, *PARAVISORS)
KINDS: Final = (*HARDWARE, tpm_quote.KIND)


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
        if wanted not in (AUTO, *KINDS):
            raise ConfigError(
                f"attester: found {shown(wanted)}, expected {AUTO}, {', '.join(KINDS)}",
                hint='Name one of these kinds, or "auto" for the one that is here.',
            )
        if wanted != AUTO:
            if wanted in self.kinds:
                return wanted
            raise ConfigError(
                f"attester: expected {wanted}, found {self.describe()}",
                hint="Choose a kind that is here, or run the worker on a machine that has it.",
            )
        signing = [kind for kind in self.kinds if kind in CPUS]
        found = signing or [kind for kind in self.kinds if kind in PARAVISORS]
        if len(found) == 1:
            return found[0]
        count = " and ".join(found) or "none"
        raise ConfigError(
            f"attester: expected one of {', '.join(HARDWARE)}, found {count} ({self.describe()})",
            hint="Name the kind; without such hardware, set trust to vtpm, simulated or software.",
        )


def probe(
    configfs: tsm.Tsm | None = None,
    nsm_device: Path = nsm.DEVICE,
    tpm_device: Path = DEVICE,
    gpu_devices: tuple[Path, ...] = GPU_DEVICES,
    files: Files | None = None,
    report: Callable[[], str | None] | None = None,
    asset_tag: Path = ASSET_TAG,
) -> Findings:
    """Look at every place; nothing is changed and nothing raises.

    Args:
        configfs: the folder of reports.
        nsm_device, tpm_device, gpu_devices: devices.
        files: file operations.
        report: the kind that the paravisor's report in the TPM stands for, None without one;
            asked only where there is a TPM.
        asset_tag: the chassis' asset tag.
    """
    source: Files = OsFiles() if files is None else files
    look = (lambda: reported(open_device(tpm_device))) if report is None else report
    tpm = _device(source, (tpm_device,), "present, but a TPM alone names no CPU", tpm_quote.KIND)
    return Findings(
        (
            _configfs(tsm.Tsm() if configfs is None else configfs),
            _device(source, (nsm_device,), "present", nitro.KIND),
            _azure(source, look if tpm.kind else None, asset_tag),
            tpm,
            _device(source, gpu_devices, "GPUs, which attest only beside a CPU", None),
        )
    )


def reported(device: TpmDevice) -> str | None:
    """The kind that the paravisor's report in this TPM stands for; None if it holds none.

    Raises:
        AnchorholdError: it cannot be read, or is no report.
    """
    try:
        found = azure.read_report(device)
        return azure.TEES[found[1].tee] if found is not None else None
    finally:
        device.close()


def _azure(source: Files, report: Callable[[], str | None] | None, asset_tag: Path) -> Finding:
    place = f"NV {azure.HCL_REPORT}"
    try:
        words = "in an Azure VM: " if source.read(asset_tag, TAG_MAX).strip() == AZURE_TAG else ""
    except OSError:
        words = ""
    try:
        kind = None if report is None else report()
    except (AnchorholdError, OSError) as error:
        said = error.message if isinstance(error, AnchorholdError) else str(error.strerror)
        return Finding(place, f"{words}cannot be read ({said.removeprefix(f'{place}: ')})")
    if kind is None:
        return Finding(place, f"{words}no TPM" if report is None else f"{words}no report")
    return Finding(place, f"{words}a paravisor's report", kind)


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
