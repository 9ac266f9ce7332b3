"""What a vendor said counts although the disk cannot be read, if it is known to be the newest."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from simulators.unwritable import disk_error, disk_fault
from simulators.vendor_services import Unasked

from attestation.collateral.accepted import Accepted
from attestation.collateral.entry import HOUR_S, Entry, Piece
from attestation.collateral.locks import AGAIN_S
from attestation.collateral.resolve import obtain
from attestation.collateral.store import Store
from attestation.collateral.unkept import Cause
from attestation.collateral_key import CollateralKey, ocsp, rim
from wire.errors import AttestationError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path


NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")
CHAIN = CollateralKey("amd-kds", "chain/vcek/Genoa")
END = NOW + HOUR_S
DUE = END - HOUR_S // 4
every_part = pytest.mark.parametrize("part", ["", "seen", "entries", "locks", "begun"])
CAUSES = {
    errno.EACCES: Cause.REFUSED,
    errno.EIO: Cause.FAILING,
    errno.EMFILE: Cause.EXHAUSTED,
    errno.ENFILE: Cause.EXHAUSTED,
    errno.ENOMEM: Cause.EXHAUSTED,
}
every_cause = pytest.mark.parametrize("number", CAUSES, ids=errno.errorcode.get)


class Vendor:
    """A vendor whose statements have this number; None for a vendor that is silent.

    `asked` counts questions, but for the chain that vouches for what is asked for.
    """

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.asked = 0

    def fetch(
        self, key: CollateralKey, fetcher: object, now: int, chain: Piece | None = None
    ) -> Entry:
        self.asked += key != CHAIN
        if self.number is None:
            raise UnavailableError("no answer")
        return entry(self.number, now, key)


def entry(number: int, at: int = NOW, key: CollateralKey = CRL) -> Entry:
    sequence = None if key.kind == "chain" else number
    return Entry(key, Piece(f"statement {number}".encode()), at, at + HOUR_S, sequence)


def asked(store: Store, vendor: Vendor, now: int, key: CollateralKey = CRL) -> Entry:
    return obtain(key, store, vendor, Unasked(), now)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A cache that this process has used."""
    found = Store(tmp_path / "cache")
    found.put(entry(5), NOW)
    found.put(entry(5, key=CHAIN), NOW)
    return found


@every_cause
@every_part
def test_a_newer_list_counts_at_once_and_on(store: Store, part: str, number: int) -> None:
    vendor = Vendor(6)
    with disk_fault(store.root / part if part else store.root, number):
        assert asked(store, vendor, DUE) == entry(6, DUE)
        assert store.get(CRL, DUE) == entry(6, DUE)
        assert asked(store, vendor, DUE + 1) == entry(6, DUE)
        assert obtain(CRL, store, vendor, None, END) == entry(6, DUE)
    assert vendor.asked == 1


@every_cause
def test_the_cause_is_told(store: Store, number: int) -> None:
    with disk_fault(store.root, number):
        asked(store, Vendor(6), DUE)
    assert store.unwritten(CRL) is CAUSES[number]


def test_one_whose_file_was_never_read_here_counts_too(store: Store) -> None:
    """The entries are of another process; what this one knows of them is their number."""
    fresh = Store(store.root)
    fresh.get(CRL, NOW)
    fresh.get(CHAIN, NOW)
    Store(store.root).put(entry(5, NOW + 1), NOW + 1)
    with disk_fault(store.root, errno.EIO):
        with pytest.raises(ConfigError, match="Input/output error"):
            fresh.get(CRL, DUE)
        assert asked(fresh, Vendor(6), DUE) == entry(6, DUE)


def test_an_older_list_than_this_process_accepted_does_not(store: Store) -> None:
    with disk_fault(store.root, errno.EIO):
        with pytest.raises(AttestationError, match="number 4, expected at least 5"):
            asked(store, Vendor(4), END)
        assert store.unwritten(CRL) is None
        asked(store, Vendor(7), END)
        with pytest.raises(AttestationError, match="number 6, expected at least 7"):
            asked(store, Vendor(6), END + HOUR_S)


def test_where_nothing_is_known_no_list_counts_and_none_is_asked_for(store: Store) -> None:
    """Nobody can tell whether it is older than one that was seen before."""
    fresh, vendor = Store(store.root), Vendor(6)
    with disk_fault(store.root / "seen", errno.EIO):
        with pytest.raises(ConfigError, match="Input/output error"):
            asked(fresh, vendor, DUE)
        with pytest.raises(ConfigError, match="Input/output error"):
            fresh.put(entry(4, DUE), DUE)
        with pytest.raises(ConfigError, match="Input/output error"):
            fresh.get(CRL, DUE)
    assert vendor.asked == 0
    assert fresh.get(CRL, DUE) == entry(5)
    assert asked(fresh, vendor, DUE) == entry(6, DUE)


