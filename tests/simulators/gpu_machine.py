"""A trust domain with GPUs as a launcher meets it: kernel files and NVML, real vendors behind them.

    found = GpuMachine(now)
    machine = found.machine()             # for `Launcher(config, machine=lambda _: machine)`
    machine.measure(parts)                # extends RTMR3
    machine.open()                        # looks at the GPUs, lets them work
    found.nvml.devtools = 1               # one lie of the driver; before `open`
    found.appraise(binding, evidence)     # under a policy that pins the simulated vendors

The policy is that of `simulators.gpu_tee.TdxGpuTee`, whose attributes may be changed: `found.tee`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attestation.appraise import appraise
from attestation.collect.hardware import HardwareAttester
from attestation.collect.tdx import RTMR, TdxGuest
from attestation.collect.tsm import Tsm
from enclave_worker.clock import Clock as WorkerClock
from enclave_worker.machine import Machine, gpu_collector

from .configfs_tsm import Clock, ConfigfsTsm, Provider, Registers
from .gpu_tee import TdxGpuTee
from .nvml import BLACKWELL, HOPPER, FakeNvml, Gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.evidence import Evidence
    from attestation.result import AppraisedEvidence, Refused

    from .nvidia_device import Device

BASE = Path("/sys/kernel/config/tsm/report")
MEASUREMENTS = Path("/sys/class/misc/tdx_guest/measurements")
NUMBERS = {"HOPPER": HOPPER, "BLACKWELL": BLACKWELL}


class GpuMachine:
    """One machine and what vouches for it.

    Attributes:
        tee: the vendors, the GPUs (`tee.gpus`), and the policy that accepts them.
        registers: of the trust domain.
        nvml: the driver's interface to the GPUs.
        clock: what the launcher's own look at the GPUs goes by.
    """

    def __init__(self, now: int, aud: str = "tests", seed: str = "tee") -> None:
        self.tee = TdxGpuTee(seed, now, aud)
        self.registers = Registers(MEASUREMENTS)
        self.nvml = FakeNvml([gpu_of(device) for device in self.tee.gpus])
        self.clock = WorkerClock(wall_ns=lambda: now * 10**9)

    def machine(self) -> Machine:
        """The machine, not measured or opened yet."""
        clock = Clock()
        kernel = ConfigfsTsm(BASE, Provider("tdx_guest", self._quote))
        tsm = Tsm(BASE, kernel, monotonic=clock.monotonic, sleep=clock.sleep)
        collector = gpu_collector(self.nvml, self.tee.nvidia.anchors, self.clock)
        return Machine(HardwareAttester(TdxGuest(tsm, MEASUREMENTS, self.registers)), collector)

    def appraise(
        self, binding: bytes, evidence: Sequence[Evidence], **more: Any
    ) -> AppraisedEvidence | Refused:
        """The verdict on it, as any verifier with the vendors' statements reaches it."""
        return appraise(
            binding,
            evidence,
            more.pop("posture", None),
            self.tee.policy(),
            self.tee.now,
            collateral=self.tee.collateral(),
            **more,
        )

    def _quote(self, asked: bytes, _: int) -> tuple[bytes, bytes]:
        intel = self.tee.intel
        intel.body |= {"report_data": asked, "rt_mr3": self.registers.values[RTMR]}
        return intel.quote(), b""


def gpu_of(device: Device) -> Gpu:
    """A device as NVML shows it."""
    return Gpu(device.chain(), device.report, NUMBERS[device.architecture])
