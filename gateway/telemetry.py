"""Traces and metrics without content: providers built per application, nothing global.

Recording goes through `Telemetry` and its `Trace`s, which take `Attr` members only. Each request
starts a new root: an inbound `traceparent` or `baggage` is a stranger's claim and is never read.
Names follow the GenAI conventions where those fit; the providers stay private to this module.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from .attributes import ATTRIBUTES, OTHER, Attr, admit
from .config import GatewayConfig
from .exporters import (
    AllowListExporter,
    FileMetricExporter,
    FileSpanExporter,
    JsonLines,
    otlp_exporters,
)
from .metrics import METRICS, SECONDS_BUCKETS, Instrument, Metric

#: A forged model list cannot blow up the number of time series.
MODELS_MAX = 64
_SCOPE = "anchorhold.gateway"


class SpanName(Enum):
    """Names of all spans; a request's root becomes `<operation> <model>` once those are known."""

    REQUEST = "request"
    ADMISSION = "admission"
    QUEUE = "queue"
    RELEASE = "release"
    STREAM = "stream"
    RECEIPT = "receipt"
    APPRAISE = "appraise"
    DIRECTORY = "directory"


class Trace:
    """One span being recorded; ends once, however often `end` is called."""

    def __init__(self, owner: "Telemetry", span: Span) -> None:
        """Made by `Telemetry` only."""
        self._owner = owner
        self._span = span

    def set(self, attribute: Attr, value: object) -> None:
        """Record an attribute, if the table admits it."""
        admitted = self._owner.admit(attribute, value)
        if admitted is not None:
            self._span.set_attribute(*admitted)

    def child(self, name: SpanName) -> "Trace":
        """Start a span below this one."""
        return self._owner.start(name, parent=self)

    def rename(self, operation: str, model: str) -> None:
        """Give a request's root its conventional name, made of admitted words only."""
        words = [self._owner.admit(Attr.OPERATION, operation), self._owner.admit(Attr.MODEL, model)]
        self._span.update_name(" ".join(str(word[1]) for word in words if word is not None))

    def fail(self, error: str) -> None:
        """Mark the span failed with a word of `error.type`; no text goes with it."""
        self.set(Attr.ERROR, error)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """End the span."""
        if self._span.is_recording():
            self._span.end()

    def within(self) -> Context:
        """A context whose only member is this span: nothing ambient can get in."""
        return set_span_in_context(self._span, Context())


