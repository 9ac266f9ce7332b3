"""What a sweep finds in the cache, at vendors that are slow, and of keys offered no longer."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from simulators.deployment import Deployment, Fleet, Observed, Up, now, problem, seal
from simulators.hardware_tee import SnpTee
from simulators.vendor_services import Fault, VendorServices

from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.collateral_key import amd
from attestation.evidence_collateral import collateral_anchors
from attestation.policy import parse_policy
from evidence.events import ATTEST_VERDICT
from gateway.clock import Clock
from gateway.reappraisal import PAST_S, TOGETHER
from wire.ids import b64u
from wire.link import MessageType
from wire.suites import HYBRID, SUITES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from simulators.worker_peer import WorkerPeer

AGE_S = 40


@pytest.fixture
def machines(served: VendorServices, tmp_path: Path) -> Iterator[Deployment]:
    """Workers on hardware, and a gateway that sweeps when the test says so."""
    services = tmp_path / "services.toml"
    services.write_text(f'amd_kds = "{served.url}"')
    found = Deployment(SnpTee, collateral_services_file=services, reappraise_s=3600, lease_s=60)
    found.tee.demands["freshness"] = {"collateral_max_age_s": AGE_S}
    found.config.admission_policy_file.write_text(json.dumps(found.tee.demands))
    yield found
    found.remove()


@pytest.fixture
async def hardware(machines: Deployment, observed: Observed) -> AsyncIterator[Up]:
    async with machines.up(observed.telemetry) as found:
        yield found


def tee_of(worker: WorkerPeer) -> SnpTee:
    assert isinstance(worker.tee, SnpTee)
    return worker.tee


async def admit(up: Up, served: VendorServices, *names: str) -> list[WorkerPeer]:
    fleet = Fleet(up.deployment)
    for name in names:
        worker = fleet.make(name)
        tee_of(worker).serve(served)
        await worker.admitted()
    return fleet.workers


async def revoke(up: Up, served: VendorServices, worker: WorkerPeer) -> None:
    """AMD revokes what signed the chips' certificates, and an operator fetches its list."""
    tee = tee_of(worker)
    tee.revoked = [x509.load_der_x509_certificate(tee.amd.ask).serial_number]
    tee.crl = {"start": -60}
    tee.serve(served)

    def fetch() -> None:
        services = served.services()
        store = Store(up.deployment.config.path("collateral_dir", "collateral"))
        vendors = Vendors(services, os.urandom, collateral_anchors(up.gateway.policies.value))
        chain = store.get(amd("chain", "vcek", "Genoa"), now())
        assert chain is not None
        key, fetcher = amd("crl", "vcek", "Genoa"), HttpFetcher(services)
        store.put(vendors.fetch(key, fetcher, now(), chain.piece), now())
        fetcher.close()

    await asyncio.to_thread(fetch)


async def reasons(up: Up) -> list[tuple[bool, list[str]]]:
    return [(body["ok"], body["reasons"]) for body in await up.events(ATTEST_VERDICT)]


# ---------------------------------------------------------------- the cache


async def test_a_revocation_in_the_cache_counts_at_the_next_sweep_and_for_who_comes_back(
    hardware: Up, served: VendorServices
) -> None:
    """What was found for the same evidence a moment ago must not let it in again."""
    (worker,) = await admit(hardware, served, "a")
    await revoke(hardware, served, worker)
    assert await hardware.gateway.reappraisal.reread() == 1
    await worker.closed()
    await worker.drop()
    again = hardware.deployment.worker("a")
    again.tee, again.binding = worker.tee, worker.binding  # the very same evidence
    assert "revoked" in await again.refused()
    await again.drop()


