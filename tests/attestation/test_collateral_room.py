"""What a cache holds is bounded, what has ended leaves first, and adding costs the same always."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from attestation.collateral.entry import Entry, Piece, encode_entry
from attestation.collateral.folder import ANSWER, name_of
from attestation.collateral.store import SIZE_MIN, Store
from attestation.collateral_key import CollateralKey, ocsp, parse_key, rim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_790_000_000
HOUR, DAY = 3600, 86_400
VCEK = parse_key("amd-kds:vcek/Genoa/" + "ab" * 64 + "/10.0.23.84")
LARGE = 100_000


def certificate(number: int) -> CollateralKey:
    return ocsp("sha384", bytes(48), bytes(48), number + 1)


def kept(store: Store) -> set[CollateralKey]:
    return {entry.key for entry in store.entries(NOW)}


def test_what_has_ended_makes_room_before_what_is_in_force(tmp_path: Path) -> None:
    store = Store(tmp_path, SIZE_MIN)
    vcek = Entry(VCEK, Piece(b"v" * 1400), NOW - 3 * DAY, NOW + 27 * DAY)
    store.put(vcek, NOW - 3 * DAY)
    number, ended = 0, Piece(bytes(60_000))
    while store.holds(certificate(0)) or number == 0:
        one = Entry(certificate(number), ended, NOW - 2 * HOUR, NOW - HOUR + number, NOW)
        store.put(one, NOW)
        number += 1
    assert store.get(VCEK, NOW) == vcek
    # Those that ended first left first.
    left = sorted(key.parts[-1] for key in kept(store) - {VCEK})
    assert left == sorted(f"{n + 1:x}" for n in range(number - len(left), number))


def test_of_what_is_in_force_what_ends_first_makes_room_first(tmp_path: Path) -> None:
    store = Store(tmp_path, SIZE_MIN)
    for number, end in enumerate((DAY, HOUR, 2 * DAY, 3 * DAY)):
        store.put(Entry(rim(f"NV_{number}"), Piece(bytes(SIZE_MIN // 5)), NOW, NOW + end), NOW)
    assert kept(store) == {rim("NV_0"), rim("NV_2"), rim("NV_3")}


def test_an_entry_just_written_stays_although_it_ends_first(tmp_path: Path) -> None:
    store = Store(tmp_path, SIZE_MIN)
    for number, end in enumerate((DAY, DAY, DAY, 5)):
        store.put(Entry(rim(f"NV_{number}"), Piece(bytes(SIZE_MIN // 5)), NOW, NOW + end), NOW)
    assert rim("NV_3") in kept(store)


def test_what_has_ended_stays_while_there_is_room(tmp_path: Path) -> None:
    """It says that its vendor once answered: whoever needs it comes back as no stranger."""
    store = Store(tmp_path, SIZE_MIN)
    store.put(Entry(certificate(1), Piece(b"x"), NOW - DAY, NOW - DAY + 5, NOW), NOW)
    store.put(Entry(VCEK, Piece(b"v"), NOW, NOW + DAY), NOW)
    assert store.holds(certificate(1))


def test_the_same_entry_written_again_and_again_takes_no_room(tmp_path: Path) -> None:
    store = Store(tmp_path, SIZE_MIN)
    store.put(Entry(VCEK, Piece(b"v"), NOW, NOW + 5), NOW)
    for _ in range(4 * SIZE_MIN // LARGE):
        store.put(Entry(rim("NV_A"), Piece(os.urandom(LARGE)), NOW, NOW + DAY), NOW)
    assert kept(store) == {VCEK, rim("NV_A")}


@pytest.mark.parametrize("content", [None, b"", b"half", b"-1 -1\n"])
def test_a_cache_whose_count_is_lost_or_damaged_is_counted_again(
    tmp_path: Path, content: bytes | None
) -> None:
    store = Store(tmp_path, SIZE_MIN)
    for number in range(3):
        store.put(
            Entry(rim(f"NV_{number}"), Piece(bytes(SIZE_MIN // 5)), NOW, NOW + number + 1), NOW
        )
    if content is None:
        (tmp_path / "count").unlink()
    else:
        (tmp_path / "count").write_bytes(content)
    Store(tmp_path, SIZE_MIN).put(
        Entry(rim("NV_3"), Piece(bytes(SIZE_MIN // 5)), NOW, NOW + 9), NOW
    )
    assert kept(store) == {rim("NV_1"), rim("NV_2"), rim("NV_3")}


def test_several_processes_share_one_count(tmp_path: Path) -> None:
    for number in range(4):
        Store(tmp_path, SIZE_MIN).put(
            Entry(rim(f"NV_{number}"), Piece(bytes(SIZE_MIN // 5)), NOW, NOW + number + 1), NOW
        )
    assert kept(Store(tmp_path)) == {rim("NV_1"), rim("NV_2"), rim("NV_3")}


@pytest.fixture
def listings() -> Iterator[list[str]]:
    """Folders that the system is asked to list, by its own account."""
    found: list[str] = []
    watching = [True]

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if watching[0] and event in ("os.listdir", "os.scandir"):
            found.append(str(arguments[0]))

    sys.addaudithook(note)  # hooks stay: this one falls silent
    yield found
    watching[0] = False


def test_a_write_looks_at_no_entry_but_its_own(tmp_path: Path, listings: list[str]) -> None:
    """It is done under one lock for all: were it to take longer the more there are, whoever can
    have things kept could hold up everyone."""
    store = Store(tmp_path)
    store.put(Entry(certificate(0), Piece(b"x"), NOW, NOW + HOUR, NOW), NOW, answered=True)
    listings.clear()
    for number in range(1, 6):
        store.put(Entry(certificate(number), Piece(b"x"), NOW, NOW + HOUR, NOW), NOW, answered=True)
    store.put(Entry(certificate(0), Piece(b"y"), NOW, NOW + HOUR, NOW + 1), NOW, answered=True)
    large = [name for name in listings if name.endswith(("entries", "seen"))]
    assert len(set(listings)) <= 1
    assert not large


def test_an_answer_of_no_use_is_kept_only_in_the_place_of_another(tmp_path: Path) -> None:
    """A responder says of every certificate that anybody makes up that it does not know it."""
    store = Store(tmp_path / "cache")
    made_up = Entry(certificate(1), Piece(b"unknown"), NOW, NOW + HOUR, NOW, passing=True)
    store.put(made_up, NOW, answered=True)
    assert not store.root.exists()
    store.put(Entry(certificate(1), Piece(b"good"), NOW - 60, NOW + HOUR, NOW - 60), NOW)
    store.put(made_up, NOW, answered=True)
    found = store.get(certificate(1), NOW)
    assert found is not None
    assert found.piece.body == b"unknown"


def test_entries_of_versions_that_kept_no_count_are_counted(tmp_path: Path) -> None:
    (tmp_path / "entries").mkdir()
    (tmp_path / "seen").mkdir()
    for number in range(4):
        one = Entry(rim(f"NV_{number}"), Piece(bytes(SIZE_MIN // 5)), NOW - 9, NOW + DAY)
        path = tmp_path / "entries" / name_of(one.key)
        path.write_bytes(encode_entry(one))
        os.utime(path, (NOW - 9 + number, NOW - 9 + number))
    (tmp_path / "seen" / f"{ANSWER}x.json").touch()
    Store(tmp_path, SIZE_MIN).put(Entry(VCEK, Piece(b"v"), NOW, NOW + DAY), NOW)
    assert kept(Store(tmp_path)) == {rim("NV_1"), rim("NV_2"), rim("NV_3"), VCEK}
