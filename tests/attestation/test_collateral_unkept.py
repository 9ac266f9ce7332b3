"""What a vendor said counts although a suspended process keeps it from being written, and is not
forgotten whatever is read and written beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.unwritable import suspended
from simulators.vendor_collateral import key_set
from simulators.vendor_services import ISSUER, JWKS, Answer, Unasked, VendorServices

from attestation.collateral.entry import HOUR_S, MIB, Entry, Piece
from attestation.collateral.locks import AGAIN_S
from attestation.collateral.resolve import obtain
from attestation.collateral.store import BATCH, Store
from attestation.collateral.unkept import Cause, Unkept
from attestation.collateral_key import CollateralKey, ocsp, rim
from client import cli, cli_collateral
from wire.errors import AttestationError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path


NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")
ANSWER = ocsp("sha384", bytes(48), bytes(48), 7)
END = NOW + HOUR_S
DUE = END - HOUR_S // 4


class Vendor:
    """A vendor whose statements are numbered; `number` is that of the next."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0

    def fetch(
        self, key: CollateralKey, fetcher: object, now: int, chain: Piece | None = None
    ) -> Entry:
        self.asked += key in (CRL, ANSWER)
        return entry(self.number, now, key)


def entry(number: int, at: int = NOW, key: CollateralKey = CRL) -> Entry:
    return Entry(key, Piece(f"statement {number}".encode()), at, at + HOUR_S, number)


def asked(store: Store, vendor: Vendor, now: int, key: CollateralKey = CRL) -> Entry:
    return obtain(key, store, vendor, Unasked(), now)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path, lock_wait_s=0.1)
    found.put(entry(5), NOW)
    return found


def test_a_newer_list_counts_before_the_older_one_ends(store: Store) -> None:
    vendor = Vendor(6)
    with suspended(store.root):
        assert asked(store, vendor, DUE) == entry(6, DUE)


def test_it_counts_for_everybody_who_asks_this_process(store: Store) -> None:
    """A worker that it revokes would come in again by the older one."""
    vendor = Vendor(6)
    with suspended(store.root):
        asked(store, vendor, DUE)
        assert store.get(CRL, DUE) == entry(6, DUE)
        assert obtain(CRL, store, vendor, None, DUE) == entry(6, DUE)
        assert asked(store, vendor, END) == entry(6, DUE)
    assert store.get(CRL, END) == entry(6, DUE)
    assert vendor.asked == 1


def test_it_counts_where_there_is_none_in_the_cache(tmp_path: Path) -> None:
    store = Store(tmp_path, lock_wait_s=0.1)
    with suspended(tmp_path):
        assert asked(store, Vendor(6), NOW) == entry(6)
        assert store.get(CRL, NOW) == entry(6)


def test_it_ends_when_it_ends(store: Store) -> None:
    vendor = Vendor(6)
    with suspended(store.root):
        asked(store, vendor, DUE)
        vendor.number = 7
        assert asked(store, vendor, DUE + HOUR_S) == entry(7, DUE + HOUR_S)


def test_an_older_list_is_refused_although_nothing_can_be_kept(store: Store) -> None:
    vendor = Vendor(4)
    with suspended(store.root):
        assert asked(store, vendor, DUE) == entry(5)
        with pytest.raises(AttestationError, match="number 4, expected at least 5") as caught:
            asked(store, vendor, END)
    assert caught.value.reasons == ("collateral_rollback",)


def test_so_is_one_older_than_what_could_not_be_kept(store: Store) -> None:
    vendor = Vendor(7)
    with suspended(store.root):
        asked(store, vendor, DUE)
        vendor.number = 6
        with pytest.raises(AttestationError, match="number 6, expected at least 7"):
            asked(store, vendor, DUE + HOUR_S)
    with pytest.raises(AttestationError, match="number 6, expected at least 7"):
        asked(store, vendor, DUE + HOUR_S)
    assert Store(store.root).get(CRL, NOW) == entry(5)


def test_an_answer_to_a_question_of_our_own_is_the_newest_there_is(store: Store) -> None:
    store.put(entry(9, NOW, ANSWER), NOW)
    with suspended(store.root):
        found = asked(store, Vendor(6), DUE, ANSWER)
        held = store.get(ANSWER, DUE)
    assert held is not None
    assert found.piece == held.piece == Piece(b"statement 6")
    assert held.sequence == 9


def test_a_newer_list_that_another_process_writes_counts_in_its_place(store: Store) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
    Store(store.root).put(entry(7, DUE), DUE)
    assert store.get(CRL, DUE) == entry(7, DUE)
    assert store.unwritten(CRL) is None


def test_an_older_list_that_another_process_writes_does_not(store: Store) -> None:
    """The one that was suspended goes on, and writes what it had fetched before."""
    with suspended(store.root):
        asked(store, Vendor(8), DUE)
    Store(store.root).put(entry(7, DUE - 5), DUE)
    assert store.get(CRL, DUE) == entry(8, DUE)
    assert asked(store, Vendor(7), DUE + 1) == entry(8, DUE)


