"""Workers on vendors' hardware: the gateway fetches what the vendors state, and keeps asking."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from simulators.deployment import Deployment, Fleet, Observed, Up, seal
from simulators.gpu_tee import GPUS, SnpGpuTee
from simulators.hardware_tee import (
    AzureSnpTee,
    HardwareTee,
    NitroTee,
    SnpTee,
    TdxTee,
    pem,
)
from simulators.hardware_workers import platform
from simulators.vendor_services import Fault, VendorServices

from client import cli
from evidence.events import ATTEST_VERDICT
from wire.ids import b64u
from wire.link import MessageType

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.worker_peer import WorkerPeer

ASK_SERIAL = 0x20002
CRL = "/vcek/v1/Genoa/crl"
KINDS: list[type[HardwareTee]] = [SnpTee, TdxTee, NitroTee, AzureSnpTee]
LIST_S = 300  # a list that holds while a worker is admitted, and not much longer
SOON: dict[str, Any] = {"reappraise_s": 0.2}


@pytest.fixture
def deployment(on_hardware: Deployment) -> Deployment:
    return on_hardware


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
    tee.crl["end"] = LIST_S
    tee.serve(served)
    await worker.admitted()
    tee.crl.clear()
    tee.revoked = [ASK_SERIAL]
    tee.serve(served)
    up.deployment.ahead = LIST_S
    await worker.closed()
    refusal = await last_refusal(up, worker)
    assert refusal["reasons"][0] == "revoked"
    assert refusal["kind"] == tee.kind


@pytest.mark.parametrize("settings", [SOON])
async def test_a_list_that_ended_and_has_no_successor_fences_the_worker(
    up: Up, fleet: Fleet, served: VendorServices
) -> None:
    worker = fleet.make("a")
    tee = platform(worker)
    tee.crl["end"] = LIST_S
    tee.serve(served)
    await worker.admitted()
    served.faults[CRL] = Fault("status", status=404)
    up.deployment.ahead = LIST_S
    await worker.closed()
    assert (await last_refusal(up, worker))["reasons"] == ["revocation_not_checked"]


@pytest.mark.parametrize("lenient", [True, False])
async def test_a_list_that_revokes_counts_where_none_is_demanded(
    up: Up, fleet: Fleet, served: VendorServices, lenient: bool
) -> None:
    """The cache keeps it: what it refused to keep would look as if there were none."""
    if lenient:
        await up.demand(accept=[{**up.deployment.tee.rule, "revocation": "as_supplied"}])
        assert up.gateway.reappraisal.appraiser.policy.seq == 2
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
    await up.demand(accept=[rule])
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
    await up.demand(deny={"chip_ids": [chip]})
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
