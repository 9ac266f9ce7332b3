"""An entry whose file is as it was is not read again, and counts no more than one that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attestation.collateral import decoded
from attestation.collateral.decoded import Decoded
from attestation.collateral.entry import Entry, Piece
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey, rim
from wire.errors import AttestationError

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_750_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")


def entry(key: CollateralKey, body: bytes = b"body", sequence: int | None = 7) -> Entry:
    return Entry(key, Piece(body), NOW, NOW + 3600, sequence)


def test_an_entry_is_decoded_once_while_its_file_is_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(entry(CRL), NOW)
    first = store.get(CRL, NOW)
    assert store.get(CRL, NOW) is first
    Store(tmp_path).put(entry(CRL, b"other", 8), NOW)
    other = store.get(CRL, NOW)
    assert other is not None
    assert other.piece.body == b"other"


def test_a_number_that_rose_since_an_entry_was_read_counts_at_once(tmp_path: Path) -> None:
    """Whoever puts an old file back must not be helped by a memory of when it was right."""
    store = Store(tmp_path)
    store.put(entry(CRL), NOW)
    assert store.get(CRL, NOW)
    old = only_entry(store).read_bytes()
    Store(tmp_path).put(entry(CRL, b"other", 8), NOW)
    only_entry(store).write_bytes(old)
    with pytest.raises(AttestationError, match="number 7, expected at least 8"):
        store.get(CRL, NOW)


def only_entry(store: Store) -> Path:
    return next((store.root / "entries").iterdir())


def test_a_remembered_entry_of_the_future_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(entry(CRL), NOW)
    assert store.get(CRL, NOW)
    assert store.get(CRL, NOW - 3600) is None
    assert store.get(CRL, NOW)


def test_decoded_entries_are_bounded_in_bytes_the_least_used_go_first() -> None:
    memory, part = Decoded(), bytes(decoded.BYTES_MAX // 4)
    keys = [rim(f"NV_GPU_VBIOS_{number}") for number in range(5)]
    for key in keys[:4]:
        memory.keep(key, (), entry(key, part))
    assert memory.get(keys[0], ())
    memory.keep(keys[4], (), entry(keys[4], part))
    assert [memory.get(key, ()) is not None for key in keys] == [True, False, True, True, True]
    assert memory.size == decoded.BYTES_MAX
    memory.keep(keys[4], ((1,),), entry(keys[4], b"small"))
    assert memory.size == 3 * len(part) + len(b"small")
    assert memory.get(keys[4], ()) is None


def test_what_was_read_before_takes_no_place_of_what_was_fetched_since() -> None:
    memory, later = Decoded(), Entry(CRL, Piece(b"later"), NOW + 1, NOW + 3600, 8)
    memory.keep(CRL, (), later)
    memory.keep(CRL, (), entry(CRL))
    assert memory.get(CRL, ()) is later
    memory.keep(CRL, ((1,),), entry(CRL))
    assert memory.get(CRL, ((1,),)) == entry(CRL)
    assert memory.size == len(b"body")
