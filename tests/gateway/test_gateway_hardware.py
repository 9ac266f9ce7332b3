"""Workers on vendors' hardware: the gateway fetches what the vendors state, and keeps asking."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Deployment, Fleet, Observed, Up, now, seal
from simulators.gpu_tee import GPUS, SnpGpuTee
from simulators.hardware_tee import (
    AzureSnpTee,
    HardwareTee,
    NitroTee,
    SnpTee,
    TdxTee,
    pem,
)
from simulators.vendor_services import Fault, VendorServices, contents

from attestation.appraise import appraise
from attestation.carried import collateral_json
from attestation.result import AppraisedEvidence
from client import cli
from client.api import Client
from client.recorded import parse_recorded
from client.session import Options
from evidence.events import ATTEST_VERDICT
from wire.ids import b64u, unb64u
from wire.link import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulators.worker_peer import WorkerPeer

ASK_SERIAL = 0x20002
CRL = "/vcek/v1/Genoa/crl"
KINDS: list[type[HardwareTee]] = [SnpTee, TdxTee, NitroTee, AzureSnpTee]
SOON: dict[str, Any] = {"reappraise_s": 0.2}


@pytest.fixture
def make() -> type[HardwareTee]:
    """The kind of worker; overridden by parametrising `make`."""
    return SnpTee


@pytest.fixture
def demands() -> dict[str, Any]:
    """Members of the admission policy that differ; overridden by parametrising `demands`."""
    return {}


@pytest.fixture
def deployment(
    served: VendorServices,
    make: type[HardwareTee],
    settings: dict[str, Any],
    demands: dict[str, Any],
    tmp_path: Path,
) -> Iterator[Deployment]:
    services = tmp_path / "services.toml"
    found = Deployment(make, collateral_services_file=services, **settings)
    services.write_text(services_toml(served))
    found.tee.demands |= demands
    found.config.admission_policy_file.write_text(json.dumps(found.tee.demands))
    yield found
    found.remove()


def services_toml(served: VendorServices) -> str:
    """The operator's services file that names the simulated vendors."""
    at = served.services()
    return "\n".join(
        f'{name} = "{getattr(at, name)}"'
        for name in ("intel_pcs", "intel_root_crl", "amd_kds", "nvidia_rim", "nvidia_ocsp")
    )


def platform(worker: WorkerPeer) -> Any:
    """The worker's hardware."""
    assert isinstance(worker.tee, HardwareTee)
    return worker.tee


def soon(tee: HardwareTee) -> int:
    """A list that holds while a worker is admitted, and not much longer."""
    return now() - tee.now + 8


async def rewrite(up: Up, **changes: Any) -> None:
    """Replace the admission policy's file by one that differs in these members."""
    document = {**up.deployment.tee.demands, "seq": 2, **changes}
    path = up.deployment.config.admission_policy_file
    await asyncio.to_thread(path.write_text, json.dumps(document))


async def verdicts(up: Up, worker: WorkerPeer) -> list[dict[str, Any]]:
    return [body for body in await up.events(ATTEST_VERDICT) if body["bh"] == b64u(worker.bh)]


async def last_refusal(up: Up, worker: WorkerPeer) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while (found := (await verdicts(up, worker))[-1])["ok"]:
            await asyncio.sleep(0.02)
    return found


# ---------------------------------------------------------------- admitted


