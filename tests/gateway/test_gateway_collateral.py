"""How long the gateway uses what vendors said: never longer than the policy in force allows."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from simulators.hardware_tee import SnpTee
from simulators.vendor_services import VendorServices

from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.policy import parse_policy
from client.collateral import OwnCollateral
from gateway.appraiser import Appraiser
from gateway.clock import Clock
from gateway.collateral import CollateralSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attestation.policy import Policy

CERT = "endorsement_cert"


class World:
    """A worker, its vendor's service, and a gateway's source of collateral."""

    def __init__(self, folder: Path, served: VendorServices) -> None:
        self.tee = SnpTee()
        self.served = served
        self.tee.serve(served)
        self.evidence = [self.tee.evidence(self.tee.binding())]
        self.appraiser = Appraiser(self.policy(60))
        self.now = self.tee.now
        self.folder = folder / "cache"
        self.missing: list[str] = []

    def policy(self, max_age_s: int) -> Policy:
        self.tee.demands["freshness"] = {"collateral_max_age_s": max_age_s}
        return parse_policy(json.dumps(self.tee.demands).encode())

    @contextmanager
    def source(self, *, fetch: bool = True) -> Iterator[CollateralSource]:
        services = self.served.services()
        vendors = Vendors(services, secrets.token_bytes, self.tee.amd.anchors)
        found = CollateralSource(
            Store(self.folder),
            lambda: vendors,
            HttpFetcher(services, pause=lambda _: None) if fetch else None,
            Clock(wall=lambda: self.now),
            lambda: self.appraiser.policy.collateral_max_age_s,
            self.missing.append,
        )
        try:
            yield found
        finally:
            found.close()

    async def roles(self, source: CollateralSource) -> set[str]:
        return set((await source.collect(self.evidence))[self.tee.kind])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with VendorServices() as served:
        yield World(tmp_path, served)


async def test_what_the_policy_calls_old_is_fetched_again(world: World) -> None:
    with world.source() as source:
        assert CERT in await world.roles(source)
        asked = len(world.served.asked)
        world.now += 44
        assert CERT in await world.roles(source)
        assert len(world.served.asked) == asked
        world.now += 16
        assert CERT in await world.roles(source)
        assert len(world.served.asked) > asked


async def test_what_the_policy_calls_old_is_not_there_offline(world: World) -> None:
    with world.source() as source:
        await world.roles(source)
    with world.source(fetch=False) as offline:
        world.now += 59
        assert CERT in await world.roles(offline)
        world.now += 1
        assert await world.roles(offline) == set()


async def test_a_policy_put_in_force_counts_at_once_memory_or_not(world: World) -> None:
    world.appraiser.policy = world.policy(3600)
    with world.source() as source:
        await world.roles(source)
        asked = len(world.served.asked)
        world.now += 10
        assert CERT in await world.roles(source)
        world.appraiser.policy = world.policy(5)
        assert CERT in await world.roles(source)
        assert len(world.served.asked) == 2 * asked


async def test_a_clients_own_folder_is_under_its_policys_age_too(world: World) -> None:
    with world.source() as source:
        await world.roles(source)
    own = OwnCollateral(world.folder, world.appraiser.policy)
    kind, now = world.tee.kind, world.tee.now
    assert CERT in own.find(world.evidence, now + 59)[kind]
    assert not own.find(world.evidence, now + 60)[kind]
    patient = OwnCollateral(world.folder, world.policy(3600))
    assert CERT in patient.find(world.evidence, now + 60)[kind]