@pytest.mark.parametrize(("later", "counts"), [(-1, "ours"), (0, "theirs"), (1, "theirs")])
def test_of_one_number_what_was_fetched_later_counts(store: Store, later: int, counts: str) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
    theirs = Entry(CRL, Piece(b"theirs"), DUE + later, DUE + HOUR_S, 6)
    Store(store.root).put(theirs, DUE + 1)
    assert store.get(CRL, DUE + 1) == (entry(6, DUE) if counts == "ours" else theirs)


def test_a_higher_number_that_another_process_remembers_counts_without_its_entry(
    store: Store,
) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
    Store(store.root).put(entry(7, DUE), DUE)
    next((store.root / "entries").iterdir()).unlink()
    assert store.get(CRL, DUE) is None


def test_nothing_that_is_read_pushes_it_out(store: Store) -> None:
    with suspended(store.root):
        asked(store, Vendor(8), DUE)
        # What was read is held up to 64 MiB, the least used dropped first.
        for number in range(66):
            manifest = Entry(rim(f"NV_{number}"), Piece(bytes(MIB)), DUE, DUE + HOUR_S)
            store._decoded.keep(manifest.key, store.stamp(manifest.key), manifest)
        assert store.get(CRL, DUE) == entry(8, DUE)


def test_it_is_written_with_the_next_that_can_be(store: Store) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
    store.put(entry(1, DUE, ANSWER), DUE)
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)
    assert store.unwritten(CRL) is None
    assert not list((store.root / "begun").iterdir())


def test_it_is_written_beside_a_reading_once_the_folder_is_free(store: Store) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
        assert store.get(CRL, DUE + AGAIN_S) == entry(6, DUE)  # and waits for nobody
    assert store.get(CRL, DUE + 2 * AGAIN_S - 1) == entry(6, DUE)
    assert Store(store.root).get(CRL, DUE) == entry(5)
    assert store.get(ANSWER, DUE + 2 * AGAIN_S) is None
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)


def test_many_are_written_a_few_at_a_time(store: Store) -> None:
    """Whoever writes holds the one lock that all wait for."""
    answers = [ocsp("sha384", bytes(48), bytes(48), number) for number in range(1, BATCH + 2)]
    with suspended(store.root):
        for key in answers:
            asked(store, Vendor(6), NOW, key)
    written = []
    for at in (AGAIN_S, 2 * AGAIN_S):
        store.settle(NOW + at)
        written.append(sum(Store(store.root).get(key, NOW) is not None for key in answers))
    assert written == [BATCH, BATCH + 1]


def test_it_is_not_written_over_a_newer_one(store: Store) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
    Store(store.root).put(entry(7, DUE), DUE)
    store.put(entry(1, DUE, ANSWER), DUE)
    assert Store(store.root).get(CRL, DUE) == entry(7, DUE)
    assert store.unwritten(CRL) is None


def test_whoever_looks_whether_anything_changed_is_told(store: Store) -> None:
    before = store.stamp(CRL)
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
        held = store.stamp(CRL)
        assert held != before
        assert store.stamp(CRL) == held
        asked(store, Vendor(7), DUE + HOUR_S)
        assert store.stamp(CRL) not in (before, held)


def test_an_answer_that_was_never_written_is_one_that_was_had(store: Store) -> None:
    """That its responder no longer knows the certificate is kept in its place."""
    with suspended(store.root):
        asked(store, Vendor(6), NOW, ANSWER)
        assert store.holds(ANSWER)
    unknown = Entry(ANSWER, Piece(b"unknown"), NOW + 1, NOW + HOUR_S, 7, passing=True)
    store.put(unknown, NOW + 1, answered=True)
    found = store.get(ANSWER, NOW + 1)
    assert found is not None
    assert found.piece == unknown.piece


def test_who_is_responsible_is_told_once_and_when_it_is_over(tmp_path: Path) -> None:
    told: list[Cause | None] = []
    store = Store(tmp_path, lock_wait_s=0.1, unkept=Unkept(told.append))
    with suspended(tmp_path):
        asked(store, Vendor(6), NOW)
        asked(store, Vendor(6), NOW, ANSWER)
        assert told == [Cause.LOCKED]
    store.settle(NOW + AGAIN_S)
    assert told == [Cause.LOCKED, None]


def test_a_write_still_says_that_nothing_was_written(store: Store) -> None:
    with suspended(store.root), pytest.raises(UnavailableError, match="another process"):
        store.put(entry(6), NOW)
    assert not store.keeps(entry(6, NOW + 1), NOW + 1)
    assert Store(store.root).get(CRL, NOW) == entry(5)
    store.put(entry(6), NOW)
    assert store.keeps(entry(6), NOW)


def test_a_fetch_on_the_command_line_says_what_was_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, services = tmp_path / "cache", tmp_path / "services.toml"
    with VendorServices() as served:
        served.answers[JWKS] = Answer(key_set("a"))
        services.write_text(f'[jwks]\n{ISSUER} = "{served.url}{JWKS}"\n')
        words = ["--key", f"jwks:jwks/{ISSUER}", "--services", str(services)]
        command = ["collateral", "fetch", *words, "--cache-dir", str(cache)]
        with suspended(cache):
            store = Store(cache, lock_wait_s=0.1)
            assert cli_collateral.fetch_into(store, cli.build_parser().parse_args(command)) == 4
        said = "".join(capsys.readouterr())
        assert "collateral_unavailable: another process holds the cache" in said
        assert cli.execute(cli.build_parser(), command) == 0
