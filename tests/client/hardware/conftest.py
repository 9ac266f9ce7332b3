"""Fixtures of the tests with workers on hardware: a deployment of one, and its tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.hardware_tee import HardwareTee, SnpTee
from simulators.service import Service

if TYPE_CHECKING:
    from simulators.answers import Listed


@pytest.fixture
def make() -> type[HardwareTee]:
    """The kind of worker; overridden by parametrising `make`."""
    return SnpTee


@pytest.fixture
def service(make: type[HardwareTee]) -> Service:
    """A deployment of one worker."""
    made = Service(kind=make)
    made.add()
    return made


@pytest.fixture
def listed(service: Service) -> Listed:
    """That worker."""
    return service.workers[0]
