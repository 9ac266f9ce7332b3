"""Lies about what a signed list and a log say of a worker: one fact each, all else holds.

The verdict lies keep what is easy to get right: own log, own key, a valid proof, the listed index.
Only the fact in the lie's name is wrong, so each is caught by one check of the client or by none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evidence.directory import WorkerEntry
from evidence.events import ATTEST_VERDICT
from wire.canonical import parse_strict
from wire.ids import b64u, sha256_tag

if TYPE_CHECKING:
    from simulators.answers import Listed
    from simulators.log import SimulatedLog
    from simulators.service import Service

    from evidence.entry import Logged

# members of the verdict that is logged and listed in place of the honest one
_CHANGES: dict[str, dict[str, Any]] = {
    "negative_verdict": {"ok": False},
    "others_verdict": {"bh": b64u(bytes(32))},
    "flattering_verdict": {"trust": "hardware"},
    "other_measurement_verdict": {"measurement": sha256_tag(b"other")},
    "other_type_verdict": {},
}
_UNKNOWN = "attest.remark"  # events of types that nobody knows are logged unread
LISTING_LIES = frozenset({*_CHANGES, "moved_verdict", "other_head_verdict", "unlisted_kid"})


def list_with(service: Service, lie: str) -> bytes:
    """The directory a lie needs: properly logged, signed and fresh."""
    if lie == "unlisted_kid":
        return service.publish(
            workers=[
                WorkerEntry(_kids(service, worker), worker.bh, worker.verdict, ("m",))
                for worker in service.workers
            ]
        )
    for worker in service.workers:
        if lie not in service.lies_about(worker):
            continue
        honest = _body(service.log, worker.verdict)
        if lie == "moved_verdict":
            service.log.append(ATTEST_VERDICT, honest)
            continue
        changes = _CHANGES.get(lie, {"ok": False})  # other_head: our log says no, the other yes
        kind = _UNKNOWN if lie == "other_type_verdict" else ATTEST_VERDICT
        worker.verdict = service.log.append(kind, honest | changes).index
    return service.publish()


def shown_verdict(service: Service, listed: Listed, lie: str) -> Logged:
    """The log entry served with a binding."""
    log = service.log
    if lie == "moved_verdict":
        return log.entry(_last(log, _body(log, listed.verdict)))
    if lie == "other_head_verdict":
        yes = _body(log, listed.verdict) | {"ok": True}
        other = log.truncated(listed.verdict)
        other.append(ATTEST_VERDICT, yes)
        for index in range(listed.verdict + 1, log.size):
            entry = log.entry(index)
            other.append_raw(entry.event, entry.blind)
        return other.entry(listed.verdict)
    return log.entry(listed.verdict)


def _kids(service: Service, worker: Listed) -> tuple[bytes, ...]:
    if service.lies_about(worker):
        return (worker.bh,)  # any other 32 bytes
    return tuple(kem.kid for kem in worker.tee.facts["kems"])


def _body(log: SimulatedLog, index: int) -> dict[str, Any]:
    body: dict[str, Any] = parse_strict(log.entry(index).event)["body"]
    return body


def _last(log: SimulatedLog, body: dict[str, Any]) -> int:
    return max(i for i in range(log.size) if _body(log, i) == body)
