"""The beacon of a binding, judged offline: dated by an entry of the bundle, or not dated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulators.bundles import bundled, failed, judged, not_run, policy
from simulators.exchange import NOW, Exchange
from simulators.log import SimulatedLog, flip, flip_leaf, flip_proof

from attestation.binding import Beacon
from evidence.beacon import BeaconProof, prove_beacon
from evidence.directory import build_snapshot, snapshot_event
from evidence.events import DIRECTORY_SNAPSHOT
from evidence.report import ExitCode


def test_a_beacon_nobody_can_date_offline_is_not_run() -> None:
    exchange = Exchange(binding_changes={"beacon": Beacon("log.test", 1, bytes(32))})
    report = judged(bundled(exchange), exchange.policy)
    assert not_run(report) >= {"beacon", "evidence.8 freshness"}
    assert failed(report) == set()
    assert report.exit_code == ExitCode.BELOW_POLICY


def dated_exchange(age_s: int = 0) -> tuple[Exchange, BeaconProof]:
    """An exchange whose binding names a snapshot that was logged first."""
    log = SimulatedLog(clock_ms=(NOW - 300 - age_s) * 1000)
    payload = build_snapshot(aud="d", seq=1, issued=NOW - 300, expires=NOW, workers=[])
    log.append(DIRECTORY_SNAPSHOT, snapshot_event(payload))
    beacon = Beacon(log.origin, 1, log.root(1))
    exchange = Exchange(
        log=log,
        binding_changes={"beacon": beacon},
        policy_changes={"freshness": {"require_beacon": True}},
    )
    return exchange, prove_beacon(beacon, log.entry(0), log.consistency)


def test_a_beacon_is_dated_offline_by_the_entry_in_the_bundle() -> None:
    exchange, proof = dated_exchange()
    report = judged(bundled(exchange, beacon=proof), exchange.policy)
    assert [check for check in report.checks if check.ok is not True] == []
    assert report.exit_code == ExitCode.OK


def test_a_beacon_may_stand_under_the_verdicts_head() -> None:
    exchange, proof = dated_exchange()
    log, size = exchange.log, exchange.verdict.index + 1
    report = judged(
        bundled(
            exchange,
            verdict=log.entry(exchange.verdict.index, size),
            beacon=replace(proof, entry=log.entry(0, size), consistency=log.consistency(1, size)),
            consistency=log.consistency(size, log.size),
        ),
        exchange.policy,
    )
    assert report.exit_code == ExitCode.OK


def test_a_demanded_beacon_is_below_policy_where_the_binding_names_none() -> None:
    report = judged(bundled(), policy(freshness={"require_beacon": True}))
    assert failed(report) == {"evidence.8 freshness"}
    assert report.exit_code == ExitCode.BELOW_POLICY


def test_a_stale_beacon_is_below_policy() -> None:
    exchange, proof = dated_exchange(age_s=601)
    report = judged(bundled(exchange, beacon=proof), exchange.policy)
    assert failed(report) == {"evidence.8 freshness"}
    assert report.exit_code == ExitCode.BELOW_POLICY


@pytest.mark.parametrize("lie", ["leaf", "path", "link", "head of its own", "nothing to date"])
def test_a_false_proof_of_a_beacon_is_invalid(lie: str) -> None:
    exchange, proof = dated_exchange()
    if lie == "leaf":
        proof = replace(proof, entry=flip_leaf(proof.entry, 600))
    elif lie == "path":
        proof = replace(proof, entry=flip_proof(proof.entry))
    elif lie == "link":
        proof = replace(proof, consistency=(flip(proof.consistency[0]), *proof.consistency[1:]))
    elif lie == "head of its own":
        exchange.log.append("test.event", {})
        later = exchange.log.entry(0)
        proof = BeaconProof(later, exchange.log.consistency(1, exchange.log.size))
    else:
        exchange = Exchange()
    report = judged(bundled(exchange, beacon=proof), exchange.policy)
    assert "beacon" in failed(report)
    assert report.exit_code == ExitCode.INVALID
