"""Telemetry and log: only listed words, numbers and digests can get in."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.status import Status, StatusCode
from simulators.deployment import problem, seal

from attestation.reasons import CODES
from gateway.attributes import (
    ATTRIBUTES,
    INTEGER_MAX,
    REASONS,
    SIZE_CLASSES,
    Attr,
    Kind,
    admit,
    size_class,
)
from gateway.config import GatewayConfig
from gateway.exporters import AllowListExporter, JsonLines, metric_points
from gateway.journal import Event, Journal, TypedFormatter
from gateway.metrics import METRICS, Metric
from gateway.telemetry import SpanName, Telemetry
from wire.errors import ConfigError
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.deployment import Fleet, Observed, Up

CANARY = "the patient said 7f3a9c"
DIGEST = sha256_tag(b"x")


def recorded(attribute: Attr, value: object, models: tuple[str, ...] = ("m",)) -> object:
    found = admit(attribute, value, models)
    return None if found is None else found[1]


@pytest.mark.parametrize("attribute", list(Attr), ids=lambda a: a.value)
def test_no_attribute_lets_text_through(attribute: Attr) -> None:
    assert recorded(attribute, CANARY) in (None, "other")


@given(st.sampled_from(Attr), st.one_of(st.text(), st.binary(), st.floats(), st.lists(st.text())))
def test_whatever_is_offered_only_listed_values_come_out(attribute: Attr, value: object) -> None:
    spec = ATTRIBUTES[attribute]
    found = recorded(attribute, value)
    allowed = spec.words | {"other", "m"}
    assert found is None or found in allowed or (spec.kind is Kind.DIGEST and found == value)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        (Attr.OPERATION, "chat", "chat"),
        (Attr.OPERATION, "steal", "other"),
        (Attr.MODEL, "m", "m"),
        (Attr.MODEL, "n", "other"),
        (Attr.CANDIDATES, 3, 3),
        (Attr.CANDIDATES, True, None),
        (Attr.CANDIDATES, -1, None),
        (Attr.CANDIDATES, INTEGER_MAX + 1, None),
        (Attr.CANDIDATES, 1.5, None),
        (Attr.STREAM, True, True),
        (Attr.STREAM, 1, None),
        (Attr.POLICY, DIGEST, DIGEST),
        (Attr.POLICY, DIGEST + "0", None),
        (Attr.POLICY, DIGEST.upper(), None),
    ],
    ids=str,
)
def test_attributes_are_admitted_by_type(attribute: Attr, value: object, expected: object) -> None:
    assert recorded(attribute, value) == expected
    assert admit("free.name", "x", ()) is None


def test_sizes_are_recorded_as_classes() -> None:
    assert size_class(1) == 1024
    assert size_class(1025) == 4096
    assert size_class(10**12) == SIZE_CLASSES[-1]


def test_every_attribute_has_a_type_and_every_metric_a_description() -> None:
    assert set(ATTRIBUTES) == set(Attr)
    assert set(METRICS) == set(Metric)
    assert all(spec.description and spec.unit for spec in METRICS.values())


def test_every_reason_of_the_appraisal_can_be_counted() -> None:
    assert set(CODES) <= set(REASONS)


def test_a_dropped_attribute_is_counted(observed: Observed) -> None:
    span = observed.telemetry.start(SpanName.QUEUE)
    span.set(Attr.CANDIDATES, CANARY)
    span.set("prompt", CANARY)  # type: ignore[arg-type]
    span.end()
    (found,) = observed.spans.get_finished_spans()
    assert not found.attributes
    assert observed.telemetry.dropped == 2
    assert observed.total("anchorhold_telemetry_dropped") == 2


def test_a_metric_keeps_only_its_own_attributes(observed: Observed) -> None:
    telemetry = observed.telemetry
    telemetry.count(Metric.RETRIES, 1, {Attr.CAUSE: "busy", Attr.MODEL: "m"})
    telemetry.count(Metric.RETRIES, 1, {Attr.CAUSE: CANARY})
    points = observed.points("anchorhold_retries")
    assert {json.dumps(p["attributes"]) for p in points} == {
        '{"anchorhold.cause": "busy"}',
        '{"anchorhold.cause": "other"}',
    }
    assert telemetry.dropped == 1


def test_the_exporter_cleans_what_was_recorded_past_the_front_door() -> None:
    inner, lost = InMemorySpanExporter(), []
    exporter = AllowListExporter(inner, lambda name: name == "queue", lambda: ("m",), lost.append)
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("x")
    span = tracer.start_span(CANARY)
    span.set_attribute("gen_ai.input.messages", CANARY)
    span.set_attribute("anchorhold.cause", CANARY)
    span.set_attribute("anchorhold.candidates", 3)
    span.add_event(CANARY, {"text": CANARY})
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, CANARY))
    span.end()
    exporter.export([span])  # type: ignore[list-item]
    (found,) = inner.get_finished_spans()
    assert CANARY not in found.to_json()
    assert found.name == "other"
    assert dict(found.attributes or {}) == {
        "anchorhold.cause": "other",
        "anchorhold.candidates": 3,
    }
    assert lost == [4]
    provider.shutdown()


def test_unlisted_instruments_produce_nothing() -> None:
    reader = InMemoryMetricReader()
    telemetry = Telemetry(None, [reader])
    telemetry._meter.create_counter("leak").add(1, {"prompt": CANARY})
    telemetry._meter.create_counter("anchorhold_rewraps").add(1, {"prompt": CANARY})
    data = reader.get_metrics_data()
    points = list(metric_points(data)) if data else []
    assert CANARY not in json.dumps(points)
    assert "leak" not in json.dumps(points)
    telemetry.close()


def test_a_finished_trace_ignores_later_calls(observed: Observed) -> None:
    span = observed.telemetry.start(SpanName.QUEUE)
    span.end()
    span.end()
    assert len(observed.spans.get_finished_spans()) == 1


async def test_a_request_makes_one_trace_with_its_stages(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    sealed = seal([worker])
    reply = asyncio.create_task(up.post(sealed))
    await worker.answer(await worker.job(), CANARY)
    await reply
    async with asyncio.timeout(5):
        while not any(s.name == "chat m" for s in observed.spans.get_finished_spans()):
            await asyncio.sleep(0.01)
    spans = observed.spans.get_finished_spans()
    (root,) = [span for span in spans if span.name == "chat m"]
    assert root.parent is None
    attributes = dict(root.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "anchorhold"
    assert attributes["anchorhold.outcome"] == "completed"
    assert attributes["anchorhold.rid_digest"] == sha256_tag(sealed.header.rid)
    assert attributes["gen_ai.usage.output_tokens"] == 64
    assert root.context is not None
    stages = [s.name for s in spans if s.parent and s.parent.span_id == root.context.span_id]
    assert sorted(stages) == ["admission", "queue", "receipt", "release", "stream"]
    for name in (
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "anchorhold_queue_wait_seconds",
        "anchorhold_log_append_seconds",
        "anchorhold_attest_verify_seconds",
        "anchorhold_directory_snapshots",
    ):
        assert observed.total(name) >= 1, name
    assert observed.total("anchorhold_leases") == 1
    assert observed.total("anchorhold_queue_depth") == 0
    assert observed.total("anchorhold_spool_bytes") == 0
    assert observed.telemetry.dropped == 0


async def test_an_inbound_trace_context_is_ignored(
    up: Up, fleet: Fleet, observed: Observed
) -> None:
    (worker,) = await fleet.admit("a", pull=1)
    foreign = "4bf92f3577b34da6a3ce929d0e0e4736"
    reply = asyncio.create_task(
        up.post(
            seal([worker]),
            traceparent=f"00-{foreign}-00f067aa0ba902b7-01",
            tracestate="vendor=x",
            baggage=f"note={CANARY.replace(' ', '_')}",
        )
    )
    await worker.answer(await worker.job())
    response = await reply
    assert "traceparent" not in response.headers
    await asyncio.sleep(0.05)
    for span in observed.spans.get_finished_spans():
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" != foreign
        assert CANARY.replace(" ", "_") not in span.to_json()
        assert not span.links


async def test_nothing_a_client_sends_in_the_clear_reaches_telemetry_or_log(
    up: Up, fleet: Fleet, observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="anchorhold.gateway")
    (worker,) = await fleet.admit("a", pull=1)
    await up.http.get(f"/v1/keys/{CANARY}", params={"model": CANARY})
    await up.http.get(f"/v1/{CANARY}")
    await up.http.post("/v1/sealed", content=CANARY.encode(), headers={"authorization": CANARY})
    sealed = seal([worker], model=CANARY)
    reply = asyncio.create_task(up.post(sealed, **{"user-agent": CANARY, "x-note": CANARY}))
    await worker.answer(await worker.job())
    await reply
    await asyncio.sleep(0.05)
    data = observed.reader.get_metrics_data()
    assert CANARY not in json.dumps(list(metric_points(data)) if data else [])
    assert CANARY not in "".join(span.to_json() for span in observed.spans.get_finished_spans())
    formatter = TypedFormatter()
    assert CANARY not in "".join(formatter.format(record) for record in caplog.records)


def line_of(logger: logging.Logger, act: Any) -> dict[str, Any]:
    """What the typed formatter makes of the record that `act` logs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TypedFormatter())
    level, logger.disabled = logger.level, False
    logger.setLevel(logging.INFO)  # a server in another test may have silenced it
    logger.addHandler(handler)
    try:
        act()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    found: dict[str, Any] = json.loads(stream.getvalue())
    return found


