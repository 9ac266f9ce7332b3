"""A real worker process on a machine with a TPM of its own: evidence and receipts say `vtpm`."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.caller import Caller
from simulators.link_peer import LinkPeer
from simulators.tpm_machine import ECC_AK, TpmMachine, manufacture, quoting

from attestation.appraise import appraise
from attestation.collect.swtpm import missing_tools
from attestation.collect.tpm_device import DEVICE
from attestation.evidence import evidence_list
from attestation.result import AppraisedEvidence
from enclave_worker.attester import make_attester, quote_attester
from enclave_worker.launch import Launcher
from enclave_worker.machine import Machine
from wire.errors import ConfigError
from wire.ids import sha256_tag, unb64u

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from enclave_worker.launcher_config import LauncherConfig

pytestmark = pytest.mark.tpm


@pytest.fixture
def booted(tmp_path: Path) -> Iterator[TpmMachine]:
    if missing_tools():
        if os.environ.get("CI") == "true":
            pytest.fail("swtpm and tpm2-tools: must be present when CI=true")
        pytest.skip("swtpm or tpm2-tools not installed")
    manufacture(tmp_path / "t")
    machine = TpmMachine(tmp_path / "t")
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def own_tpm(launcher_config: LauncherConfig) -> LauncherConfig:
    return replace(launcher_config, trust="vtpm", attester="tpm2-quote")


@pytest.mark.slow
@pytest.mark.sandbox
async def test_a_worker_under_the_machines_own_tpm_is_accepted_and_its_receipts_say_vtpm(
    own_tpm: LauncherConfig, booted: TpmMachine, tmp_path: Path
) -> None:
    now = int(time.time_ns() // 10**9)
    tee = quoting(booted, ECC_AK, now, "tests")
    links = tmp_path / "links.der"
    links.write_bytes(tee.maker.issuer)
    config = replace(own_tpm, tpm_ak=ECC_AK, tpm_ak_chain=links)
    launcher = Launcher(
        config, machine=lambda found: Machine(quote_attester(found, booted.device()))
    )
    peer = LinkPeer(config.gateway_socket, tmp_path / "log.db")
    await peer.start()
    try:
        await asyncio.to_thread(launcher.start)
        new = await peer.admitted()
        assert launcher.trust_anchor.startswith("attestation key ")
        tee.rule |= {"measurements": [launcher.measurement], "posture": {}}
        tee.demands |= {
            "models": [{"name": "tiny"}],
            "service_policies": [sha256_tag(config.service_policy)],
        }

        async def judged(binding: bytes, evidence: Any, posture: bytes, **more: Any) -> Any:
            seen = await peer.dated(new.binding)
            verdict = appraise(
                binding, evidence, posture, tee.policy(), now + 60, beacon_time=seen, **more
            )
            assert isinstance(verdict, AppraisedEvidence), verdict
            return verdict

        verdict = await judged(new.binding.raw, new.evidence, new.posture)
        assert (verdict.kind, verdict.trust) == ("tpm2-quote", "vtpm")
        who = Caller(new.binding)
        body = who.chat("quoted")
        sealed = who.seal(body)
        answer = await peer.exchange(sealed.header.rid, sealed.envelope)
        reply = who.read(sealed, bytes(answer.data))
        text = reply.json["choices"][0]["message"]["content"]
        claims = who.verify(sealed, body, reply, text, peer.log).claims
        assert (claims["att"]["type"], claims["att"]["trust"]) == ("tpm2-quote", "vtpm")
        nonce = os.urandom(32)
        live = await peer.challenge(nonce)
        await judged(
            unb64u(live["binding"]),
            evidence_list(live["evidence"]),
            unb64u(live["posture"]),
            nonce=nonce,
        )
    finally:
        await asyncio.to_thread(launcher.stop)
        await peer.close()
    assert launcher.failure is None


def test_a_machine_without_a_tpm_starts_nothing(own_tpm: LauncherConfig) -> None:
    if DEVICE.exists():
        pytest.skip("this machine has a TPM, which a test leaves alone")
    with pytest.raises(ConfigError, match="expected tpm2-quote, found "):
        make_attester(own_tpm)


def test_a_chain_that_is_not_there_is_named(own_tpm: LauncherConfig, booted: TpmMachine) -> None:
    config = replace(own_tpm, tpm_ak_chain=own_tpm.state_dir / "no such file")
    with pytest.raises(OSError, match="No such file"):
        quote_attester(config, booted.device())