class Telemetry:
    """Providers, instruments and the one door to them.

    Args:
        span_exporter: where finished spans go, or None for no traces.
        readers: metric readers.
        immediate: export each span as it ends (tests, single-user tools) instead of in batches.
    """

    def __init__(
        self,
        span_exporter: SpanExporter | None = None,
        readers: Iterable[MetricReader] = (),
        *,
        immediate: bool = False,
    ) -> None:
        """Build both providers; none is registered globally, no environment variable is read."""
        self.dropped = 0
        self._models: frozenset[str] = frozenset()
        # Resource.create() would read the environment and the host; this says what we are, no more.
        resource = Resource({"service.name": "anchorhold-gateway"})
        limits = SpanLimits(max_attributes=len(ATTRIBUTES), max_events=0, max_links=0)
        self._tracers = TracerProvider(
            sampler=ALWAYS_OFF if span_exporter is None else ALWAYS_ON,
            resource=resource,
            span_limits=limits,
            shutdown_on_exit=False,
        )
        if span_exporter is not None:
            listed = AllowListExporter(
                span_exporter, self.knows_span, lambda: self._models, self._count_dropped
            )
            self._tracers.add_span_processor(
                SimpleSpanProcessor(listed) if immediate else BatchSpanProcessor(listed)
            )
        self._meters = MeterProvider(
            metric_readers=list(readers),
            resource=resource,
            views=_views(),
            shutdown_on_exit=False,
        )
        self._tracer = self._tracers.get_tracer(_SCOPE)
        self._meter = self._meters.get_meter(_SCOPE)
        self._instruments = {metric: self._instrument(metric) for metric in METRICS}

    @classmethod
    def from_config(cls, config: GatewayConfig) -> "Telemetry":
        """Telemetry as configured.

        Raises:
            ConfigError: the file cannot be written or the optional exporter is missing.
        """
        interval = config.telemetry_interval_s * 1000
        if config.telemetry_exporter == "file" and config.telemetry_file is not None:
            lines = JsonLines(config.telemetry_file)
            spans: SpanExporter = FileSpanExporter(lines)
            points = PeriodicExportingMetricReader(FileMetricExporter(lines), interval)
            return cls(spans, [points])
        if config.telemetry_exporter == "otlp" and config.telemetry_endpoint is not None:
            spans, metrics = otlp_exporters(config.telemetry_endpoint)
            return cls(spans, [PeriodicExportingMetricReader(metrics, interval)])
        return cls()

    def knows_models(self, names: Iterable[str]) -> None:
        """Set the model names that may appear: those of admitted, attested bindings."""
        self._models = frozenset(sorted(names)[:MODELS_MAX])

    def admit(self, attribute: object, value: object) -> tuple[str, str | int] | None:
        """Check one attribute against the table; count it when it is dropped."""
        admitted = admit(attribute, value, self._models)
        if admitted is None:
            self._count_dropped(1)
        return admitted

    def start(self, name: SpanName, parent: Trace | None = None) -> Trace:
        """Start a span; without `parent` it is a root of a new trace."""
        context = parent.within() if parent is not None else Context()
        span = self._tracer.start_span(
            name.value, context, record_exception=False, set_status_on_exception=False
        )
        return Trace(self, span)

    def count(
        self, metric: Metric, value: int = 1, attributes: Mapping[Attr, object] | None = None
    ) -> None:
        """Add to a counter."""
        instrument = self._instruments[metric]
        assert isinstance(instrument, Counter)
        instrument.add(value, self._attributes(metric, attributes))

    def time(
        self, metric: Metric, seconds: float, attributes: Mapping[Attr, object] | None = None
    ) -> None:
        """Record a duration."""
        instrument = self._instruments[metric]
        assert isinstance(instrument, Histogram)
        instrument.record(seconds, self._attributes(metric, attributes))

    def gauge(self, metric: Metric, read: Callable[[], int]) -> None:
        """Report `read()` whenever metrics are collected; it runs in the exporter's thread."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(read())]

        spec = METRICS[metric]
        self._meter.create_observable_gauge(
            metric.value, [observe], unit=spec.unit, description=spec.description
        )

    def close(self) -> None:
        """Flush and stop; may wait for the exporter, so call it outside the event loop."""
        self._tracers.shutdown()
        self._meters.shutdown()

    def knows_span(self, name: str) -> bool:
        """Whether a span may have this name."""
        if name in {item.value for item in SpanName}:
            return True
        operation, _, model = name.partition(" ")
        return (
            operation in ATTRIBUTES[Attr.OPERATION].words | {OTHER}
            and model in self._models | {OTHER}
        )  # fmt: skip

    def _instrument(self, metric: Metric) -> Any:
        spec = METRICS[metric]
        if spec.instrument is Instrument.COUNTER:
            return self._meter.create_counter(metric.value, spec.unit, spec.description)
        if spec.instrument is Instrument.HISTOGRAM:
            return self._meter.create_histogram(metric.value, spec.unit, spec.description)
        return None

    def _attributes(
        self, metric: Metric, attributes: Mapping[Attr, object] | None
    ) -> dict[str, str | int]:
        kept: dict[str, str | int] = {}
        for attribute, value in (attributes or {}).items():
            if attribute not in METRICS[metric].attributes:
                self._count_dropped(1)
                continue
            admitted = self.admit(attribute, value)
            if admitted is not None:
                kept[admitted[0]] = admitted[1]
        return kept

    def _count_dropped(self, count: int) -> None:
        self.dropped += count
        self._instruments[Metric.TELEMETRY_DROPPED].add(count)


def _views() -> list[View]:
    """One view a listed metric with its attribute names, and everything unlisted dropped."""
    views = [View(instrument_name="*", aggregation=DropAggregation())]
    for metric, spec in METRICS.items():
        histogram = ExplicitBucketHistogramAggregation(SECONDS_BUCKETS)
        views.append(
            View(
                instrument_name=metric.value,
                attribute_keys={attribute.value for attribute in spec.attributes},
                aggregation=histogram if spec.instrument is Instrument.HISTOGRAM else None,
            )
        )
    return views
