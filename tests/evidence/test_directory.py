"""A directory is believed step by step, and each lie about it has its own error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.exchange import NOW, Exchange, key, public
from simulators.log import SimulatedLog, flip

from attestation.policy import Policy, parse_policy
from evidence.checkpoint import Checkpoint, peek_checkpoint
from evidence.directory import (
    TrustedSnapshot,
    WorkerEntry,
    build_snapshot,
    directory_document,
    peek_head,
    sign_snapshot,
    snapshot_event,
    verify_directory,
)
from evidence.events import DIRECTORY_SNAPSHOT
from wire.canonical import encode, parse_strict
from wire.dsse import pae
from wire.errors import (
    DirectoryError,
    ForkError,
    MalformedError,
    RollbackError,
    StaleDirectoryError,
)
from wire.ids import b64u, unb64u

HONEST = Exchange()
DOCUMENT = HONEST.directory()


def trusted(document: bytes = DOCUMENT, **changes: Any) -> TrustedSnapshot:
    facts: dict[str, Any] = {"policy": HONEST.policy, "now": NOW}
    return verify_directory(document, **(facts | changes))


def edited(document: bytes = DOCUMENT, **changes: Any) -> bytes:
    """The document with members of `log`, or the top, replaced after signing."""
    parsed = parse_strict(document)
    for name, value in changes.items():
        (parsed if name in parsed else parsed["log"])[name] = value
    return encode(parsed)


def policy(**changes: Any) -> Policy:
    return parse_policy(json.dumps(json.loads(HONEST.policy_raw) | changes).encode())


def published(payload: bytes, *, log: SimulatedLog | None = None, body: Any = None) -> bytes:
    """Any payload, honestly signed, logged with any event body."""
    where = log or HONEST.log
    event = snapshot_event(payload) if body is None else body
    sigs = [sign_snapshot(payload, "dir-1", HONEST.directory_key)]
    return directory_document(payload, sigs, where.append(DIRECTORY_SNAPSHOT, event))


def snapshot(**changes: Any) -> bytes:
    facts: dict[str, Any] = {"aud": "deployment.test", "seq": 1, "issued": NOW, "workers": []}
    return build_snapshot(**({"expires": NOW + 600} | facts | changes))


def test_an_honest_directory_is_trusted() -> None:
    found = trusted()
    assert (found.aud, found.seq, found.issued) == ("deployment.test", 1, NOW - 10)
    assert found.workers == (
        WorkerEntry((HONEST.kid,), HONEST.bh, HONEST.verdict.index, ("tiny",)),
    )
    assert found.entry.index == 2
    assert peek_head(DOCUMENT) == found.entry.checkpoint.checkpoint


def test_the_signature_covers_the_dsse_encoding() -> None:
    assert pae("application/x", b"hello") == b"DSSEv1 13 application/x 5 hello"


def test_a_trusted_snapshot_is_made_by_verification_only() -> None:
    found = trusted()
    with pytest.raises(TypeError):
        TrustedSnapshot("", 0, 0, 0, frozenset(), (), "", found.entry)


# ---------------------------------------------------------------- 1-3: form, signature, audience


@given(st.integers(0, 8 * len(DOCUMENT) - 1))
@settings(max_examples=300)
def test_any_flipped_bit_is_refused(bit: int) -> None:
    with pytest.raises(DirectoryError):
        trusted(flip(DOCUMENT, bit))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", DOCUMENT[:-1], b" " * 2_000_000, edited(payload="!")]
)
def test_what_is_not_a_directory_is_refused(raw: bytes) -> None:
    with pytest.raises(DirectoryError):
        trusted(raw)
    if raw != edited(payload="!"):
        with pytest.raises(DirectoryError):
            peek_head(raw)


def test_a_signature_by_an_unpinned_key_is_refused() -> None:
    payload = unb64u(parse_strict(DOCUMENT)["payload"])
    for kid in ("dir-1", "dir-2"):
        sigs = [sign_snapshot(payload, kid, key("stranger"))]
        with pytest.raises(DirectoryError, match="signature"):
            trusted(edited(sigs=sigs))
    with pytest.raises(DirectoryError, match="expected one by a pinned key"):
        trusted(edited(sigs=[]))


def test_a_second_signature_by_an_unknown_key_does_not_hurt() -> None:
    payload = unb64u(parse_strict(DOCUMENT)["payload"])
    sigs = parse_strict(DOCUMENT)["sigs"]
    assert trusted(edited(sigs=[sign_snapshot(payload, "dir-2", key("new")), *sigs]))


def test_another_signature_algorithm_is_refused() -> None:
    sigs = [parse_strict(DOCUMENT)["sigs"][0] | {"alg": "none"}]
    with pytest.raises(DirectoryError, match="expected one by a pinned key"):
        trusted(edited(sigs=sigs))


def test_a_policy_without_directory_keys_trusts_no_directory() -> None:
    with pytest.raises(DirectoryError, match="by a pinned key: none"):
        trusted(policy=policy(directory={"keys": []}))


def test_a_policy_without_a_log_trusts_no_directory() -> None:
    document = json.loads(HONEST.policy_raw)
    del document["log"]
    with pytest.raises(DirectoryError, match="pinned log"):
        trusted(policy=parse_policy(json.dumps(document).encode()))


def test_the_directory_of_another_deployment_is_refused() -> None:
    with pytest.raises(DirectoryError, match="audience"):
        trusted(policy=policy(aud="other"))


def test_a_directory_that_lives_too_long_is_refused() -> None:
    for expires in (NOW + 601, NOW):
        with pytest.raises(DirectoryError, match="life"):
            trusted(published(snapshot(expires=expires)))


def test_a_worker_listed_twice_is_refused() -> None:
    twice = [WorkerEntry((HONEST.kid,), HONEST.bh, 0, ("tiny",))] * 2
    with pytest.raises(DirectoryError, match="each worker once"):
        trusted(published(snapshot(workers=twice)))


def test_a_key_listed_under_two_workers_is_refused() -> None:
    twice = [WorkerEntry((HONEST.kid,), bh, 0, ("tiny",)) for bh in (HONEST.bh, bytes(32))]
    with pytest.raises(DirectoryError, match="each kid once"):
        trusted(published(snapshot(workers=twice)))


def test_a_key_listed_twice_by_one_worker_is_refused() -> None:
    twice = [WorkerEntry((HONEST.kid, HONEST.kid), HONEST.bh, 0, ("tiny",))]
    with pytest.raises(DirectoryError, match="each kid once"):
        trusted(published(snapshot(workers=twice)))


def test_a_writer_cannot_build_a_snapshot_no_reader_takes() -> None:
    with pytest.raises(MalformedError):
        snapshot(workers=[WorkerEntry((b"short",), HONEST.bh, 0, ())])


# ---------------------------------------------------------------- 4: age


@pytest.mark.parametrize("now", [NOW + 590, NOW + 10**6, NOW - 131])
def test_a_directory_out_of_its_time_is_stale(now: int) -> None:
    with pytest.raises(StaleDirectoryError) as caught:
        trusted(now=now)
    assert caught.value.code == "directory_stale"


@pytest.mark.parametrize("now", [NOW + 589, NOW - 130])
def test_a_directory_within_its_time_and_the_clock_skew_is_fresh(now: int) -> None:
    assert trusted(now=now)


def test_a_policy_may_want_younger_directories() -> None:
    wanted = policy(freshness={"directory_max_age_s": 5})
    with pytest.raises(StaleDirectoryError, match="age of at most 5 s"):
        trusted(policy=wanted)


# ---------------------------------------------------------------- 5-6: the log entry


def test_a_checkpoint_by_another_log_key_is_refused() -> None:
    other = SimulatedLog(seed=b"other")
    note = other.sign(3, HONEST.log.root(3))
    with pytest.raises(DirectoryError, match="known keys"):
        trusted(edited(checkpoint=note))


def test_an_unlogged_directory_is_refused() -> None:
    proof = parse_strict(DOCUMENT)["log"]["proof"]
    for change in (
        {"proof": []},
        {"proof": [*proof, b64u(bytes(32))]},
        {"leaf": 1},
        {"blind": b64u(bytes(32))},
        {"event": b64u(HONEST.logged.event)},
        {"event": b64u(bytes(20_000))},
    ):
        with pytest.raises(DirectoryError):
            trusted(edited(**change))


def test_the_log_entry_of_another_snapshot_is_refused() -> None:
    other = snapshot(seq=2)
    with pytest.raises(DirectoryError, match="exactly this snapshot"):
        trusted(published(snapshot(), body=snapshot_event(other)))


def test_a_log_entry_of_another_type_is_refused() -> None:
    log = HONEST.log
    payload = snapshot()
    sigs = [sign_snapshot(payload, "dir-1", HONEST.directory_key)]
    document = directory_document(payload, sigs, log.append("other.type", snapshot_event(payload)))
    with pytest.raises(DirectoryError, match="exactly this snapshot"):
        trusted(document)


# ---------------------------------------------------------------- 7-9: against what was seen before


def world() -> tuple[Exchange, bytes, Checkpoint]:
    """A deployment, its first directory, and the head a client remembers from it."""
    exchange = Exchange()
    first = exchange.directory()
    return exchange, first, peek_checkpoint(exchange.log.checkpoint())


def test_a_log_that_grew_is_followed() -> None:
    exchange, _, known = world()
    exchange.log.append("test.event", {})
    second = exchange.directory(seq=2)
    proof = exchange.log.consistency(known.size, peek_head(second).size)
    found = verify_directory(second, exchange.policy, NOW, known, proof, last_leaf=2)
    assert found.entry.index == 4


def test_the_same_directory_again_needs_no_proof() -> None:
    exchange, first, known = world()
    assert verify_directory(first, exchange.policy, NOW, known, last_leaf=2).seq == 1


def test_an_empty_log_remembered_is_a_prefix_of_every_log() -> None:
    exchange, first, known = world()
    empty = Checkpoint(known.origin, 0, SimulatedLog().root())
    assert verify_directory(first, exchange.policy, NOW, empty)


def test_a_smaller_log_is_a_rollback() -> None:
    exchange, first, _ = world()
    exchange.log.append("test.event", {})
    known = peek_checkpoint(exchange.log.checkpoint())
    with pytest.raises(RollbackError) as caught:
        verify_directory(first, exchange.policy, NOW, known)
    assert caught.value.code == "log_rollback"


def test_a_frozen_log_is_noticed_by_the_age_of_its_directory() -> None:
    exchange, first, known = world()
    exchange.log.freeze()
    with pytest.raises(StaleDirectoryError):
        verify_directory(first, exchange.policy, NOW + 700, known)


@pytest.mark.parametrize("longer", [0, 3])
def test_another_history_is_a_fork(longer: int) -> None:
    exchange, _, known = world()
    liar = Exchange(log=SimulatedLog(seed=b"log", clock_ms=1_790_000_000_001))
    assert liar.log.vkey == exchange.log.vkey
    for _ in range(longer):
        liar.log.append("test.event", {})
    document = liar.directory()
    size = peek_head(document).size
    proof = liar.log.consistency(known.size, size)
    with pytest.raises(ForkError) as caught:
        verify_directory(document, exchange.policy, NOW, known, proof)
    assert caught.value.code == "log_fork"


def test_a_missing_or_tampered_consistency_proof_is_a_fork() -> None:
    exchange, _, known = world()
    exchange.log.append("test.event", {})
    second = exchange.directory(seq=2)
    proof = exchange.log.consistency(known.size, peek_head(second).size)
    for bad in ((), proof[:-1], (flip(proof[0]), *proof[1:]), (*proof, bytes(32))):
        with pytest.raises(ForkError):
            verify_directory(second, exchange.policy, NOW, known, bad)


def test_an_older_snapshot_of_the_same_log_is_a_rollback() -> None:
    exchange, _, known = world()
    exchange.directory(seq=2)
    head = exchange.log.size
    payload = build_snapshot(
        aud="deployment.test",
        seq=1,
        issued=NOW - 10,
        expires=NOW + 590,
        workers=[WorkerEntry((exchange.kid,), exchange.bh, exchange.verdict.index, ("tiny",))],
    )
    sigs = [sign_snapshot(payload, "dir-1", exchange.directory_key)]
    old = directory_document(payload, sigs, exchange.log.entry(2))
    proof = exchange.log.consistency(known.size, head)
    with pytest.raises(RollbackError, match="log index 3 or later"):
        verify_directory(old, exchange.policy, NOW, known, proof, last_leaf=3)


def test_a_head_remembered_of_another_log_is_an_error() -> None:
    exchange, first, known = world()
    other = Checkpoint("log.test/other", known.size, known.root)
    with pytest.raises(DirectoryError, match="log"):
        verify_directory(first, exchange.policy, NOW, other)


def test_a_truncated_log_cannot_prove_what_was_seen() -> None:
    exchange, _, known = world()
    short = exchange.log.truncated(2)
    short.append("test.event", {})
    payload = snapshot(issued=NOW)
    sigs = [sign_snapshot(payload, "dir-1", exchange.directory_key)]
    logged = short.append(DIRECTORY_SNAPSHOT, snapshot_event(payload))
    document = directory_document(payload, sigs, logged)
    with pytest.raises(ForkError):
        verify_directory(
            document, exchange.policy, NOW, known, short.consistency(known.size, short.size)
        )


def test_the_directory_key_of_the_fixture_is_pinned() -> None:
    pinned = {item.kid: item.pk for item in HONEST.policy.directory_keys}
    assert pinned == {"dir-1": public(HONEST.directory_key)}
