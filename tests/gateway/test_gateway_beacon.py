"""The log prefix a binding names: told to workers, and proved by our log before one is admitted."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import now

from attestation.binding import Beacon, parse_beacon
from evidence.events import parse_event
from gateway.runtime import Gateway
from wire.errors import ConfigError
from wire.ids import b64u
from wire.link import MessageType

if TYPE_CHECKING:
    from simulators.deployment import Deployment, Fleet, Up


async def test_the_first_worker_is_told_of_a_snapshot_and_a_binding_that_names_it_is_admitted(
    up: Up, fleet: Fleet
) -> None:
    worker, log = fleet.make("a"), up.gateway.ledger.log
    assert (await worker.admitted())["bh"] == b64u(worker.bh)
    beacon = worker.beacon
    assert beacon is not None
    assert worker.tee.facts["beacon"] == beacon
    assert (beacon.log, beacon.root) == (log.origin, log.root(beacon.size))
    last = parse_event((await log.entry(beacon.size - 1)).event)
    assert last.type == "directory.snapshot"


async def test_a_lease_names_the_newest_snapshot(up: Up, fleet: Fleet) -> None:
    (worker,) = await fleet.admit("a")
    assert worker.beacon is not None
    async with asyncio.timeout(5):  # its own admission makes a new one
        newer = worker.beacon
        while newer == worker.beacon:
            lease = (await worker.receive(MessageType.LEASE)).json()
            found = parse_beacon(lease["beacon"], "lease")
            assert found is not None
            newer = found
    assert newer.size > worker.beacon.size
    await worker.new_keys(epoch=1, beacon=newer)
    assert (await worker.receive(MessageType.ADMITTED)).json()["bh"] == b64u(worker.bh)


@pytest.mark.parametrize("lie", ["root", "size", "log", "entry"])
async def test_a_beacon_our_log_never_published_is_refused(up: Up, fleet: Fleet, lie: str) -> None:
    await fleet.admit("b")
    log, honest = up.gateway.ledger.log, up.gateway.directory.beacon
    assert honest is not None
    size = log.size + 1000 if lie == "size" else honest.size
    if lie == "entry":  # the verdict on the other worker: in the log, but no snapshot
        (bh,) = up.gateway.registry.admitted()
        admitted = up.gateway.registry.epoch(bh)
        assert admitted is not None
        size = admitted.verdict.index + 1
    root = log.root(min(size, log.size))
    worker = fleet.make("a")
    worker.tee.facts["beacon"] = Beacon(
        "another log" if lie == "log" else honest.log, size, bytes(32) if lie == "root" else root
    )
    worker.binding = worker.tee.binding()
    assert await worker.refused() == ["beacon_unverified"]


async def test_a_beacon_older_than_the_policy_allows_is_refused(up: Up, fleet: Fleet) -> None:
    worker = fleet.make("a")
    worker.tee.facts |= {"nbf": now() + 601, "exp": now() + 3600}
    assert "beacon_stale" in await worker.refused()


async def test_a_policy_that_demands_a_beacon_refuses_a_binding_without_one(
    deployment: Deployment,
) -> None:
    path = deployment.config.admission_policy_file
    path.write_text(json.dumps({**deployment.tee.demands, "freshness": {"require_beacon": True}}))
    async with deployment.up():
        bare, dated = deployment.worker("a", dated=False), deployment.worker("b")
        assert await bare.refused() == ["beacon_missing"]
        await dated.admitted()
        await bare.drop()
        await dated.drop()


def test_a_policy_that_wants_younger_beacons_than_are_published_is_refused_at_the_start(
    deployment: Deployment,
) -> None:
    path = deployment.config.admission_policy_file
    path.write_text(json.dumps({**deployment.tee.demands, "freshness": {"beacon_max_age_s": 180}}))
    with pytest.raises(ConfigError, match=r"beacon_max_age_s \(180 s\) expected, found 180"):
        Gateway.open(deployment.config)
