"""Lies about when a worker's binding was made: one fact of the proof each, all else holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simulators.log import SimulatedLog, flip, flip_proof

from attestation.binding import parse_binding
from evidence.beacon import BeaconProof, prove_beacon

if TYPE_CHECKING:
    from simulators.answers import Listed
    from simulators.service import Service

BEACON_LIES = frozenset(
    {
        "no_beacon_proof", "other_beacon_entry", "damaged_beacon_path", "damaged_beacon_link",
        "other_beacon_head", "forked_beacon",
    }
)  # fmt: skip


def shown_beacon(service: Service, listed: Listed) -> BeaconProof | None:
    """The proof served with a binding, true unless `service.lies` names one of the lies."""
    beacon, log = parse_binding(listed.binding).beacon, service.log
    lies = service.lies_about(listed)
    if beacon is None or "no_beacon_proof" in lies:
        return None
    if "forked_beacon" in lies:
        log = fork(service, listed, beacon.size)
    honest = prove_beacon(beacon, log.entry(beacon.size - 1), log.consistency)
    if "other_beacon_entry" in lies:
        return replace(honest, entry=log.entry(listed.verdict))
    if "damaged_beacon_path" in lies:
        return replace(honest, entry=flip_proof(honest.entry))
    if "damaged_beacon_link" in lies:
        return replace(honest, consistency=(flip(honest.consistency[0]), *honest.consistency[1:]))
    if "other_beacon_head" in lies:
        size = log.size - 1
        entry = log.entry(beacon.size - 1, size)
        return prove_beacon(beacon, entry, log.consistency)
    return honest


def fork(service: Service, listed: Listed, size: int) -> SimulatedLog:
    """Another history after the first `size` entries: this worker's verdict, nobody else's.

    It is an entry shorter than the log, so a client asks the log how the two heads fit together.
    """
    log = service.log
    other = log.truncated(size)
    for index in range(size, log.size - 1):
        entry = log.entry(index)
        blind = entry.blind if index == listed.verdict else flip(entry.blind)
        other.append_raw(entry.event, blind)
    return other
