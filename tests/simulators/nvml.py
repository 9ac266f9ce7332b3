"""A model of NVML's confidential-computing calls, with the names and structures of `pynvml`.

Usable by third parties wherever the module `pynvml` goes. Structures, sizes and numbers are those
of nvml.h as `pynvml` 13 spells them: buffers of fixed sizes with rubbish behind what the size
members say, every call before nvmlInit an error, one exception type for all. A GPU in a
confidential VM starts out not accepting work.
"""

# ruff: noqa: N802 -- the names are NVML's

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REPORT_SIZE = 0x2000
CHAIN_SIZE = 0x1400
HOPPER = 9
BLACKWELL = 10


class NVMLError(Exception):
    """As pynvml raises it."""


class SystemState(ctypes.Structure):
    _fields_ = [
        ("environment", ctypes.c_uint),
        ("ccFeature", ctypes.c_uint),
        ("devToolsMode", ctypes.c_uint),
    ]


class Certificate(ctypes.Structure):
    _fields_ = [
        ("certChainSize", ctypes.c_uint),
        ("attestationCertChainSize", ctypes.c_uint),
        ("certChain", ctypes.c_uint8 * 0x1000),
        ("attestationCertChain", ctypes.c_uint8 * CHAIN_SIZE),
    ]


class Report(ctypes.Structure):
    _fields_ = [
        ("isCecAttestationReportPresent", ctypes.c_uint),
        ("attestationReportSize", ctypes.c_uint),
        ("cecAttestationReportSize", ctypes.c_uint),
        ("nonce", ctypes.c_uint8 * 32),
        ("attestationReport", ctypes.c_uint8 * REPORT_SIZE),
        ("cecAttestationReport", ctypes.c_uint8 * 0x1000),
    ]


@dataclass
class Gpu:
    """One device.

    Attributes:
        chain: its certificates in PEM, leaf first.
        report: nonce to a signed report.
        arch: NVML's number.
    """

    chain: bytes
    report: Callable[[bytes], bytes]
    arch: int = HOPPER


@dataclass
class FakeNvml:
    """The module.

    Attributes:
        gpus: the devices.
        feature, devtools, environment: the system's state.
        accepting: the ready state.
        history: every ready state set.
        fails: names of calls that raise.
        initialised: whether started and not stopped.
    """

    gpus: list[Gpu]
    feature: int = 1
    devtools: int = 0
    environment: int = 2
    accepting: int = 0
    history: list[int] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    initialised: bool = False
    NVMLError: type[Exception] = NVMLError

    def _enter(self, name: str) -> None:
        if name in self.fails:
            raise NVMLError("Unknown Error")
        if not self.initialised and name != "nvmlInit":
            raise NVMLError("Uninitialized")

    def nvmlInit(self) -> None:
        self._enter("nvmlInit")
        self.initialised = True

    def nvmlShutdown(self) -> None:
        self._enter("nvmlShutdown")
        self.initialised = False

    def nvmlSystemGetConfComputeState(self) -> SystemState:
        self._enter("nvmlSystemGetConfComputeState")
        return SystemState(self.environment, self.feature, self.devtools)

    def nvmlDeviceGetCount(self) -> int:
        self._enter("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        self._enter("nvmlDeviceGetHandleByIndex")
        return self.gpus[index]

    def nvmlDeviceGetArchitecture(self, device: Gpu) -> int:
        self._enter("nvmlDeviceGetArchitecture")
        return device.arch

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: Gpu) -> Certificate:
        self._enter("nvmlDeviceGetConfComputeGpuCertificate")
        found = Certificate(attestationCertChainSize=len(device.chain))
        _fill(found.attestationCertChain, device.chain)
        return found

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: Gpu, nonce: Any) -> Report:
        self._enter("nvmlDeviceGetConfComputeGpuAttestationReport")
        asked = (ctypes.c_uint8 * 32)(*nonce)
        report = device.report(bytes(asked))
        found = Report(attestationReportSize=len(report), nonce=asked)
        _fill(found.attestationReport, report)
        return found

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> int:
        self._enter("nvmlSystemSetConfComputeGpusReadyState")
        self.accepting = state
        self.history.append(state)
        return 0

    def nvmlSystemGetConfComputeGpusReadyState(self) -> int:
        self._enter("nvmlSystemGetConfComputeGpusReadyState")
        return self.accepting


def _fill(buffer: Any, data: bytes) -> None:
    ctypes.memset(buffer, 0xEE, len(buffer))
    ctypes.memmove(buffer, data, min(len(data), len(buffer)))
