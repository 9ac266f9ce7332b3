"""A running gateway in each test, with blocking calls in its event loop forbidden."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster
from simulators.deployment import Deployment, Fleet, Observed, Up
from simulators.vendor_services import VendorServices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


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
async def up(deployment: Deployment, observed: Observed) -> AsyncIterator[Up]:
    async with deployment.up(observed.telemetry) as found:
        yield found


@pytest.fixture
async def fleet(up: Up) -> AsyncIterator[Fleet]:
    found = Fleet(up.deployment)
    yield found
    await asyncio.gather(*(worker.drop() for worker in found.workers))