@pytest.mark.parametrize("make", KINDS)
async def test_a_worker_is_admitted_with_what_its_vendor_states(
    up: Up, fleet: Fleet, served: VendorServices, make: type[HardwareTee]
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    await worker.admitted()
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    assert (epoch.appraised.kind, epoch.appraised.trust) == (make.kind, "simulated")
    # All that was served was asked for, and nothing else.
    assert {path for _, path, _ in served.asked} == set(served.answers)
    (verdict,) = await verdicts(up, worker)
    assert (verdict["ok"], verdict["kind"], verdict["trust"]) == (True, make.kind, "simulated")
    assert verdict["measurement"] == worker.tee.measurement()
    await worker.pull(1)
    reply = asyncio.create_task(up.post(seal([worker])))
    await worker.answer(await worker.job())
    assert (await reply).status_code == 200


async def test_what_is_known_of_a_product_is_not_asked_again(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    first, second = fleet.make("a"), fleet.make("b")
    platform(first).serve(served)
    platform(second).serve(served)
    await first.admitted()
    before = len(served.asked)
    await second.admitted()
    assert [path.split("?")[0] for _, path, _ in served.asked[before:]] == [
        f"/vcek/v1/Genoa/{platform(second).chip.facts.chip_id.hex()}"
    ]
    await first.new_keys(epoch=1)
    await first.receive(MessageType.ADMITTED)
    assert len(served.asked) == before + 1
    assert up.gateway.registry.knows(first.kid)


@pytest.mark.parametrize("make", [SnpGpuTee])
async def test_a_worker_with_gpus_is_admitted_with_nvidias_answers(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.serve(served)
    await worker.admitted()
    epoch = up.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    assert set(epoch.appraised.claims) == {tee.kind, GPUS}
    assert len([role for role in epoch.collateral.roles[GPUS] if role.startswith("ocsp")]) == 4
    alone = fleet.make("b")
    platform(alone).serve(served)
    await alone.connect()
    only = [alone.tee.evidence(alone.binding).to_json()]
    await alone.hello(evidence=only)
    refused = (await alone.receive(MessageType.REFUSED)).json()
    assert refused["reasons"] == ["gpu_missing"]


@pytest.mark.parametrize("make", KINDS)
async def test_a_worker_of_another_measurement_is_refused(
    up: Up, fleet: Fleet, served: VendorServices, make: type[HardwareTee]
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.parts = {**tee.parts, "model": tee.parts["first_party"]}
    tee.serve(served)
    reasons = await worker.refused()
    assert "image_mismatch" in reasons
    (verdict,) = await verdicts(up, worker)
    assert (verdict["ok"], verdict["kind"], verdict["trust"]) == (False, make.kind, None)
    assert verdict["reasons"] == reasons
    assert not up.gateway.registry.knows(worker.kid)


# ---------------------------------------------------------------- vendors that do not answer


@pytest.mark.parametrize("settings", [{"collateral_retry_s": 0.0}])
async def test_a_vendor_that_is_down_costs_one_try(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    served.faults[""] = Fault("status", status=404)
    reasons = await worker.refused()
    assert reasons[0] == "collateral_missing"
    assert "revocation_not_checked" in reasons
    await worker.drop()
    served.faults.clear()
    await worker.admitted()  # the same evidence, over another connection
    assert up.gateway.registry.knows(worker.kid)
    assert [found["ok"] for found in await verdicts(up, worker)] == [False, True]


@pytest.mark.parametrize("settings", [{"collateral_retry_s": 0.0}])
async def test_a_vendor_that_withholds_only_its_list_is_not_believed(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    served.faults[CRL] = Fault("status", status=404)
    assert await worker.refused() == ["revocation_not_checked"]
    assert not up.gateway.registry.knows(worker.kid)
    await worker.drop()
    served.faults.clear()
    await worker.admitted()


@pytest.mark.parametrize("settings", [{"collateral_fetch": False}])
async def test_offline_an_imported_bundle_is_enough(
    up: Up,
    fleet: Fleet,
    served: VendorServices,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.serve(served)
    assert "collateral_missing" in await worker.refused()
    assert served.asked == []
    await worker.drop()
    # Elsewhere, with a network: fetched for this evidence, and exported.
    elsewhere, bundle, root = tmp_path / "elsewhere", tmp_path / "bundle.json", tmp_path / "ark"
    root.write_text(pem(tee.amd.root))
    document, services = tmp_path / "evidence.json", tmp_path / "services.toml"
    document.write_text(json.dumps(tee.evidence(worker.binding).to_json()))
    for line in (
        ["fetch", document, "--services", services, "--root", root, "--cache-dir", elsewhere],
        ["export", bundle, "--cache-dir", elsewhere],
        ["import", bundle, "--root", root, "--cache-dir", up.gateway.collateral.store.root],
    ):
        words = ["collateral", *map(str, line)]
        code = await asyncio.to_thread(cli.execute, cli.build_parser(), words)
        assert code == 0, capsys.readouterr()
    await worker.admitted()
    assert up.gateway.registry.knows(worker.kid)


# ---------------------------------------------------------------- what changes later


@pytest.mark.parametrize("settings", [SOON])
@pytest.mark.parametrize("demands", [{"freshness": {"collateral_max_age_s": 1}}])
async def test_a_revocation_fences_the_worker_as_soon_as_the_policy_asks_for_news(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.serve(served)
    await worker.admitted()
    tee.revoked = [ASK_SERIAL]
    tee.serve(served)
    await worker.closed()
    assert not up.gateway.registry.knows(worker.kid)
    refusal = await last_refusal(up, worker)
    assert refusal["reasons"][0] == "revoked"
    another = fleet.make("b")
    platform(another).serve(served)
    assert "revoked" in await another.refused()


@pytest.mark.parametrize("settings", [SOON])
async def test_a_revocation_fences_the_worker_when_the_vendors_last_list_ends(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.crl["end"] = soon(tee)
    tee.serve(served)
    await worker.admitted()
    tee.crl.clear()
    tee.revoked = [ASK_SERIAL]
    tee.serve(served)
    await worker.closed(30)
    refusal = await last_refusal(up, worker)
    assert refusal["reasons"][0] == "revoked"
    assert refusal["kind"] == tee.kind


@pytest.mark.parametrize("settings", [SOON])
async def test_a_list_that_ended_and_has_no_successor_fences_the_worker(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.crl["end"] = soon(tee)
    tee.serve(served)
    await worker.admitted()
    served.faults[CRL] = Fault("status", status=404)
    await worker.closed(30)
    assert (await last_refusal(up, worker))["reasons"] == ["revocation_not_checked"]


@pytest.mark.parametrize("lenient", [True, False])
async def test_a_list_that_revokes_counts_where_none_is_demanded(
    up: Up, fleet: Fleet, served: VendorServices, lenient: bool
) -> None:
    """The cache keeps it: what it refused to keep would look as if there were none."""
    if lenient:
        await rewrite(up, accept=[{**up.deployment.tee.rule, "revocation": "as_supplied"}])
        async with asyncio.timeout(8):
            while up.gateway.reappraisal.appraiser.policy.seq != 2:
                await asyncio.sleep(0.02)
    worker = fleet.make("a")
    tee = platform(worker)
    tee.revoked = [ASK_SERIAL]
    tee.serve(served)
    assert (await worker.refused())[0] == "revoked"


async def test_a_higher_floor_in_the_policy_fences_the_worker(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    await worker.admitted()
    rule = {**up.deployment.tee.rule, "min_tcb": {"Genoa": {"snp": 24}, "Turin": {}}}
    await rewrite(up, accept=[rule])
    await worker.closed()
    refusal = await last_refusal(up, worker)
    assert refusal["reasons"] == ["tcb_out_of_date"]
    assert refusal["policy"] == up.gateway.policies.value.digest


async def test_a_denied_chip_is_fenced_and_others_stay(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    bad, good = fleet.make("a"), fleet.make("b")
    for worker in (bad, good):
        platform(worker).serve(served)
        await worker.admitted()
    chip = platform(bad).chip.facts.chip_id.hex()
    await rewrite(up, deny={"chip_ids": [chip]})
    await bad.closed()
    assert (await last_refusal(up, bad))["reasons"] == ["denied"]
    assert up.gateway.registry.knows(good.kid)


@pytest.mark.parametrize("settings", [SOON])
async def test_a_worker_whose_vendor_states_nothing_new_stays(
    up: Up, fleet: Fleet, served: VendorServices, observed: Observed
) -> None:
    worker = fleet.make("a")
    platform(worker).serve(served)
    await worker.admitted()
    asked = len(served.asked)
    await asyncio.sleep(1.0)  # several sweeps
    assert up.gateway.registry.knows(worker.kid)
    assert len(served.asked) == asked
    assert observed.total("anchorhold_attest_failures") == 0
    assert len(await verdicts(up, worker)) == 1


# ---------------------------------------------------------------- what others are told


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


@pytest.mark.parametrize("settings", [SOON])
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
