"""What could not be written is bounded, and no bound has a statement that may revoke forgotten."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from simulators.unwritable import disk_error, suspended

from attestation import collateral_key as keys
from attestation.collateral.entry import BOUNDS, CHAIN_MAX, DAY_S, HOUR_S, Entry, Piece
from attestation.collateral.locks import AGAIN_S
from attestation.collateral.services import ISSUERS_MAX
from attestation.collateral.store import Store
from attestation.collateral.unkept import BYTES_MAX, COUNT_MAX, Cause, Unkept
from attestation.collateral_key import CollateralKey, ocsp, parse_key, rim
from wire.errors import AttestationError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")
VCEK = parse_key("amd-kds:vcek/Genoa/" + "ab" * 64 + "/10.0.23.84")
TCB = keys.tcb_info("tdx", bytes(6))
ROOM = 100


def answer(serial: int) -> CollateralKey:
    return ocsp("sha384", bytes(48), bytes(48), serial)


def entry(key: CollateralKey, size: int = ROOM // 4, number: int | None = 7) -> Entry:
    return Entry(key, Piece(bytes(size)), NOW, NOW + HOUR_S, number)


def small(count: int = COUNT_MAX) -> Unkept:
    return Unkept(bytes_max=ROOM, count_max=count)


def has(unkept: Unkept, key: CollateralKey) -> bool:
    held = unkept.get(key)
    return held is not None and held.entry is not None


def test_all_that_has_a_name_of_a_closed_list_finds_room() -> None:
    """So that what strangers name is all that ever makes room."""
    crls, chains = BOUNDS["crl"], BOUNDS["chain"]
    most = [
        *(bounds.size for bounds in (crls, chains) for _ in range(2 * 3)),
        *(BOUNDS["qe"].size for _ in range(2 * 2)),
        *(BOUNDS["pck-crl"].size for _ in range(2)),
        BOUNDS["root-crl"].size,
        *(BOUNDS["jwks"].size for _ in range(ISSUERS_MAX)),
    ]
    assert sum(most) + len(most) * CHAIN_MAX < BYTES_MAX // 2
    assert set(BOUNDS) == {"crl", "chain", "qe", "pck-crl", "root-crl", "jwks"} | {
        "vcek", "tcb", "rim", "ocsp"
    }  # fmt: skip


@pytest.mark.parametrize("key", [VCEK, rim("NV_A")], ids=["vcek", "rim"])
def test_what_revokes_nothing_makes_room_and_is_had_again(key: CollateralKey) -> None:
    unkept = small()
    unkept.keep(entry(key, number=None), Cause.FULL)
    unkept.keep(entry(CRL, ROOM), Cause.FULL)
    assert unkept.get(key) is None
    assert has(unkept, CRL)
    assert unkept.size == ROOM


@pytest.mark.parametrize("key", [answer(1), TCB], ids=["ocsp", "tcb"])
def test_of_what_may_revoke_it_stays_known_that_there_was_one(key: CollateralKey) -> None:
    unkept = small()
    unkept.keep(entry(key), Cause.FULL)
    unkept.keep(entry(CRL, ROOM), Cause.FULL)
    held = unkept.get(key)
    assert held is not None
    assert (held.number, held.entry) == (7, None)
    assert [one.key for one in unkept.waiting()] == [CRL]


def test_the_oldest_makes_room_first_and_lists_never() -> None:
    unkept = small()
    for key in (CRL, answer(1), answer(2), answer(3), answer(4)):
        unkept.keep(entry(key), Cause.FULL)
    assert [has(unkept, answer(number)) for number in (1, 2, 3, 4)] == [False, True, True, True]
    assert has(unkept, CRL)


def test_no_answer_beyond_the_count_is_taken_and_no_list_refused() -> None:
    unkept = small(count=2)
    assert unkept.keep(entry(answer(1)), Cause.FULL)
    assert unkept.keep(entry(TCB), Cause.FULL)
    assert not unkept.keep(entry(answer(3)), Cause.FULL)
    assert unkept.keep(entry(answer(1), number=8), Cause.FULL)
    assert unkept.keep(entry(CRL), Cause.FULL)
    assert unkept.keep(entry(VCEK, number=None), Cause.FULL)
    unkept.written(entry(TCB))
    assert unkept.keep(entry(answer(3)), Cause.FULL)


def test_an_older_one_takes_no_place_of_a_newer() -> None:
    unkept = small()
    unkept.keep(entry(CRL, number=8), Cause.FULL)
    unkept.keep(entry(CRL, number=7), Cause.FULL)
    held = unkept.get(CRL)
    assert held is not None
    assert held.number == 8
    unkept.written(entry(CRL, number=7))
    assert unkept.get(CRL) is held


def test_what_came_meanwhile_is_not_forgotten_for_what_was_there_before() -> None:
    unkept = small()
    unkept.keep(entry(CRL, number=8), Cause.FULL)
    before = unkept.get(CRL)
    assert before is not None
    unkept.keep(entry(CRL, number=10), Cause.FULL)
    unkept.forget(CRL, before)
    assert has(unkept, CRL)


def crowded(tmp_path: Path) -> tuple[Store, Entry, Entry]:
    """A store whose folder has an older answer than the one that was pushed out of its memory."""
    store = Store(tmp_path, lock_wait_s=0, unkept=Unkept(bytes_max=ROOM, count_max=1))
    older = Entry(answer(1), Piece(b"good"), NOW, NOW + DAY_S, 7)
    newer = Entry(answer(1), Piece(b"revoked"), NOW + 1, NOW + HOUR_S, 7)
    store.put(older, NOW)
    with suspended(tmp_path):
        for one in (newer, entry(CRL, ROOM)):
            with pytest.raises(UnavailableError):
                store.put(one, NOW + 1)
    return store, older, newer


def test_an_older_answer_than_one_that_found_no_room_is_refused(tmp_path: Path) -> None:
    store, older, newer = crowded(tmp_path)
    with pytest.raises(AttestationError, match="what came last could not be kept") as caught:
        store.get(older.key, NOW + 1)
    assert caught.value.reasons == ("collateral_rollback",)
    store.put(newer, NOW + 2)
    assert store.get(older.key, NOW + 2) == newer


def test_an_answer_beyond_the_count_is_an_error(tmp_path: Path) -> None:
    store, _, _ = crowded(tmp_path)
    with suspended(tmp_path), pytest.raises(ConfigError, match="too much is waiting"):
        store.put(entry(answer(2)), NOW + 2)


def test_nobody_is_told_that_all_is_written_while_what_was_dropped_is_not(tmp_path: Path) -> None:
    told: list[Cause | None] = []
    store = Store(tmp_path, unkept=Unkept(told.append, bytes_max=ROOM))
    dropped, kept = entry(TCB, ROOM), entry(CRL, ROOM)
    for one in (dropped, kept):
        with disk_error(tmp_path, errno.ENOSPC), pytest.raises(UnavailableError):
            store.put(one, NOW)
    store.settle(NOW + AGAIN_S)
    assert [one.key for one in store.entries(NOW)] == [CRL]
    assert told == [Cause.FULL, Cause.DROPPED]
    with disk_error(tmp_path, errno.EROFS), pytest.raises(UnavailableError):
        store.put(entry(CRL, number=9), NOW + AGAIN_S)
    store.put(dropped, NOW + AGAIN_S)
    assert told == [Cause.FULL, Cause.DROPPED, Cause.READ_ONLY, None]
