"""The metrics the gateway reports: a closed table of names, kinds, units and allowed attributes."""

from dataclasses import dataclass
from enum import Enum

from .attributes import Attr

#: Seconds. Fine below a second, where the gateway's own share of a request lies.
SECONDS_BUCKETS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
    900.0,
)  # fmt: skip


class Instrument(Enum):
    """Kinds of metric."""

    HISTOGRAM = "histogram"
    COUNTER = "counter"
    GAUGE = "gauge"  # read when exported


@dataclass(frozen=True, slots=True)
class MetricType:
    """What a metric is; `attributes` are the only ones it can carry (never a tenant)."""

    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[Attr, ...] = ()


class Metric(Enum):
    """Names of all metrics."""

    REQUEST_DURATION = "gen_ai.server.request.duration"
    TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"  # noqa: S105 -- a metric name
    QUEUE_WAIT = "anchorhold_queue_wait_seconds"
    QUEUE_DEPTH = "anchorhold_queue_depth"
    LEASES = "anchorhold_leases"
    LEASES_LOST = "anchorhold_leases_lost"
    ATTEST_VERIFY = "anchorhold_attest_verify_seconds"
    ATTEST_FAILURES = "anchorhold_attest_failures"
    VERDICTS_HELD = "anchorhold_verdicts_held"
    LOG_APPEND = "anchorhold_log_append_seconds"
    RETRIES = "anchorhold_retries"
    REWRAPS = "anchorhold_rewraps"
    REFUSALS = "anchorhold_refusals"
    SPOOL_BYTES = "anchorhold_spool_bytes"
    DIRECTORY_SNAPSHOTS = "anchorhold_directory_snapshots"
    COLLATERAL_FETCHES = "anchorhold_collateral_fetches"
    COLLATERAL_HELD = "anchorhold_collateral_held"
    TELEMETRY_DROPPED = "anchorhold_telemetry_dropped"


_REQUEST = (Attr.OPERATION, Attr.PROVIDER, Attr.MODEL, Attr.ERROR)

METRICS: dict[Metric, MetricType] = {
    Metric.REQUEST_DURATION: MetricType(
        Instrument.HISTOGRAM,
        "s",
        "from the request's first byte to the end of its answer",
        _REQUEST,
    ),
    Metric.TIME_TO_FIRST_TOKEN: MetricType(
        Instrument.HISTOGRAM,
        "s",
        "from the request's first byte to the first sealed byte",
        _REQUEST,
    ),
    Metric.QUEUE_WAIT: MetricType(
        Instrument.HISTOGRAM, "s", "time a request waited for a worker", (Attr.OPERATION,)
    ),
    Metric.QUEUE_DEPTH: MetricType(Instrument.GAUGE, "{request}", "requests waiting"),
    Metric.LEASES: MetricType(Instrument.GAUGE, "{worker}", "admitted workers with a live lease"),
    Metric.LEASES_LOST: MetricType(
        Instrument.COUNTER, "{worker}", "worker sessions that ended", (Attr.CAUSE,)
    ),
    Metric.ATTEST_VERIFY: MetricType(
        Instrument.HISTOGRAM, "s", "time to appraise a worker's evidence", (Attr.TRUST,)
    ),
    Metric.ATTEST_FAILURES: MetricType(
        Instrument.COUNTER, "{worker}", "workers refused", (Attr.REASON,)
    ),
    Metric.VERDICTS_HELD: MetricType(
        Instrument.COUNTER, "{verdict}", "refusals that left no entry in the log: too many came"
    ),
    Metric.LOG_APPEND: MetricType(
        Instrument.HISTOGRAM, "s", "time until an event was durable in the evidence log"
    ),
    Metric.RETRIES: MetricType(
        Instrument.COUNTER, "{request}", "requests given to another candidate", (Attr.CAUSE,)
    ),
    Metric.REWRAPS: MetricType(Instrument.COUNTER, "{request}", "re-wraps accepted"),
    Metric.REFUSALS: MetricType(
        Instrument.COUNTER, "{request}", "requests answered with a problem", (Attr.ERROR,)
    ),
    Metric.SPOOL_BYTES: MetricType(Instrument.GAUGE, "By", "ciphertext held for waiting requests"),
    Metric.DIRECTORY_SNAPSHOTS: MetricType(
        Instrument.COUNTER, "{snapshot}", "directory snapshots signed and logged"
    ),
    Metric.COLLATERAL_FETCHES: MetricType(
        Instrument.COUNTER, "{piece}", "pieces of collateral asked of vendors", (Attr.SOURCE,)
    ),
    Metric.COLLATERAL_HELD: MetricType(
        Instrument.COUNTER,
        "{piece}",
        "pieces not asked for although they were not at hand",
        (Attr.SOURCE, Attr.CAUSE),
    ),
    Metric.TELEMETRY_DROPPED: MetricType(
        Instrument.COUNTER, "{attribute}", "attributes that were not in the table and not recorded"
    ),
}