def test_the_log_writes_events_with_typed_fields(observed: Observed) -> None:
    logger = logging.getLogger("anchorhold.gateway")
    logger.setLevel(logging.INFO)
    journal = Journal(observed.telemetry)
    line = line_of(
        logger,
        lambda: journal.write(
            Event.WORKER_REFUSED,
            {Attr.REASON: "denied", Attr.BINDING: DIGEST, Attr.WORKERS: CANARY},
        ),
    )
    assert line["event"] == "worker.refused"
    assert line["anchorhold.reason"] == "denied"
    assert line["anchorhold.binding"] == DIGEST
    assert "anchorhold.workers" not in line


def test_the_log_reduces_foreign_records_to_who_and_where() -> None:
    def fail() -> None:
        try:
            raise ValueError(CANARY)
        except ValueError:
            logging.getLogger("uvicorn.error").exception("failed on %s", CANARY)

    line = line_of(logging.getLogger("uvicorn.error"), fail)
    assert CANARY not in json.dumps(line)
    assert line["event"] == "foreign"
    assert line["logger"] == "uvicorn.error"
    assert line["exception"] == "ValueError"
    assert line["at"].startswith("test_gateway_telemetry.py:")
    unknown = logging.getLogger(f"strange.{CANARY}")
    assert line_of(unknown, lambda: unknown.error(CANARY))["logger"] == "other"