async def test_vendors_that_stall_for_others_keep_no_worker_that_the_cache_revokes(
    hardware: Up, served: VendorServices
) -> None:
    workers = await admit(hardware, served, *"abcde"[: TOGETHER + 1])
    gateway, late = hardware.gateway, now() + AGE_S * 3 // 4
    gateway.collateral.clock = Clock(wall=lambda: late)  # all are to be renewed
    chips, asked = [path for path in served.answers if "?" in path], len(served.asked)
    for path in chips:
        served.faults[path] = Fault("slow")
    renewing = asyncio.create_task(gateway.reappraisal.renew())
    async with asyncio.timeout(20):
        while sum(path in chips for _, path, _ in served.asked[asked:]) < TOGETHER:
            await asyncio.sleep(0.02)
    assert not renewing.done()  # all turns wait for vendors
    await revoke(hardware, served, workers[-1])
    assert await gateway.reappraisal.reread() == TOGETHER + 1
    assert not any(gateway.registry.knows(worker.kid) for worker in workers)
    served.faults.clear()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    await asyncio.gather(*(worker.drop() for worker in workers))


async def test_collateral_past_its_end_is_waited_for_half_a_minute_whatever_vendors_do(
    hardware: Up, served: VendorServices
) -> None:
    (worker,) = await admit(hardware, served, "a")
    gateway, at = hardware.gateway, [1000.0]
    began = now()
    served.faults[""] = Fault("slow")
    gateway.collateral.clock = Clock(wall=lambda: began + AGE_S + 5)
    gateway.reappraisal.clock = Clock(monotonic=lambda: at[0])
    assert gateway.reappraisal.reread_due_s is None
    assert await gateway.reappraisal.reread() == 0
    assert gateway.reappraisal.reread_due_s == PAST_S
    at[0] += PAST_S - 1
    assert await gateway.reappraisal.reread() == 0
    assert gateway.reappraisal.reread_due_s == 1
    assert gateway.registry.knows(worker.kid)
    at[0] += 1
    assert await gateway.reappraisal.reread() == 1
    assert gateway.reappraisal.reread_due_s is None
    await worker.closed()
    served.faults.clear()
    await worker.drop()


async def test_a_list_past_its_own_end_is_waited_for_without_a_look_at_the_cache(
    hardware: Up, served: VendorServices
) -> None:
    worker = hardware.deployment.worker("a")
    tee_of(worker).crl = {"end": 120}
    tee_of(worker).serve(served)
    await worker.admitted()
    gateway, at, late = hardware.gateway, [1000.0], now() + 600
    gateway.reappraisal.clock = Clock(wall=lambda: late, monotonic=lambda: at[0])
    assert await gateway.reappraisal.check() == 0
    assert gateway.registry.knows(worker.kid)
    at[0] += PAST_S
    assert await gateway.reappraisal.check() == 1
    await worker.closed()
    await worker.drop()


async def test_collateral_that_comes_in_time_ends_the_wait(
    hardware: Up, served: VendorServices
) -> None:
    (worker,) = await admit(hardware, served, "a")
    gateway, at, began = hardware.gateway, [1000.0], now()
    gateway.collateral.clock = Clock(wall=lambda: began + AGE_S + 5)
    gateway.reappraisal.clock = Clock(monotonic=lambda: at[0])
    assert await gateway.reappraisal.reread() == 0
    assert await gateway.reappraisal.renew() == 0
    assert gateway.reappraisal.reread_due_s is None
    at[0] += 2 * PAST_S
    assert await gateway.reappraisal.sweep() == 0
    assert gateway.registry.knows(worker.kid)
    await worker.drop()


# ---------------------------------------------------------------- keys that are offered no longer


async def with_older_keys(up: Up) -> tuple[WorkerPeer, bytes]:
    """A worker with good new keys, and the hash of its older ones; these end in five seconds."""
    worker, began = up.deployment.worker("a", beat_s=0.5), now()
    worker.tee.facts.update(nbf=began - 3595, exp=began + 5)
    worker.binding = worker.tee.binding()
    await worker.admitted()
    older = worker.bh
    worker.tee.keys = {name: SUITES[name].private_key(os.urandom(32)) for name in worker.tee.keys}
    await worker.new_keys(epoch=1, nbf=began, exp=began + 3600, kems=[worker.tee.kem(HYBRID)])
    await worker.receive(MessageType.ADMITTED)
    return worker, older


