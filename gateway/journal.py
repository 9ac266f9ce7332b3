"""The gateway's log: an event from a closed list with typed fields, one JSON line each.

There is no free text. Records of other libraries are reduced to who spoke, how loud, and for an
exception its class and the place in the code: their words could hold what a client sent.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TextIO

from attestation.collateral.unkept import Cause

from .attributes import Attr
from .telemetry import Telemetry

_LOGGER = "anchorhold.gateway"
#: Libraries whose name may stand in a line; any other is `other`.
KNOWN_LOGGERS = frozenset(
    {"uvicorn.error", "asyncio", "fastapi", "opentelemetry", "concurrent.futures"}
)


class Event(Enum):
    """Everything the gateway's log can say."""

    STARTED = "gateway.started"
    STOPPED = "gateway.stopped"
    FAILED = "gateway.failed"
    SPOOL_SWEPT = "spool.swept"
    KEYS_RELOADED = "keys.reloaded"
    KEYS_UNREADABLE = "keys.unreadable"
    POLICY_RELOADED = "policy.reloaded"
    POLICY_UNREADABLE = "policy.unreadable"
    POLICY_UNREMEMBERED = "policy.unremembered"
    POLICY_REMEMBERED = "policy.remembered"
    CONNECTIONS_CUT = "connections.cut"
    DENY_UNREADABLE = "deny.unreadable"
    COLLATERAL_MISSING = "collateral.missing"
    COLLATERAL_HELD = "collateral.held"
    COLLATERAL_UNWRITTEN = "collateral.unwritten"
    COLLATERAL_WRITTEN = "collateral.written"
    VENDOR_SILENT = "vendor.silent"
    VENDOR_ANSWERS = "vendor.answers"
    WORKER_ADMITTED = "worker.admitted"
    WORKER_REFUSED = "worker.refused"
    WORKER_FENCED = "worker.fenced"
    VERDICT_UNLOGGED = "verdict.unlogged"
    WORKER_LOST = "worker.lost"
    LINK_BROKEN = "worker.link_broken"
    DIRECTORY_PUBLISHED = "directory.published"
    LOG_FAILED = "log.failed"
    INTERNAL = "request.internal_error"


class Journal:
    """Writes events; drops (and counts) fields that the attribute table does not admit."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Share the telemetry's table and its counter of dropped fields."""
        self._telemetry = telemetry
        self._logger = logging.getLogger(_LOGGER)

    def write(
        self,
        event: Event,
        fields: Mapping[Attr, object] | None = None,
        *,
        level: int = logging.INFO,
        error: BaseException | None = None,
    ) -> None:
        """Write one event. Of `error`, only its class and place are written."""
        found = [self._telemetry.admit(name, value) for name, value in (fields or {}).items()]
        kept = dict(pair for pair in found if pair is not None)
        self._logger.log(
            level, event.value, exc_info=error, extra={"anchorhold_event": event, "fields": kept}
        )

    def on_disk(self, unwritten: Event, written: Event) -> Callable[[Cause | None], None]:
        """Whom to tell why the disk did not take something, and with None that it has it now."""

        def told(cause: Cause | None) -> None:
            if cause is None:
                self.write(written)
            else:
                self.write(unwritten, {Attr.CAUSE: cause.value}, level=logging.WARNING)

        return told


class TypedFormatter(logging.Formatter):
    """Formats a record without its message or arguments."""

    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]
        """One JSON line: time, level, event or speaker, fields, class and place of an exception."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        event = getattr(record, "anchorhold_event", None)
        if isinstance(event, Event):
            line["event"] = event.value
            line.update(getattr(record, "fields", {}))
        else:
            line["event"] = "foreign"
            name = record.name if record.name in KNOWN_LOGGERS else record.name.split(".")[0]
            line["logger"] = name if name in KNOWN_LOGGERS else "other"
        if record.exc_info and record.exc_info[1] is not None:
            line |= _describe(record.exc_info[1])
        return json.dumps(line, separators=(",", ":"))


def _describe(error: BaseException) -> dict[str, object]:
    """Class and innermost place of an exception; never its text."""
    place = ""
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return {"exception": type(error).__name__, "at": place}


def configure_logging(stream: TextIO | None = None) -> None:
    """Send all logging of the process through the typed formatter. Process entry points only."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(TypedFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_LOGGER).setLevel(logging.INFO)
    # One line a request with its path and query: exactly what must not be written.
    logging.getLogger("uvicorn.access").disabled = True
