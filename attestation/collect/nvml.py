"""GPU evidence (`nvidia-gpu-spdm-list`) through NVML, and the switch that lets the GPUs work.

    1 system    confidential computing on, developer tools off, a production environment
    2 GPUs      every one of the system, 1 to GPUS_MAX, of an architecture with attestation
    3 keys      the certificate chain of each; no key twice
    4 reports   each over the same 32-byte nonce, which its request must repeat
    5 verify    the caller's verifier accepts the list made over a random nonce
    6 accept    only then the GPUs are set to accept work

In a confidential VM a GPU refuses work until the guest says that it looked at it. Saying so
unconditionally makes the GPU's evidence decoration; `open` says it last, after 1 to 5. The keys
found in 3 go into the worker's binding, so that the CPU's evidence names these GPUs and no other
machine's GPUs can answer for them.

The list has NVIDIA's own shape: [{"arch", "nonce", "evidence", "certificate"}, …], base64.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from attestation.binding import GPUS_MAX, report32
from attestation.evidence import Evidence
from attestation.formats.container import encode_container
from attestation.formats.nvidia_chain import parse_chain
from wire.errors import ConfigError, MalformedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Raises an AnchorholdError unless the evidence list is genuine and answers the nonce.
    Verify = Callable[[bytes, bytes], None]

KIND: Final = "nvidia-gpu-spdm-list"
ROLE: Final = "evidence_list"
MODULE: Final = "pynvml"
NONCE_LEN: Final = 32
REPORT_MAX: Final = 0x2000  # NVML_CC_GPU_ATTESTATION_REPORT_SIZE
CHAIN_MAX: Final = 0x1400  # NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE

# nvml.h; stated here so that a replacement of the module cannot restate them.
FEATURE_ENABLED: Final = 1
DEVTOOLS_OFF: Final = 0
ENVIRONMENT_PROD: Final = 2
ACCEPTING: Final = 1
NOT_ACCEPTING: Final = 0
ARCHITECTURES: Final = {9: "HOPPER", 10: "BLACKWELL"}

_REQUEST_NONCE: Final = slice(4, 36)  # of GET_MEASUREMENTS, with which a report starts


class Nvml(Protocol):
    """The calls used, as the module `pynvml` (distribution nvidia-ml-py) spells them."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:  # noqa: N802 -- NVML's names
        """Load the driver's library."""

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Release it."""

    def nvmlSystemGetConfComputeState(self) -> Any:  # noqa: N802
        """.environment, .ccFeature, .devToolsMode."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """GPUs visible."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """One GPU."""

    def nvmlDeviceGetArchitecture(self, device: Any) -> int:  # noqa: N802
        """A number of ARCHITECTURES."""

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: Any) -> Any:  # noqa: N802
        """.attestationCertChain, .attestationCertChainSize."""

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: Any, nonce: bytes) -> Any:  # noqa: N802
        """.attestationReport, .attestationReportSize."""

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> Any:  # noqa: N802
        """ACCEPTING or NOT_ACCEPTING, for all GPUs."""

    def nvmlSystemGetConfComputeGpusReadyState(self) -> int:  # noqa: N802
        """The present state."""


def load_nvml() -> Nvml:
    """The real NVML.

    Raises:
        ConfigError: its Python module is not installed.
    """
    try:
        module: Any = importlib.import_module(MODULE)
    except ImportError:
        raise ConfigError(
            f"GPU evidence: found no module {MODULE}, expected NVIDIA's",
            hint="pip install nvidia-ml-py into the launcher's environment.",
        ) from None
    found: Nvml = module
    return found


class GpuCollector:
    """The GPUs of this machine, from `open` to `close`. Goes beside a CPU's attester.

    Args:
        nvml: the interface; `load_nvml()`.
        verify: checks the list made over a nonce with the vendor's pinned root; raises if not.
        rng: random bytes, for the first nonce.
    """

    kind = KIND

    def __init__(
        self, nvml: Nvml, verify: Verify, rng: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._nvml = nvml
        self._verify = verify
        self._rng = rng
        self._devices: list[tuple[str, Any, bytes]] = []
        self._open = False

    def open(self) -> tuple[str, ...]:
        """Steps 1 to 6; returns the keys a binding must name as `gpus`, in the GPUs' order.

        Raises:
            ConfigError: a system or GPU that may not be used for this.
            UnavailableError: NVML failed, or a report is not of this GPU and nonce.
            AnchorholdError: what `verify` raised.
        """
        self._call("start", self._nvml.nvmlInit)
        self._open = True
        try:
            self._check_system()
            keys = self._find()
            nonce = self._rng(NONCE_LEN)
            # 5
            self._verify(self._list(nonce), nonce)
            # 6
            self._ready(ACCEPTING)
        except BaseException:
            self.close()
            raise
        return keys

    def attest(self, binding_raw: bytes, parts: Mapping[str, str]) -> Evidence:
        """Evidence of every GPU for one binding, to be sent beside the CPU's.

        Args:
            binding_raw: the binding's bytes; it names the keys `open` returned.
            parts: the worker's measured parts, as in the CPU's evidence.

        Raises:
            RuntimeError: not open.
            UnavailableError: a GPU does not answer.
        """
        if not self._open:
            raise RuntimeError("GPU evidence: asked for before open")
        roles = {ROLE: self._list(report32(binding_raw))}
        return Evidence(KIND, encode_container(roles, parts))

    def close(self) -> None:
        """Take the GPUs out of work and release NVML. May be called again."""
        if not self._open:
            return
        self._open = False
        # A later process in this VM must look again before it uses them. Both calls are tried
        # whatever happened before, and neither may hide why `open` failed.
        with contextlib.suppress(UnavailableError):
            self._call("stop", self._nvml.nvmlSystemSetConfComputeGpusReadyState, NOT_ACCEPTING)
        with contextlib.suppress(UnavailableError):
            self._call("stop", self._nvml.nvmlShutdown)

    def _check_system(self) -> None:
        # 1
        state = self._call("system state", self._nvml.nvmlSystemGetConfComputeState)
        if state.ccFeature != FEATURE_ENABLED:
            raise ConfigError(
                "GPUs: found confidential computing off, expected on",
                hint="The host turns it on for each GPU before the VM starts.",
            )
        if state.devToolsMode != DEVTOOLS_OFF:
            raise ConfigError(
                "GPUs: found developer tools mode, expected it off",
                hint="In that mode anyone can read the GPU's memory. The host must turn it off.",
            )
        if state.environment != ENVIRONMENT_PROD:
            raise ConfigError(
                f"GPUs: found environment {state.environment}, expected {ENVIRONMENT_PROD} "
                "(production)"
            )

    def _find(self) -> tuple[str, ...]:
        # 2
        count = self._call("count", self._nvml.nvmlDeviceGetCount)
        if not 1 <= count <= GPUS_MAX:
            raise ConfigError(f"GPUs: found {count}, expected 1 to {GPUS_MAX}")
        self._devices = []
        keys = []
        for index in range(count):
            device = self._call("handle", self._nvml.nvmlDeviceGetHandleByIndex, index)
            number = self._call("architecture", self._nvml.nvmlDeviceGetArchitecture, device)
            arch = ARCHITECTURES.get(number)
            if arch is None:
                raise ConfigError(
                    f"GPU {index}: found architecture {number}, expected one that attests "
                    f"({', '.join(ARCHITECTURES.values())})"
                )
            # 3
            chain = self._chain(index, device)
            keys.append("sha256:" + _key(index, chain).hex())
            self._devices.append((arch, device, chain))
        if len(set(keys)) != len(keys):
            raise ConfigError("GPUs: found one key twice, expected one for each GPU")
        return tuple(keys)

    def _chain(self, index: int, device: Any) -> bytes:
        found = self._call("certificate", self._nvml.nvmlDeviceGetConfComputeGpuCertificate, device)
        size = found.attestationCertChainSize
        return _cut(found.attestationCertChain, size, CHAIN_MAX, f"GPU {index}: chain")

    def _list(self, nonce: bytes) -> bytes:
        """Step 4 for every GPU."""
        items = []
        for index, (arch, device, chain) in enumerate(self._devices):
            found = self._call(
                "report",
                self._nvml.nvmlDeviceGetConfComputeGpuAttestationReport,
                device,
                nonce,
            )
            size = found.attestationReportSize
            report = _cut(found.attestationReport, size, REPORT_MAX, f"GPU {index}: report")
            if report[_REQUEST_NONCE] != nonce:
                raise UnavailableError(f"GPU {index}: found a report to another nonce")
            items.append(
                {
                    "arch": arch,
                    "nonce": nonce.hex(),
                    "evidence": base64.b64encode(report).decode("ascii"),
                    "certificate": base64.b64encode(chain).decode("ascii"),
                }
            )
        return json.dumps(items, separators=(",", ":")).encode("ascii")

    def _ready(self, state: int) -> None:
        self._call("ready state", self._nvml.nvmlSystemSetConfComputeGpusReadyState, state)
        found = self._call("ready state", self._nvml.nvmlSystemGetConfComputeGpusReadyState)
        if found != state:
            raise UnavailableError(f"GPUs: found ready state {found}, expected {state}")

    def _call(self, what: str, act: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except self._nvml.NVMLError as error:
            raise UnavailableError(
                f"NVML {what}: found an error ({error}), expected an answer",
                hint="See nvidia-smi conf-compute -f, and the driver's log.",
            ) from error


def _cut(buffer: Any, size: int, limit: int, where: str) -> bytes:
    """What the driver says it filled of its fixed buffer."""
    if not 0 < size <= min(limit, len(buffer)):
        raise UnavailableError(f"{where}: found {size} bytes, expected 1 to {limit}")
    return bytes(buffer[:size])


def _key(index: int, chain: bytes) -> bytes:
    try:
        return parse_chain(chain).key_sha256
    except MalformedError as error:
        raise UnavailableError(f"GPU {index}: {error}") from error
