"""`docs/operate/gateway.md` lists exactly what exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulators.deployment import Deployment

from gateway.app import create_app
from gateway.attributes import ATTRIBUTES, OWN_REASONS, Attr
from gateway.config import GatewayConfig
from gateway.errors import Fault
from gateway.journal import Event
from gateway.metrics import METRICS
from gateway.runtime import Gateway
from gateway.telemetry import SpanName

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (Path(__file__).resolve().parents[2] / "docs/operate/gateway.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(heading: str) -> list[str]:
    return [row[0].strip("` ") for row in rows(heading)]


def test_every_setting_is_documented_with_its_default() -> None:
    fields = {field.name: field for field in dataclasses.fields(GatewayConfig)}
    assert names("Settings") == list(fields)
    for name, default, *_ in rows("Settings"):
        found = fields[name.strip("`")].default
        if found is dataclasses.MISSING:
            assert default == "required"
        else:
            shown = str(found).lower() if isinstance(found, bool) else found
            assert default == ("none" if found is None else f"`{shown}`"), name


def test_every_error_is_documented() -> None:
    documented = [(int(row[0]), row[1].strip("`"), row[2]) for row in rows("Errors")]
    assert documented == [(fault.status, fault.urn, fault.title) for fault in Fault]


def test_every_metric_is_documented_with_its_attributes() -> None:
    assert names("Metrics") == [metric.value for metric in METRICS]
    for row, spec in zip(rows("Metrics"), METRICS.values(), strict=True):
        assert row[1:4] == [spec.instrument.value, spec.unit, spec.description]
        listed = re.findall(r"`([^`]+)`", row[4]) if len(row) > 4 else []
        assert listed == [attribute.value for attribute in spec.attributes]


def test_every_reason_of_our_own_for_refusing_a_worker_is_documented() -> None:
    assert names("Refusals of workers") == list(OWN_REASONS)


def test_every_span_is_documented() -> None:
    assert names("Spans") == [name.value for name in SpanName]


def test_every_attribute_is_documented_with_its_type() -> None:
    documented = [(row[0].strip("`"), row[1]) for row in rows("Attributes")]
    assert documented == [(attr.value, ATTRIBUTES[attr].kind.value) for attr in Attr]


def test_every_log_event_is_documented() -> None:
    assert names("Log events") == [event.value for event in Event]


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    found = Deployment()
    yield found
    found.remove()


def test_every_route_is_documented(deployment: Deployment) -> None:
    gateway = Gateway.open(deployment.config)
    try:
        app = create_app(deployment.config, gateway)
        paths = app.openapi()["paths"]
        served = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
        assert set(names("Routes")) == served
    finally:
        gateway.ledger.log.close()
        gateway.telemetry.close()
