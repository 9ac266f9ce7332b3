"""Which attester speaks for the worker, by trust level. Lives outside the sandbox, in the launcher.

On real hardware the attester is the platform; here it is a development key or a software TPM, and
both are the operator's own: the trust level says so everywhere a result is shown.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from attestation.collect.software import SoftwareAttester, software_root
from attestation.collect.tpm import TpmAttester
from attestation.evidence import Evidence

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


def make_attester(config: LauncherConfig) -> Attester:
    """Return the attester for `config.trust`; its state goes below `config.state_dir`."""
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.trust == "simulated":
        return TpmAttester(config.state_dir / TPM_FOLDER, config.tpm_ca)
    return SoftwareAttester(software_root(config.software_root or config.state_dir / ROOT_FILE))
