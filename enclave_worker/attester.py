"""Which attester speaks for the worker, by trust level. Lives outside the sandbox, in the launcher.

On real hardware the attester is the platform, found by probing. Elsewhere it is a development key
or a software TPM, and both are the operator's own: the trust level says so wherever a result is
shown. Nothing falls back from one to another.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from attestation.collect import nitro, snp, tdx
from attestation.collect.hardware import Guest, HardwareAttester
from attestation.collect.probe import probe
from attestation.collect.software import SoftwareAttester, software_root
from attestation.collect.tpm import TpmAttester
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
    {tdx.KIND: tdx.TdxGuest, snp.KIND: snp.SnpGuest, nitro.KIND: nitro.NitroGuest}
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
            hint="state_dir, tpm_ca and the software root must be where this user may write",
        ) from error


def _attester(config: LauncherConfig) -> Attester:
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.trust == "hardware":
        return HardwareAttester(_GUESTS[probe().choose(config.attester)]())
    if config.trust == "simulated":
        return TpmAttester(config.state_dir / TPM_FOLDER, config.tpm_ca)
    return SoftwareAttester(software_root(config.software_root or config.state_dir / ROOT_FILE))
