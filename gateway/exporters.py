"""Where spans and metrics go: nowhere, a file of JSON lines, or a collector.

Whatever the destination, spans pass `AllowListExporter` first: a second, independent look at every
name and attribute, so that a mistake in the code that records cannot become a leak.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace.status import Status

from wire.errors import ConfigError

from .attributes import admit_named


class JsonLines:
    """A file to which whole lines are appended; shared by spans and metrics."""

    def __init__(self, path: Path) -> None:
        """Open (or create, for this user only) the file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=True)
            if not path.is_file():  # a pipe would hold up whoever writes to it
                raise ConfigError(f"telemetry_file: {path}: found no plain file, expected one")
            path.open("a", encoding="ascii").close()
        except OSError as error:
            raise ConfigError(f"telemetry_file: cannot write {path}: {error.strerror}") from error
        self._path = path
        self._lock = Lock()

    def write(self, items: Iterable[dict[str, Any]]) -> None:
        """Append one line for each item."""
        text = "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in items)
        with self._lock, self._path.open("a", encoding="ascii") as file:
            file.write(text)


class AllowListExporter(SpanExporter):
    """Passes on copies of spans that hold nothing but listed names and admitted attributes."""

    def __init__(
        self,
        inner: SpanExporter,
        names: Callable[[str], bool],
        models: Callable[[], Iterable[str]],
        dropped: Callable[[int], None],
    ) -> None:
        """Wrap `inner`; `dropped` is told how many things were left out."""
        self._inner = inner
        self._names = names
        self._models = models
        self._dropped = dropped

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # type: ignore[explicit-override]
        """Clean and pass on."""
        return self._inner.export([self._clean(span) for span in spans])

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        models = self._models()
        offered = dict(span.attributes or {})
        found = [admit_named(name, value, models) for name, value in offered.items()]
        kept = dict(pair for pair in found if pair is not None)
        known = self._names(span.name)
        # Events carry exception text and links carry foreign trace ids: neither is ever ours.
        lost = len(offered) - len(kept) + len(span.events) + len(span.links) + (not known)
        if lost:
            self._dropped(lost)
        return ReadableSpan(
            name=span.name if known else "other",
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=kept,
            kind=span.kind,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def shutdown(self) -> None:  # type: ignore[explicit-override]
        """Close the destination."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # type: ignore[explicit-override]
        """Pass on."""
        return self._inner.force_flush(timeout_millis)


class FileSpanExporter(SpanExporter):
    """One JSON line a span."""

    def __init__(self, lines: JsonLines) -> None:
        """Write to `lines`."""
        self._lines = lines

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # type: ignore[explicit-override]
        """Write the spans; a full disk loses telemetry, never a request."""
        try:
            self._lines.write(_span_line(span) for span in spans)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def _span_line(span: ReadableSpan) -> dict[str, Any]:
    context = span.context
    return {
        "span": span.name,
        "trace": f"{context.trace_id:032x}" if context is not None else None,
        "id": f"{context.span_id:016x}" if context is not None else None,
        "parent": f"{span.parent.span_id:016x}" if span.parent is not None else None,
        "start_ms": (span.start_time or 0) // 1_000_000,
        "end_ms": (span.end_time or 0) // 1_000_000,
        "ok": span.status.is_ok,
        "attributes": dict(span.attributes or {}),
    }


class FileMetricExporter(MetricExporter):
    """One JSON line a data point."""

    def __init__(self, lines: JsonLines) -> None:
        """Write to `lines`."""
        super().__init__()
        self._lines = lines

    def export(  # type: ignore[explicit-override]
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Write all points of one collection."""
        del timeout_millis, kwargs
        try:
            self._lines.write(metric_points(metrics_data))
        except OSError:
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # type: ignore[explicit-override]
        """Nothing is buffered here."""
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # type: ignore[explicit-override]
        """Nothing to close."""


def metric_points(data: MetricsData) -> Iterable[dict[str, Any]]:
    """Flatten one collection into plain points: name, attributes, value or histogram."""
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    line: dict[str, Any] = {
                        "metric": metric.name,
                        "attributes": dict(point.attributes or {}),
                    }
                    if isinstance(point, HistogramDataPoint):
                        line |= {"count": point.count, "sum": point.sum}
                        line |= {"bounds": list(point.explicit_bounds)}
                        line |= {"buckets": list(point.bucket_counts)}
                    else:
                        line["value"] = getattr(point, "value", None)
                    yield line


def otlp_exporters(endpoint: str) -> tuple[SpanExporter, MetricExporter]:
    """Exporters to a collector at `endpoint` (base URL, OTLP over HTTP).

    Raises:
        ConfigError: the optional exporter package is not installed.
    """
    package = "opentelemetry.exporter.otlp.proto.http"
    try:
        traces = importlib.import_module(f"{package}.trace_exporter")
        metrics = importlib.import_module(f"{package}.metric_exporter")
    except ImportError as error:
        raise ConfigError(
            "telemetry_exporter: `otlp` needs a package that is not installed",
            hint="install the extra `otlp` of this distribution",
        ) from error
    base = endpoint.rstrip("/")
    return (
        traces.OTLPSpanExporter(endpoint=f"{base}/v1/traces"),
        metrics.OTLPMetricExporter(endpoint=f"{base}/v1/metrics"),
    )
