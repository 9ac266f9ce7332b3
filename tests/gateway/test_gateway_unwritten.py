"""A revocation that the disk does not take counts all the same, and the log says so once."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from simulators.deployment import Deployment, Fleet, Up, now
from simulators.hardware_tee import SnpTee
from simulators.unwritable import disk_error, disk_fault
from simulators.vendor_services import Fault

from attestation.collateral.locks import AGAIN_S
from attestation.collateral.store import Store
from attestation.collateral_key import amd
from gateway.attributes import Attr
from gateway.clock import Clock
from gateway.journal import Event

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.vendor_services import VendorServices
    from simulators.worker_peer import WorkerPeer

AGE_S = 400
CRL = amd("crl", "vcek", "Genoa")


@pytest.fixture
def demands() -> dict[str, Any]:
    return {"freshness": {"collateral_max_age_s": AGE_S}}


@pytest.fixture
def settings() -> dict[str, Any]:
    """It sweeps when the test says so."""
    return {"reappraise_s": 3600, "lease_s": 60}


@pytest.fixture
def deployment(on_hardware: Deployment) -> Deployment:
    return on_hardware


@pytest.fixture
def cache(up: Up) -> Path:
    return up.deployment.config.path("collateral_dir", "collateral")


async def admitted(fleet: Fleet, served: VendorServices) -> WorkerPeer:
    worker = fleet.make("a")
    assert isinstance(worker.tee, SnpTee)
    worker.tee.serve(served)
    await worker.admitted()
    return worker


def revoke(worker: WorkerPeer, served: VendorServices) -> None:
    """AMD revokes what signed the chips' certificates."""
    tee = worker.tee
    assert isinstance(tee, SnpTee)
    tee.revoked = [x509.load_der_x509_certificate(tee.amd.ask).serial_number]
    tee.crl = {"start": -60}
    tee.serve(served)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[Event, object]]:
    events = (Event.COLLATERAL_UNWRITTEN, Event.COLLATERAL_WRITTEN)
    found = [vars(record) for record in caplog.records]
    return [
        (one["anchorhold_event"], one["fields"].get(Attr.CAUSE.value))
        for one in found
        if one.get("anchorhold_event") in events
    ]


async def test_a_worker_that_it_names_is_fenced_and_stays_out(
    up: Up, fleet: Fleet, served: VendorServices, cache: Path
) -> None:
    worker = await admitted(fleet, served)
    revoke(worker, served)
    late = now() + AGE_S * 3 // 4
    up.gateway.collateral.clock = Clock(wall=lambda: late)  # all is to be renewed
    with disk_error(cache, errno.ENOSPC):
        assert await up.gateway.reappraisal.renew() == 1
        await worker.closed()
        again = up.deployment.worker("a")
        again.tee, again.binding = worker.tee, worker.binding  # the very same evidence
        assert "revoked" in await again.refused()
        await again.drop()


@pytest.mark.parametrize("part", ["", "seen", "entries", "locks", "begun"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES], ids=errno.errorcode.get)
async def test_so_it_is_where_the_disk_cannot_be_read(
    up: Up, fleet: Fleet, served: VendorServices, cache: Path, part: str, number: int
) -> None:
    worker = await admitted(fleet, served)
    revoke(worker, served)
    late = now() + AGE_S * 3 // 4
    up.gateway.collateral.clock = Clock(wall=lambda: late)
    with disk_fault(cache / part if part else cache, number):
        assert await up.gateway.reappraisal.renew() == 1
        await worker.closed()


async def test_a_disk_that_cannot_be_read_ends_no_worker_while_its_vendor_is_silent(
    up: Up, fleet: Fleet, served: VendorServices, cache: Path
) -> None:
    worker = await admitted(fleet, served)
    late = now() + AGE_S * 3 // 4
    up.gateway.collateral.clock = Clock(wall=lambda: late)
    served.faults[""] = Fault("status", status=404)
    for path in (cache / "entries").iterdir():
        path.touch()  # to be read again
    with disk_fault(cache, errno.EIO):
        assert await up.gateway.reappraisal.renew() == 0
        assert await up.gateway.reappraisal.reread() == 0
    assert up.gateway.registry.knows(worker.kid)


async def test_it_is_written_by_a_sweep_once_there_is_room(
    up: Up, fleet: Fleet, served: VendorServices, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="anchorhold.gateway")
    await admitted(fleet, served)
    late = [now() + AGE_S * 3 // 4]
    up.gateway.collateral.clock = Clock(wall=lambda: late[0])
    with disk_error(cache, errno.ENOSPC):
        assert await up.gateway.reappraisal.renew() == 0
    before = Store(cache).get(CRL, late[0])
    assert before is not None
    assert before.fetched_at < late[0]
    renewed = late[0]
    late[0] += AGAIN_S
    assert await up.gateway.reappraisal.reread() == 0
    after = Store(cache).get(CRL, late[0])
    assert after is not None
    assert after.fetched_at == renewed
    assert said(caplog) == [
        (Event.COLLATERAL_UNWRITTEN, "disk_full"),
        (Event.COLLATERAL_WRITTEN, None),
    ]
