"""What telemetry learns of one request: stages, classes and outcomes, never sizes or content."""

import time

from evidence.events import round_usage
from wire.header import PING, RequestHeader
from wire.ids import sha256_tag

from .attributes import OPERATIONS, Attr, digest_text, size_class
from .metrics import Metric
from .telemetry import SpanName, Telemetry, Trace

_PROVIDER = "anchorhold"
_TOKENS_MAX = 1 << 31


class RequestTrace:
    """Spans and metrics of one request. Every request is a new root trace."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Start the clock and the root span: the first byte of the request is here."""
        self._telemetry = telemetry
        self._started = time.monotonic()
        self._queued = self._started
        self._root = telemetry.start(SpanName.REQUEST)
        self._stage: Trace | None = self._root.child(SpanName.ADMISSION)
        self._operation = ""
        self._model = ""
        self._attempts = 0
        self._ended = False

    def admitted(self, header: RequestHeader, size: int, candidates: int) -> None:
        """The envelope is well formed and its keys are known."""
        self._operation = OPERATIONS.get(header.op, "")
        self._model = header.model
        root = self._root
        root.rename(self._operation, self._model)
        root.set(Attr.PROVIDER, _PROVIDER)
        root.set(Attr.OPERATION, self._operation)
        root.set(Attr.MODEL, self._model)
        root.set(Attr.RID_DIGEST, sha256_tag(header.rid))
        root.set(Attr.SIZE_CLASS, size_class(size))
        root.set(Attr.OUT_CLASS, header.out)
        root.set(Attr.CANDIDATES, candidates)
        root.set(Attr.SUITE, header.suite)
        root.set(Attr.PAD, header.pad)
        root.set(Attr.STREAM, header.stream)
        root.set(Attr.POLICY, header.policy)

    def queued(self) -> None:
        """It waits for a worker."""
        self._queued = time.monotonic()
        self._next(SpanName.QUEUE)

    def released(self, bh: bytes) -> None:
        """It went to the worker of this binding."""
        self._attempts += 1
        waited = time.monotonic() - self._queued
        self._telemetry.time(Metric.QUEUE_WAIT, waited, {Attr.OPERATION: self._operation})
        self._next(SpanName.RELEASE).set(Attr.BINDING, digest_text(bh))

    def retried(self, cause: str) -> None:
        """Its worker could not answer; it goes back in line."""
        self._telemetry.count(Metric.RETRIES, 1, {Attr.CAUSE: cause})
        if self._stage is not None:
            self._stage.set(Attr.CAUSE, cause)
        self.queued()

    def rewrapped(self, rewraps: int) -> None:
        """The client sent new wraps."""
        self._telemetry.count(Metric.REWRAPS)
        self._root.set(Attr.REWRAPS, rewraps)
        self.queued()

    def first_byte(self) -> None:
        """The first sealed byte arrived from the worker."""
        waited = time.monotonic() - self._started
        if self._operation != PING:  # its answer has no token
            self._telemetry.time(Metric.TIME_TO_FIRST_TOKEN, waited, self._labels(None))
        self._next(SpanName.STREAM)

    def receipt(self) -> Trace:
        """A span for making the receipt durable; the caller ends it."""
        return self._root.child(SpanName.RECEIPT)

    def usage(self, tokens_in: object, tokens_out: object, finish: object) -> None:
        """The worker's rounded counts, rounded again here: exact ones must not get in."""
        for attribute, tokens in ((Attr.INPUT_TOKENS, tokens_in), (Attr.OUTPUT_TOKENS, tokens_out)):
            if type(tokens) is int and 0 <= tokens < _TOKENS_MAX:
                self._root.set(attribute, round_usage(tokens))
        if isinstance(finish, str):
            self._root.set(Attr.FINISH, finish)

    def ended(self, outcome: str, error: str | None = None) -> None:
        """The request is over; later calls change nothing."""
        if self._ended:
            return
        self._ended = True
        if self._stage is not None:
            self._stage.end()
        self._root.set(Attr.OUTCOME, outcome)
        self._root.set(Attr.ATTEMPTS, self._attempts)
        if error is not None:
            self._root.fail(error)
        self._root.end()
        spent = time.monotonic() - self._started
        self._telemetry.time(Metric.REQUEST_DURATION, spent, self._labels(error))
        if outcome == "refused" and error is not None:
            self._telemetry.count(Metric.REFUSALS, 1, {Attr.ERROR: error})

    def _labels(self, error: str | None) -> dict[Attr, object]:
        labels: dict[Attr, object] = {
            Attr.OPERATION: self._operation,
            Attr.PROVIDER: _PROVIDER,
            Attr.MODEL: self._model,
        }
        if error is not None:
            labels[Attr.ERROR] = error
        return labels

    def _next(self, name: SpanName) -> Trace:
        if self._stage is not None:
            self._stage.end()
        self._stage = self._root.child(name)
        return self._stage
