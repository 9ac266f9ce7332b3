"""Which attester speaks for the worker, by trust level. Lives outside the sandbox, in the launcher.

On real hardware the attester is the platform, found by probing; a machine's own TPM is one only
where it is named, under a trust level of its own. Elsewhere it is a development key or a software
TPM, and both are the operator's own: the trust level says so wherever a result is shown. Nothing
falls back from one to another.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

from attestation.collateral.whole_file import read_whole
from attestation.collect import azure, nitro, snp, tdx, tpm_quote
from attestation.collect.hardware import Guest, HardwareAttester
from attestation.collect.probe import probe
from attestation.collect.software import SoftwareAttester, software_root
from attestation.collect.tpm import TpmAttester
from attestation.collect.tpm_device import TpmDevice
from attestation.evidence import Evidence
from wire.errors import ConfigError

from .launcher_config import LauncherConfig

ROOT_FILE = "software-root.pem"
TPM_FOLDER = "tpm"


class Attester(Protocol):
    """The common shape of attestation.collect's attesters."""

    def measure(self, parts: Mapping[str, str]) -> str:
        """Record the parts every later evidence will claim; returns the measurement."""

    def attest(self, binding_raw: bytes, now_ms: int) -> Evidence:
        """Return evidence over exactly these binding bytes."""

    def activate(self, credential: dict[str, Any]) -> Mapping[str, Any]:
        """Answer a credential challenge; refused by kinds that have none."""

    def trust_anchor(self) -> str:
        """Return what a policy lists as this attester's root."""

    def close(self) -> None:
        """Release keys and processes."""


_GUESTS: Final[Mapping[str, Callable[[], Guest]]] = MappingProxyType(
    {
        tdx.KIND: tdx.TdxGuest,
        snp.KIND: snp.SnpGuest,
        nitro.KIND: nitro.NitroGuest,
        azure.SNP_KIND: partial(azure.AzureGuest, azure.SNP_KIND),
        azure.TDX_KIND: partial(azure.AzureGuest, azure.TDX_KIND),
    }
)


def make_attester(config: LauncherConfig) -> Attester:
    """Return the attester for `config.trust`; its state goes below `config.state_dir`.

    Raises:
        ConfigError: the hardware demanded is not here; the message lists what was found.
        UnavailableError: it is here and does not answer.
    """
    try:
        return _attester(config)
    except OSError as error:
        raise ConfigError(
            f"{config.trust} attester: cannot use {error.filename or config.state_dir}: "
            f"{error.strerror}",
            hint="state_dir, tpm_ca and the software root must be where this user may write, "
            "tpm_ak_chain where it may read",
        ) from error


def _attester(config: LauncherConfig) -> Attester:
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.trust == "hardware":
        return HardwareAttester(_GUESTS[probe().choose(config.attester)]())
    if config.trust == tpm_quote.TRUST:
        probe().choose(config.attester)
        return quote_attester(config)
    if config.trust == "simulated":
        return TpmAttester(config.state_dir / TPM_FOLDER, config.tpm_ca)
    return SoftwareAttester(software_root(config.software_root or config.state_dir / ROOT_FILE))


def quote_attester(config: LauncherConfig, device: TpmDevice | None = None) -> HardwareAttester:
    """The attester of a machine with a TPM, by the key that `config` names.

    Args:
        config: of trust "vtpm".
        device: the TPM; None for the machine's own.

    Raises:
        ConfigError: no such key, certificate or file.
        UnavailableError: the TPM does not answer.
        OSError: the chain cannot be read.
    """
    chain = b""
    if config.tpm_ak_chain is not None:
        chain = read_whole(config.tpm_ak_chain, tpm_quote.CHAIN_MAX)
    guest = tpm_quote.TpmQuoteGuest(
        device, ak=config.tpm_ak, certificate=config.tpm_ak_cert, chain=chain
    )
    return HardwareAttester(
        guest, trust=tpm_quote.TRUST, anchor=f"attestation key {guest.fingerprint}"
    )
