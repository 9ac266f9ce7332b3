"""A real worker process on a simulated machine with GPUs: what it says on the link is accepted."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.gpu_machine import GpuMachine
from simulators.link_peer import LinkPeer

from attestation.collect.nvml import ACCEPTING, KIND, NOT_ACCEPTING
from attestation.evidence import evidence_list
from attestation.result import AppraisedEvidence
from enclave_worker.launch import Launcher
from wire.errors import AttestationError, ConfigError
from wire.ids import sha256_tag, unb64u

if TYPE_CHECKING:
    from pathlib import Path

    from enclave_worker.launcher_config import LauncherConfig

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


def on(found: GpuMachine, config: LauncherConfig) -> Launcher:
    """A launcher that finds this machine."""
    demanding = replace(config, trust="hardware", gpus="required")
    return Launcher(demanding, machine=lambda _: found.machine())


async def test_hello_and_live_answers_of_a_worker_with_gpus_are_accepted(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    found = GpuMachine(int(time.time_ns() // 10**9))
    launcher = on(found, launcher_config)
    peer = LinkPeer(launcher_config.gateway_socket, tmp_path / "log.db")
    await peer.start()
    try:
        await asyncio.to_thread(launcher.start)
        first = await peer.admitted()
        found.tee.rule |= {"measurements": [launcher.measurement], "posture": {}}
        found.tee.demands |= {
            "models": [{"name": "tiny"}],
            "service_policies": [sha256_tag(launcher_config.service_policy)],
        }
        found.tee.now = int(time.time_ns() // 10**9)

        def judged(binding: bytes, evidence: Any, posture: bytes, **more: Any) -> Any:
            seen = found.tee.now  # the log head that the binding names, as the peer says
            return found.appraise(binding, evidence, posture=posture, beacon_time=seen, **more)

        verdict = judged(first.binding.raw, first.evidence, first.posture)
        assert isinstance(verdict, AppraisedEvidence), verdict
        assert verdict.claims[KIND]["count"] == 2
        nonce = os.urandom(32)
        live = await peer.challenge(nonce)
        evidence = evidence_list(live["evidence"])
        posture, binding = unb64u(live["posture"]), unb64u(live["binding"])
        verdict = judged(binding, evidence, posture, nonce=nonce)
        assert isinstance(verdict, AppraisedEvidence), verdict
        assert list(verdict.binding.gpus) == [gpu.fingerprint for gpu in found.tee.gpus]
        assert found.nvml.history == [ACCEPTING]
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()
    assert not peer.failures
    assert launcher.failure is None
    assert found.nvml.history == [ACCEPTING, NOT_ACCEPTING]


def test_nothing_starts_on_a_machine_whose_gpus_are_refused(
    launcher_config: LauncherConfig,
) -> None:
    found = GpuMachine(int(time.time_ns() // 10**9))
    found.nvml.gpus[1].report = found.tee.nvidia.gpu().report
    launcher = on(found, launcher_config)
    with pytest.raises(AttestationError, match="GPUs"):
        launcher.start()
    assert launcher.starts == 0
    assert found.nvml.history == [NOT_ACCEPTING]
    lying = GpuMachine(int(time.time_ns() // 10**9))
    lying.nvml.devtools = 1
    launcher = on(lying, launcher_config)
    with pytest.raises(ConfigError, match="developer tools"):
        launcher.start()
    assert launcher.starts == 0


async def test_a_gpu_that_stops_answering_ends_the_worker_with_the_reason(
    launcher_config: LauncherConfig, tmp_path: Path
) -> None:
    found = GpuMachine(int(time.time_ns() // 10**9))
    launcher = on(found, launcher_config)
    peer = LinkPeer(launcher_config.gateway_socket, tmp_path / "log.db")
    try:
        await asyncio.to_thread(launcher.start)
        found.nvml.fails.add("nvmlDeviceGetConfComputeGpuAttestationReport")
        await peer.start()
        failure = await asyncio.to_thread(launcher.wait, 30)
        assert failure is not None
        assert failure.stage == "attest"
        assert "NVML report" in failure.message
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()
    assert peer.introduced == []
