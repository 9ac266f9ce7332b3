"""What a vendor said counts although a suspended process keeps it from being written."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from simulators.vendor_collateral import key_set
from simulators.vendor_services import ISSUER, JWKS, Answer, VendorServices

from attestation.collateral.entry import HOUR_S, Entry, Piece
from attestation.collateral.resolve import obtain
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey, ocsp
from client import cli
from wire.errors import AttestationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attestation.collateral.fetcher import Request, Response

NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")
ANSWER = ocsp("sha384", bytes(48), bytes(48), 7)
END = NOW + HOUR_S
DUE = END - HOUR_S // 4


class Network:
    """Takes no question: the vendor below answers by itself."""

    def fetch(self, request: Request) -> Response:
        raise AssertionError(f"no question expected, found one for {request.url}")


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
    return obtain(key, store, vendor, Network(), now)


@contextmanager
def suspended(root: Path) -> Iterator[None]:
    """Another process, stopped while it writes."""
    folder = root / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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


def test_what_another_process_writes_next_counts_in_its_place(store: Store) -> None:
    with suspended(store.root):
        asked(store, Vendor(6), DUE)
    Store(store.root).put(entry(7, DUE), DUE)
    assert store.get(CRL, DUE) == entry(7, DUE)


def test_a_write_still_says_that_nothing_was_kept(store: Store) -> None:
    with suspended(store.root), pytest.raises(UnavailableError, match="another process"):
        store.put(entry(6), NOW)
    assert not store.keeps(entry(6, NOW + 1), NOW + 1)
    assert Store(store.root).get(CRL, NOW) == entry(5)
    store.put(entry(6), NOW)
    assert store.keeps(entry(6), NOW)


def test_a_fetch_on_the_command_line_says_what_was_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, services = tmp_path / "cache", tmp_path / "services.toml"
    with VendorServices() as served:
        served.answers[JWKS] = Answer(key_set("a"))
        services.write_text(f'[jwks]\n{ISSUER} = "{served.url}{JWKS}"\n')
        words = ["--key", f"jwks:jwks/{ISSUER}", "--services", str(services)]
        with suspended(cache):
            command = ["collateral", "fetch", *words, "--cache-dir", str(cache)]
            assert cli.execute(cli.build_parser(), command) == 4
    assert "collateral_unavailable" in "".join(capsys.readouterr())
