"""A running gateway in each test, with blocking calls in its event loop forbidden."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster
from simulators.asked_vendor import World
from simulators.deployment import Deployment, Fleet, Observed, Up
from simulators.hardware_tee import HardwareTee, SnpTee
from simulators.vendor_services import VendorServices

from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.services import Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """A blocking call made by gateway code in the event loop fails the test."""
    guard = BlockBuster(scanned_modules=["gateway", "tenancy"])
    guard.activate()
    yield
    guard.deactivate()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
def served() -> Iterator[VendorServices]:
    """The vendors, on loopback."""
    with VendorServices() as found:
        yield found


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of the gateway under test; overridden by parametrising `settings`."""
    return {}


@pytest.fixture
def deployment(settings: dict[str, Any]) -> Iterator[Deployment]:
    found = Deployment(**settings)
    yield found
    found.remove()


@pytest.fixture
def make() -> type[HardwareTee]:
    """The kind of worker on hardware; overridden by parametrising `make`."""
    return SnpTee


@pytest.fixture
def demands() -> dict[str, Any]:
    """Members of its admission policy that differ; overridden by parametrising `demands`."""
    return {}


@pytest.fixture
def on_hardware(
    served: VendorServices,
    make: type[HardwareTee],
    settings: dict[str, Any],
    demands: dict[str, Any],
    tmp_path: Path,
) -> Iterator[Deployment]:
    """A deployment for workers on hardware; a test file takes it for its `deployment`."""
    services, at = tmp_path / "services.toml", served.services()
    names = ("intel_pcs", "intel_root_crl", "amd_kds", "nvidia_rim", "nvidia_ocsp")
    services.write_text("\n".join(f'{name} = "{getattr(at, name)}"' for name in names))
    found = Deployment(make, collateral_services_file=services, **settings)
    found.tee.demands |= demands
    found.config.admission_policy_file.write_text(json.dumps(found.tee.demands))
    yield found
    found.remove()


@pytest.fixture
async def up(deployment: Deployment, observed: Observed) -> AsyncIterator[Up]:
    async with deployment.up(observed.telemetry) as found:
        yield found


@pytest.fixture
async def fleet(up: Up) -> AsyncIterator[Fleet]:
    found = Fleet(up.deployment)
    yield found
    await asyncio.gather(*(worker.drop() for worker in found.workers))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with HttpFetcher(Services()) as fetcher:  # never called: `Vendor` answers
        yield World(tmp_path, fetcher)
