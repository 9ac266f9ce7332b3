"""A beacon is dated only by the published entry it ends in, under a signed head of the one log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from simulators.exchange import AUD, NOW, random
from simulators.log import SimulatedLog, flip, flip_leaf, flip_proof

from attestation.binding import Beacon
from evidence.beacon import BeaconProof, VerifiedBeacon, prove_beacon, verify_beacon
from evidence.directory import build_snapshot, snapshot_event
from evidence.events import DIRECTORY_SNAPSHOT
from wire.errors import ReceiptError

if TYPE_CHECKING:
    from collections.abc import Callable


def snapshot(log: SimulatedLog, seq: int = 1) -> Beacon:
    """Log a directory snapshot and name the prefix that ends in it."""
    payload = build_snapshot(aud=AUD, seq=seq, issued=NOW - 300, expires=NOW, workers=[])
    size = log.append(DIRECTORY_SNAPSHOT, snapshot_event(payload)).index + 1
    return Beacon(log.origin, size, log.root(size))


def prove(log: SimulatedLog, beacon: Beacon) -> BeaconProof:
    return prove_beacon(beacon, log.entry(beacon.size - 1), log.consistency)


def history() -> tuple[SimulatedLog, Beacon]:
    """Five entries, the third of them a snapshot."""
    log = SimulatedLog()
    for _ in range(2):
        log.append("test.event", {})
    beacon = snapshot(log)
    for _ in range(2):
        log.append("test.event", {})
    return log, beacon


LOG, BEACON = history()
HONEST = prove(LOG, BEACON)
X = random("x")


def verify(beacon: Beacon = BEACON, proof: BeaconProof = HONEST) -> VerifiedBeacon:
    return verify_beacon(beacon, proof, LOG.origin, [LOG.vkey])


def test_a_beacon_has_the_time_of_the_snapshot_it_ends_in() -> None:
    found = verify()
    assert found.time == LOG.clock_ms // 1000
    assert found.checkpoint.size == 5


def test_a_beacon_of_the_whole_log_needs_no_hashes() -> None:
    log = LOG.truncated(BEACON.size)
    proof = prove(log, BEACON)
    assert proof.consistency == ()
    assert verify(proof=proof).checkpoint.size == BEACON.size


@pytest.mark.parametrize("before", range(9))
def test_every_prefix_of_every_later_head_verifies(before: int) -> None:
    log = SimulatedLog()
    for _ in range(before):
        log.append("test.event", {})
    beacon = snapshot(log)
    for _ in range(6):
        assert verify(beacon, prove(log, beacon)).time == log.clock_ms // 1000
        log.append("test.event", {})


def test_a_proof_survives_its_json_form() -> None:
    assert BeaconProof.from_json(HONEST.to_json()) == HONEST


def other_type() -> tuple[Beacon, BeaconProof]:
    beacon = Beacon(LOG.origin, 2, LOG.root(2))
    return beacon, prove(LOG, beacon)


def other_root() -> tuple[Beacon, BeaconProof]:
    return replace(BEACON, root=flip(BEACON.root)), HONEST


def other_log() -> tuple[Beacon, BeaconProof]:
    return replace(BEACON, log="elsewhere/log"), HONEST


def other_key() -> tuple[Beacon, BeaconProof]:
    log = SimulatedLog(seed=b"other")
    beacon = snapshot(log)
    return beacon, prove(log, beacon)


def other_entry() -> tuple[Beacon, BeaconProof]:
    """A younger snapshot of the same log would make the binding look younger."""
    log = LOG.truncated(5)
    younger = snapshot(log, 2)
    return BEACON, replace(prove(log, BEACON), entry=log.entry(younger.size - 1))


def fork() -> tuple[Beacon, BeaconProof]:
    """The prefix is of one history, the signed head of another."""
    beacon = snapshot(LOG.forked(1).truncated(2))
    return replace(BEACON, root=beacon.root), HONEST


def empty() -> tuple[Beacon, BeaconProof]:
    return Beacon(LOG.origin, 0, SimulatedLog().root()), HONEST


def damaged(change: Callable[[BeaconProof], BeaconProof]) -> Any:
    return lambda: (BEACON, change(HONEST))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (other_log, "log 'log.test/evl/1' expected"),
        (empty, "entry -1 expected"),
        (other_entry, "entry 2 expected, found 5"),
        (damaged(lambda proof: replace(proof, entry=flip_leaf(proof.entry, 600))), "leaf"),
        (damaged(lambda proof: replace(proof, entry=flip_proof(proof.entry))), "inclusion path"),
        (other_key, "by one of 1 known keys expected"),
        (other_type, "type directory.snapshot expected, found test.event"),
        (other_root, "consistency proof does not lead"),
        (fork, "consistency proof does not lead"),
        (damaged(lambda proof: replace(proof, consistency=())), "hashes expected, found 0"),
        (
            damaged(lambda proof: replace(proof, consistency=(X, *proof.consistency[1:]))),
            "consistency proof does not lead",
        ),
    ],
    ids=[
        "foreign log", "empty tree", "younger entry", "damaged leaf", "damaged path",
        "foreign key", "wrong entry type", "forged root", "forked head", "no hashes",
        "damaged consistency",
    ],
)  # fmt: skip
def test_one_wrong_fact_is_refused(
    made: Callable[[], tuple[Beacon, BeaconProof]], said: str
) -> None:
    with pytest.raises(ReceiptError, match=said):
        verify(*made())


@pytest.mark.parametrize(
    "change",
    [
        {"consistency": "none"},
        {"consistency": ["AA"]},
        {"entry": None},
        {"extra": 1},
    ],
)
def test_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError):
        BeaconProof.from_json({**HONEST.to_json(), **change})


def test_only_the_verifier_makes_a_verified_beacon() -> None:
    with pytest.raises(TypeError, match="verify_beacon"):
        VerifiedBeacon(1, verify().checkpoint)