def later(up: Up, seconds: int = 60) -> int:
    """Let the gateway judge at a time when the older keys are offered no longer."""
    at = now() + seconds
    up.gateway.reappraisal.clock = Clock(wall=lambda: at)
    return at


def put_in_force(up: Up, **changes: Any) -> None:
    document = {**up.deployment.tee.demands, "seq": 2, **changes}
    up.gateway.reappraisal.appraiser.policy = parse_policy(json.dumps(document).encode())


async def test_a_policy_of_now_accepts_keys_that_were_offered_before_it(up: Up) -> None:
    worker, older = await with_older_keys(up)
    put_in_force(up, not_before=later(up))
    assert await up.gateway.reappraisal.sweep() == 0
    assert up.gateway.registry.epoch(older) is not None
    assert up.gateway.registry.knows(worker.kid)
    await worker.drop()


async def test_a_list_of_now_speaks_of_keys_that_were_offered_before_it(
    hardware: Up, served: VendorServices
) -> None:
    tee_of_pattern = hardware.deployment.tee
    assert isinstance(tee_of_pattern, SnpTee)
    tee_of_pattern.serve(served)
    worker = hardware.deployment.worker("a", beat_s=0.5)
    tee_of(worker).serve(served)
    began = now()
    worker.tee.facts.update(nbf=began - 3595, exp=began + 5)
    worker.binding = worker.tee.binding()
    await worker.admitted()
    at = later(hardware)
    hardware.gateway.collateral.clock = Clock(wall=lambda: at)
    tee_of(worker).crl = {"start": at - tee_of(worker).now}  # made at that second
    tee_of(worker).serve(served)
    assert await hardware.gateway.reappraisal.renew() == 0
    epoch = hardware.gateway.registry.epoch(worker.bh)
    assert epoch is not None
    listed = served.answers["/vcek/v1/Genoa/crl"].body
    assert epoch.collateral.roles[worker.tee.kind]["crl"] == listed
    await worker.drop()


async def test_older_keys_that_are_refused_leave_their_worker_its_newer_ones(up: Up) -> None:
    worker, older = await with_older_keys(up)
    sealed = seal([worker])
    answer = asyncio.create_task(up.post(sealed))
    await worker.pull(1)
    job = await worker.job()
    put_in_force(up, deny={"bh": [b64u(older)]})
    assert await up.gateway.reappraisal.check() == 1
    assert up.gateway.registry.epoch(older) is None
    assert up.gateway.registry.knows(worker.kid)
    assert len(up.gateway.roster) == 1
    await worker.answer(job)
    assert (await answer).status_code == 200
    assert [epoch.bh for epoch in up.gateway.registry.sessions[worker.wid].epochs] == [worker.bh]
    await worker.drop()


async def test_newest_keys_that_are_refused_end_their_worker(up: Up) -> None:
    worker, _ = await with_older_keys(up)
    put_in_force(up, deny={"bh": [b64u(worker.bh)]})
    assert await up.gateway.reappraisal.check() == 1
    await worker.closed()
    assert problem(await up.post(seal([worker])))[1] == "kid_unknown"
    await worker.drop()


async def test_keys_that_open_nothing_any_more_are_refused(up: Up) -> None:
    worker, older = await with_older_keys(up)
    epoch = up.gateway.registry.epoch(older)
    assert epoch is not None
    end = epoch.held_until
    up.gateway.reappraisal.clock = Clock(wall=lambda: end)
    assert await up.gateway.reappraisal.check() == 1
    assert up.gateway.registry.epoch(older) is None
    assert up.gateway.registry.knows(worker.kid)
    await worker.drop()
