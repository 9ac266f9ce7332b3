"""What was found for evidence: when it counts, and what makes it be looked for again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from attestation.collateral.entry import Entry, Piece
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey, root_crl
from gateway import found_memory
from gateway.found import Collected, Found
from gateway.found_memory import MEMORY_S, FoundMemory
from gateway.search import Readings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = 1_750_000_000
CRL, CHAIN = (CollateralKey("amd-kds", f"{kind}/vcek/Genoa") for kind in ("crl", "chain"))
OTHER = root_crl()


def found(data: bytes = b"x", until: int = NOW + 3600, since: int = NOW) -> Found:
    return Found({"crl": data}, since=since, until=until)


# ---------------------------------------------------------------- for a moment


def test_what_was_found_counts_for_half_a_minute_and_no_longer_than_its_end() -> None:
    memory, long, short = FoundMemory(), found(), found(until=NOW + 7)
    memory.keep(b"long", long)
    memory.keep(b"short", short)
    assert memory.get(b"short", NOW + 6) is short
    assert memory.get(b"short", NOW + 7) is None
    assert memory.get(b"long", NOW + MEMORY_S - 1) is long
    assert memory.get(b"long", NOW + MEMORY_S) is None


def test_what_is_past_its_use_is_dropped() -> None:
    memory = FoundMemory()
    for number in range(100):
        memory.keep(b"%d" % number, found(b"x" * 10))
    assert memory.size == 1000
    memory.get(b"", NOW + MEMORY_S)
    assert (memory.size, len(memory)) == (0, 0)


def test_what_was_found_before_the_clock_was_set_back_does_not_count() -> None:
    memory = FoundMemory()
    memory.keep(b"a", found())
    assert memory.get(b"a", NOW - 3600) is None
    assert len(memory) == 0


def test_what_was_found_is_bounded_in_bytes_the_oldest_go_first() -> None:
    memory = FoundMemory()
    part = found_memory.MEMORY_BYTES_MAX // 4
    for number in range(10):
        memory.keep(b"%d" % number, found(bytes(part)))
    assert memory.size <= found_memory.MEMORY_BYTES_MAX == 64 * 2**20
    assert [memory.get(b"%d" % number, NOW) is not None for number in range(10)] == (
        [False] * 6 + [True] * 4
    )
    memory.keep(b"huge", found(bytes(found_memory.MEMORY_BYTES_MAX + 1)))
    assert memory.get(b"huge", NOW) is None
    assert len(memory) == 4


def test_what_was_found_is_bounded_in_number() -> None:
    memory = FoundMemory()
    for number in range(found_memory.MEMORY_MAX + 5):
        memory.keep(b"%d" % number, found(b""))
    assert len(memory) == found_memory.MEMORY_MAX


def test_the_same_question_found_again_is_held_once() -> None:
    memory = FoundMemory()
    for _ in range(3):
        memory.keep(b"a", found(b"12345"))
    assert (memory.size, len(memory)) == (5, 1)
    memory.keep(b"a", found(b"12345", until=NOW))  # at its end already
    assert (memory.size, len(memory)) == (0, 0)


# ---------------------------------------------------------------- while the cache is as it was


def entry(key: CollateralKey, body: bytes = b"body", sequence: int | None = 7) -> Entry:
    return Entry(key, Piece(body), NOW, NOW + 3600, sequence)


def test_time_and_the_age_that_a_policy_allows_bound_what_was_found() -> None:
    held = replace(found(until=NOW + 10), age_s=60)
    assert [held.in_time(NOW + at, 60) for at in (-1, 0, 9, 10)] == [False, True, True, False]
    assert not held.in_time(NOW, 59)
    assert not held.in_time(NOW, 61)


def write_over(store: Store) -> None:
    store.put(entry(CRL, b"other", 8), NOW)


def put_the_same(store: Store) -> None:
    store.put(entry(CRL), NOW)


def remove(store: Store) -> None:
    for path in (store.root / "entries").iterdir():
        path.unlink()


def forget(store: Store) -> None:
    for path in (store.root / "seen").iterdir():
        path.unlink()


def add(store: Store) -> None:
    store.put(entry(CHAIN), NOW)


CHANGES = [write_over, put_the_same, remove, forget, add]


def test_what_is_kept_between_two_looks_at_a_key_is_a_change(tmp_path: Path) -> None:
    """What was read may be of before: files are stamped before the first look, and not after."""
    store = Store(tmp_path)
    readings = Readings(store, {})
    assert readings.get(CRL, NOW) is None
    readings.put(entry(CRL), NOW)
    assert readings.get(CRL, NOW)
    assert not Found({}, readings.stamps).unchanged(store.stamp)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_was_found_counts_until_a_file_that_was_looked_at_is_another(
    tmp_path: Path, change: Callable[[Store], None]
) -> None:
    store = Store(tmp_path)
    store.put(entry(CRL), NOW)
    held = Found({"crl": b"body"}, {key: store.stamp(key) for key in (CRL, CHAIN)})
    assert held.unchanged(store.stamp)
    store.put(entry(OTHER), NOW)  # of no concern to it
    assert held.unchanged(store.stamp)
    change(Store(tmp_path))  # by another process
    assert not held.unchanged(store.stamp)


def test_a_folder_that_cannot_be_read_any_more_is_a_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(entry(CRL), NOW)
    for key in (CRL, CHAIN):  # one that is there, and one that is not
        held = Found({}, {key: store.stamp(key)})
        assert held.unchanged(store.stamp)
        entries = (tmp_path / "entries").rename(tmp_path / "away")
        (tmp_path / "entries").write_text("no folder")
        assert not held.unchanged(store.stamp)
        (tmp_path / "entries").unlink()
        entries.rename(tmp_path / "entries")


def test_two_findings_have_one_digest_exactly_if_they_are_the_same() -> None:
    sets = [
        {},
        {"a": {}},
        {"a": {"crl": b"x"}},
        {"a": {"crl": b"x", "ca": b""}},
        {"a": {"crlx": b""}},
        {"b": {"crl": b"x"}},
        {"a": {"crl": b"x"}, "b": {}},
    ]
    digests = [Collected.of(one).digest for one in sets]
    assert len(set(digests)) == len(sets)
    assert digests == [Collected.of(dict(reversed(one.items()))).digest for one in sets]