def test_nor_where_the_entry_alone_is_gone(store: Store) -> None:
    for path in (store.root / "entries").iterdir():
        path.unlink()
    fresh, vendor = Store(store.root), Vendor(4)
    with (
        disk_fault(store.root / "seen", errno.EIO),
        pytest.raises(ConfigError, match="Input/output error"),
    ):
        asked(fresh, vendor, DUE)
    assert vendor.asked == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"x" * 2000])
def test_a_damaged_memory_is_as_one_that_cannot_be_read_and_stays(
    store: Store, content: bytes
) -> None:
    marks = list((store.root / "seen").iterdir())
    for mark in marks:
        mark.write_bytes(content)
    assert asked(store, Vendor(6), DUE) == entry(6, DUE)
    assert store.unwritten(CRL) is Cause.DAMAGED
    with pytest.raises(AttestationError, match="number 4, expected at least 6"):
        asked(store, Vendor(4), DUE + HOUR_S)
    with pytest.raises(ConfigError, match="no record of this key"):
        asked(Store(store.root), Vendor(6), DUE)
    store.settle(DUE + AGAIN_S)
    assert [mark.read_bytes() for mark in marks] == [content] * len(marks)


def test_what_the_disk_has_is_not_taken_while_its_memory_cannot_be_read(store: Store) -> None:
    Store(store.root).put(entry(5, NOW + 1), NOW + 1)
    with disk_fault(store.root / "seen", errno.EIO):
        with pytest.raises(ConfigError, match="Input/output error"):
            obtain(CRL, store, Vendor(None), None, NOW + 2)
        # Nor does a vendor that is silent make it count, or not count: that cannot be told.
        with pytest.raises(ConfigError, match="Input/output error"):
            asked(store, Vendor(None), NOW + 2)
    assert obtain(CRL, store, Vendor(None), None, NOW + 2) == entry(5, NOW + 1)


def test_what_has_no_number_is_fetched_again(store: Store) -> None:
    with disk_fault(store.root, errno.EIO):
        assert asked(store, Vendor(6), DUE, CHAIN) == entry(6, DUE, CHAIN)
        assert store.get(CHAIN, DUE) == entry(6, DUE, CHAIN)


def test_it_is_written_once_the_disk_is_well(store: Store) -> None:
    with disk_fault(store.root, errno.EIO):
        asked(store, Vendor(6), DUE)
        store.settle(DUE + AGAIN_S)
    store.settle(DUE + 2 * AGAIN_S)
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)
    assert store.unwritten(CRL) is None


def test_a_newer_one_that_another_process_wrote_meanwhile_counts_then(store: Store) -> None:
    with disk_fault(store.root, errno.EIO):
        asked(store, Vendor(6), DUE)
    Store(store.root).put(entry(7, DUE), DUE)
    assert store.get(CRL, DUE) == entry(7, DUE)
    assert store.unwritten(CRL) is None


def test_what_can_be_written_and_not_read_is_asked_for_once(store: Store) -> None:
    vendor = Vendor(6)
    with disk_fault(store.root / "entries", errno.EIO):
        for at in range(3):
            assert asked(store, vendor, DUE + at) == entry(6, DUE)
    assert vendor.asked == 1


def test_a_list_that_fails_in_the_midst_of_being_written_counts(tmp_path: Path) -> None:
    """Its order was told before; nothing was ever kept under its name."""
    store = Store(tmp_path)
    with (
        disk_error(tmp_path / "begun", errno.EIO),
        pytest.raises(UnavailableError, match="Input/output error"),
    ):
        store.put(entry(6), NOW)
    with disk_fault(tmp_path, errno.EIO):
        assert store.get(CRL, NOW) == entry(6)


def test_an_answer_that_takes_the_place_of_an_earlier_one_does_so_unread(store: Store) -> None:
    key = ocsp("sha384", bytes(48), bytes(48), 7)
    store.put(entry(5, NOW, key), NOW)
    unknown = Entry(key, Piece(b"unknown"), NOW + 1, NOW + HOUR_S, 4, passing=True)
    with disk_fault(store.root, errno.EIO):
        with pytest.raises(UnavailableError):
            store.put(unknown, NOW + 1, answered=True)
        found = store.get(key, NOW + 1)
    assert found is not None
    assert found.piece == unknown.piece


def test_numbers_that_are_known_only_rise_and_are_bounded_by_those_evidence_names() -> None:
    known = Accepted(2)
    known.note(CRL, 7)
    known.note(CRL, 6)
    known.note(CRL, None)
    assert known.number(CRL) == 7
    manifests = [rim(f"NV_{number}") for number in range(3)]
    for key in manifests:
        known.note(key, None)
    assert [known.has(key) for key in (*manifests, CRL, CHAIN)] == [False, True, True, True, False]
