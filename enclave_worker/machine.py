"""What vouches for one worker: the machine's processor, and the GPUs behind the same binding.

The processor's evidence proves the measurement and signs the binding; the binding names the GPUs by
key, and each GPU answers the binding's hash. So neither a GPU of another machine nor another
worker's binding fits. Lives in the launcher, outside the sandbox, like everything it is made of.

GPUs are used only where the configuration demands them, and then nothing starts without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attestation.anchors import NVIDIA, Anchors
from attestation.collect.gpu_check import check_gpus
from attestation.collect.nvml import GpuCollector, load_nvml

from .attester import make_attester
from .clock import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.collect.nvml import Nvml
    from attestation.evidence import Evidence

    from .attester import Attester
    from .launcher_config import LauncherConfig


class Machine:
    """One machine, from `measure` to `close`.

    Attributes:
        gpu_keys: "sha256:" tags of the GPUs' keys, after `open`; () without GPUs.
    """

    def __init__(self, attester: Attester, gpus: GpuCollector | None = None) -> None:
        """Take charge of an attester, and of GPUs that are not opened yet."""
        self._attester = attester
        self._gpus = gpus
        self._parts: Mapping[str, str] = {}
        self.gpu_keys: tuple[str, ...] = ()

    def measure(self, parts: Mapping[str, str]) -> str:
        """Record the parts every later evidence will claim; returns the measurement."""
        self._parts = dict(parts)
        return self._attester.measure(parts)

    def open(self) -> None:
        """Look at the GPUs and let them work; nothing without GPUs.

        Raises:
            ConfigError: a system or GPU that may not be used for this.
            UnavailableError: NVML failed.
            AttestationError: a GPU is not genuine.
        """
        if self._gpus is not None:
            self.gpu_keys = self._gpus.open()

    def attest(self, binding_raw: bytes, now_ms: int) -> tuple[Evidence, ...]:
        """Evidence over exactly these binding bytes, the processor's first."""
        found = [self._attester.attest(binding_raw, now_ms)]
        if self._gpus is not None:
            found.append(self._gpus.attest(binding_raw, self._parts))
        return tuple(found)

    def activate(self, credential: dict[str, Any]) -> Mapping[str, Any]:
        """Answer a credential challenge; refused by kinds that have none."""
        return self._attester.activate(credential)

    def trust_anchor(self) -> str:
        """Return what a policy lists as the attester's root."""
        return self._attester.trust_anchor()

    def close(self) -> None:
        """Take the GPUs out of work, and release keys and processes."""
        try:
            if self._gpus is not None:
                self._gpus.close()
        finally:
            self._attester.close()


def make_machine(config: LauncherConfig) -> Machine:
    """The machine this runs on, as `config.trust`, `config.attester` and `config.gpus` say.

    Raises:
        ConfigError: what the configuration demands is not here.
        UnavailableError: it is here and does not answer.
    """
    # First, because an attester may start processes that would have to be ended again.
    gpus = gpu_collector(load_nvml()) if config.gpus == "required" else None
    return Machine(make_attester(config), gpus)


def gpu_collector(
    nvml: Nvml, anchors: Anchors = NVIDIA, clock: Clock | None = None
) -> GpuCollector:
    """The collector of this machine's GPUs, which lets them work only after its own look at them.

    Args:
        nvml: the driver's interface.
        anchors: the roots that vouch for a GPU.
        clock: tells the time at which certificates must hold.
    """
    time = clock or Clock()
    return GpuCollector(
        nvml, lambda evidence, nonce: check_gpus(evidence, nonce, anchors, time.s())
    )