def test_spans_and_metrics_can_go_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "telemetry.jsonl"
    telemetry = Telemetry.from_config(
        config(tmp_path, telemetry_exporter="file", telemetry_file=path)
    )
    span = telemetry.start(SpanName.QUEUE)
    span.child(SpanName.STREAM).end()
    span.end()
    telemetry.count(Metric.REWRAPS)
    telemetry.time(Metric.LOG_APPEND, 0.004)
    telemetry.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    spans = {line["span"]: line for line in lines if "span" in line}
    assert spans["stream"]["parent"] == spans["queue"]["id"]
    metrics = {line["metric"]: line for line in lines if "metric" in line}
    assert metrics["anchorhold_rewraps"]["value"] == 1
    assert metrics["anchorhold_log_append_seconds"]["count"] == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_telemetry_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="telemetry_file"):
        JsonLines(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="telemetry_file"):
        JsonLines(tmp_path / "file" / "below")


def test_a_missing_exporter_package_is_a_configuration_error(tmp_path: Path) -> None:
    wanted = config(tmp_path, telemetry_exporter="otlp", telemetry_endpoint="http://127.0.0.1:4318")
    with pytest.raises(ConfigError, match="not installed") as refused:
        Telemetry.from_config(wanted)
    assert "otlp" in refused.value.hint


def config(folder: Path, **changes: Any) -> GatewayConfig:
    return GatewayConfig(
        aud="tests",
        state_dir=folder / "state",
        admission_policy_file=folder / "policy.json",
        **changes,
    )


async def test_an_internal_error_is_a_problem_without_a_stack_trace(
    up: Up, caplog: pytest.LogCaptureFixture
) -> None:
    up.gateway.spool.caps = None  # type: ignore[assignment]
    response = await up.http.post("/v1/sealed", content=b"x", headers=up.headers())
    assert problem(response) == (500, "internal")
    assert "Traceback" not in response.text
    assert "AttributeError" not in response.text
    events = [getattr(record, "anchorhold_event", None) for record in caplog.records]
    assert Event.INTERNAL in events
