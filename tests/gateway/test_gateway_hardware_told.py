"""What others are told of workers on vendors' hardware: documents, directory, signed results."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.gpu_tee import SnpGpuTee
from simulators.hardware_tee import AzureSnpTee, HardwareTee, NitroTee, SnpTee, TdxTee
from simulators.hardware_workers import platform
from simulators.vendor_services import VendorServices, contents

from attestation.appraise import appraise
from attestation.carried import collateral_json
from attestation.result import AppraisedEvidence
from client.api import Client
from client.recorded import parse_recorded
from client.session import Options
from wire.ids import b64u, unb64u

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.deployment import Deployment, Fleet, Up
    from simulators.worker_peer import WorkerPeer

CRL = "/vcek/v1/Genoa/crl"
KINDS: list[type[HardwareTee]] = [SnpTee, TdxTee, NitroTee, AzureSnpTee]


@pytest.fixture
def deployment(on_hardware: Deployment) -> Deployment:
    return on_hardware


@pytest.mark.parametrize("make", KINDS)
async def test_the_worker_document_carries_what_the_verdict_rests_on(
    up: Up, fleet: Fleet, served: VendorServices, make: type[HardwareTee]
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    await worker.admitted()
    reply = await up.http.get(f"/v1/keys/{b64u(worker.bh)}")
    document = reply.json()
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    assert document["collateral"] == collateral_json(epoch.collateral.roles)
    assert bool(document["collateral"]) is (make is not NitroTee)
    shown, policy = parse_recorded(reply.content), up.deployment.client_policy()
    verdict = appraise(
        shown.binding,
        shown.evidence,
        shown.posture,
        policy,
        up.deployment.tee.now,
        beacon_time=shown.beacon_time(policy),
        collateral=shown.collateral,
    )
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.trust == "simulated"


@pytest.mark.parametrize("settings", [{"reappraise_s": 0.2}])
@pytest.mark.parametrize("demands", [{"freshness": {"collateral_max_age_s": 1}}])
async def test_the_worker_document_carries_the_vendors_newest_statement(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.serve(served)
    await worker.admitted()
    tee.crl["end"] = 20 * 24 * 3600
    tee.serve(served)
    newest = contents(served.answers[CRL], b"")
    async with asyncio.timeout(10):
        while True:
            reply = await up.http.get(f"/v1/keys/{b64u(worker.bh)}")
            if reply.json()["collateral"][tee.kind]["crl"] == b64u(newest):
                break
            await asyncio.sleep(0.1)
    assert up.gateway.registry.knows(worker.kid)


@pytest.mark.parametrize("make", [SnpTee, SnpGpuTee])
async def test_a_client_verifies_what_the_gateway_serves(
    up: Up, fleet: Fleet, served: VendorServices, tmp_path: Path
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    await worker.admitted()
    await listed(up, worker)
    before = len(served.asked)

    def report() -> Any:
        options = Options(state_dir=tmp_path, patient=False)
        key, policy = up.deployment.keys["tenant-a"], up.deployment.client_policy()
        with Client(up.running.url, key, policy=policy, options=options) as client:
            return client.report()

    found = await asyncio.to_thread(report)
    assert found.error is None
    assert (found.trust, found.workers[0].kind) == ("simulated", worker.tee.kind)
    assert len(served.asked) == before  # no vendor hears of a client


async def listed(up: Up, worker: WorkerPeer) -> None:
    """Wait until the directory names the worker."""
    async with asyncio.timeout(10):
        while b64u(worker.bh) not in directory_text((await up.http.get("/v1/keys")).json()):
            await asyncio.sleep(0.05)


def directory_text(document: dict[str, Any]) -> str:
    return unb64u(document["payload"]).decode()


async def test_a_signed_result_calls_the_worker_simulated(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    await worker.admitted()
    reply = await up.http.get(f"/v1/attestation/results/{b64u(worker.bh)}")
    assert reply.status_code == 200
    result = json.loads(unb64u(reply.text.split(".")[1]))["submods"]["worker"]
    assert result["ear.status"] == "contraindicated"
    assert result["ear.trustworthiness-vector"]["hardware"] == 97  # no vendor's own root
