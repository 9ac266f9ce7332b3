"""What a vendor said counts although the disk takes nothing, and is written once it does."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest
from simulators.unwritable import disk_error, files_of_at_most, suspended
from simulators.vendor_collateral import key_set
from simulators.vendor_services import ISSUER, JWKS, Answer, Unasked, VendorServices

from attestation.collateral.entry import HOUR_S, Entry, Piece
from attestation.collateral.locks import AGAIN_S
from attestation.collateral.resolve import obtain
from attestation.collateral.store import Store
from attestation.collateral.unkept import Cause, Unkept
from attestation.collateral_key import CollateralKey
from client import cli
from wire.errors import AttestationError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Disk = Callable[[int], AbstractContextManager[None]]

NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")
OTHER = CollateralKey("amd-kds", "crl/vcek/Milan")
END = NOW + HOUR_S
DUE = END - HOUR_S // 4
CAUSES = {
    errno.ENOSPC: Cause.FULL,
    errno.EDQUOT: Cause.FULL,
    errno.EFBIG: Cause.FULL,
    errno.EROFS: Cause.READ_ONLY,
    errno.EIO: Cause.FAILING,
}
every_cause = pytest.mark.parametrize("number", CAUSES, ids=errno.errorcode.get)


class Vendor:
    """A vendor whose statements have this number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fetch(
        self, key: CollateralKey, fetcher: object, now: int, chain: Piece | None = None
    ) -> Entry:
        return entry(self.number, now, key)


def entry(number: int, at: int = NOW, key: CollateralKey = CRL) -> Entry:
    return Entry(key, Piece(f"statement {number}".encode()), at, at + HOUR_S, number)


def asked(store: Store, number: int, now: int, key: CollateralKey = CRL) -> Entry:
    return obtain(key, store, Vendor(number), Unasked(), now)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return lambda number: disk_error(tmp_path, number)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "cache")
    found.put(entry(5), NOW)
    return found


@every_cause
def test_a_newer_list_counts_at_once_and_on(store: Store, disk: Disk, number: int) -> None:
    with disk(number):
        assert asked(store, 6, DUE) == entry(6, DUE)
        assert store.get(CRL, DUE) == entry(6, DUE)
        assert obtain(CRL, store, Vendor(7), None, END) == entry(6, DUE)
        assert store.unwritten(CRL) is CAUSES[number]
    assert Store(store.root).get(CRL, DUE) == entry(5)


@every_cause
def test_it_counts_once_the_older_one_has_ended(store: Store, disk: Disk, number: int) -> None:
    with disk(number):
        assert asked(store, 6, END + 1) == entry(6, END + 1)


def test_it_counts_where_the_limit_is_the_systems_own(store: Store) -> None:
    with files_of_at_most(100):
        assert asked(store, 6, DUE) == entry(6, DUE)
        assert store.get(CRL, DUE) == entry(6, DUE)
    assert Store(store.root).get(CRL, DUE) == entry(5)
    store.settle(DUE + AGAIN_S)
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)


@every_cause
def test_an_older_list_is_refused(store: Store, disk: Disk, number: int) -> None:
    with disk(number):
        asked(store, 7, DUE)
        with pytest.raises(AttestationError, match="number 6, expected at least 7"):
            asked(store, 6, DUE + HOUR_S)


@every_cause
def test_it_is_written_when_there_is_room(store: Store, disk: Disk, number: int) -> None:
    with disk(number):
        asked(store, 6, DUE)
        store.settle(DUE + AGAIN_S)
    store.settle(DUE + 2 * AGAIN_S)
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)
    assert store.unwritten(CRL) is None


def test_it_is_written_with_the_next_that_can_be(store: Store, disk: Disk) -> None:
    with disk(errno.ENOSPC):
        asked(store, 6, DUE)
    store.put(entry(1, DUE, OTHER), DUE)
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)


def test_a_reading_waits_for_nobody_who_writes_meanwhile(tmp_path: Path, disk: Disk) -> None:
    store = Store(tmp_path, lock_wait_s=3600)
    with disk(errno.ENOSPC):
        asked(store, 6, DUE)
    with suspended(tmp_path):
        assert store.get(CRL, DUE + AGAIN_S) == entry(6, DUE)
    assert Store(tmp_path).get(CRL, DUE) is None


def test_one_that_fits_is_written_although_what_waits_does_not(store: Store) -> None:
    large = Entry(CRL, Piece(bytes(5000)), DUE, DUE + HOUR_S, 6)
    with files_of_at_most(2000):
        with pytest.raises(UnavailableError):
            store.put(large, DUE)
        store.put(entry(1, DUE, OTHER), DUE)
        assert store.keeps(entry(1, DUE, OTHER), DUE)
        assert store.get(CRL, DUE) == large
    assert store.unwritten(CRL) is Cause.FULL


def test_a_write_still_says_that_nothing_was_written(store: Store, disk: Disk) -> None:
    with disk(errno.ENOSPC), pytest.raises(UnavailableError, match="No space left") as caught:
        store.put(entry(6), NOW)
    assert "make room" in caught.value.hint
    assert not store.keeps(entry(6, NOW + 1), NOW + 1)


def test_in_a_folder_that_may_not_be_written_nothing_is_forgotten_either(
    store: Store, disk: Disk
) -> None:
    with disk(errno.EACCES):
        with pytest.raises(UnavailableError, match="Permission denied") as caught:
            store.put(entry(6, DUE), DUE)
        assert "owner and mode" in caught.value.hint
        assert store.get(CRL, DUE) == entry(6, DUE)
        assert store.unwritten(CRL) is Cause.REFUSED


def test_a_memory_that_cannot_be_read_for_a_moment_makes_nothing_forgotten(store: Store) -> None:
    mark = next((store.root / "seen").iterdir())
    content = mark.read_bytes()
    mark.write_bytes(b"damaged")
    fresh = Store(store.root)
    for one, refusal in ((store, UnavailableError), (fresh, ConfigError)):
        with pytest.raises(refusal, match="no record of this key"):
            one.put(entry(6, DUE), DUE)
    with pytest.raises(ConfigError, match="no record of this key"):
        fresh.get(CRL, DUE)
    assert store.get(CRL, DUE) == entry(6, DUE)
    mark.write_bytes(content)
    assert fresh.get(CRL, DUE) == entry(6, DUE)
    assert store.get(CRL, DUE) == entry(6, DUE)
    store.settle(DUE + AGAIN_S)
    assert Store(store.root).get(CRL, DUE) == entry(6, DUE)


@every_cause
def test_the_operator_is_told_once_and_when_it_is_over(
    tmp_path: Path, disk: Disk, number: int
) -> None:
    told: list[Cause | None] = []
    store = Store(tmp_path, unkept=Unkept(told.append))
    with disk(number):
        for key in (CRL, OTHER):
            asked(store, 6, NOW, key)
    assert told == [CAUSES[number]]
    store.settle(NOW + AGAIN_S)
    assert told == [CAUSES[number], None]


def test_a_fetch_on_the_command_line_says_what_was_not_written(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, services = tmp_path / "cache", tmp_path / "services.toml"
    with VendorServices() as served:
        served.answers[JWKS] = Answer(key_set("a"))
        services.write_text(f'[jwks]\n{ISSUER} = "{served.url}{JWKS}"\n')
        words = ["--key", f"jwks:jwks/{ISSUER}", "--services", str(services)]
        with disk(errno.ENOSPC):
            command = ["collateral", "fetch", *words, "--cache-dir", str(cache)]
            assert cli.execute(cli.build_parser(), command) == 4
            said = capsys.readouterr()
            assert cli.execute(cli.build_parser(), [*command, "--json"]) == 4
    assert "collateral_unavailable: there is no room for the cache" in said.out
    assert "hint: there is no room for the cache: make room on its disk" in said.err
    assert "network" not in said.err
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["hint"].startswith("there is no room for the cache")


def test_what_a_vendor_does_not_give_has_a_hint_of_its_own_beside_it(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, services = tmp_path / "cache", tmp_path / "services.toml"
    with VendorServices() as served:
        served.answers[JWKS] = Answer(key_set("a"))
        text = f'amd_kds = "{served.url}/none"\n[jwks]\n{ISSUER} = "{served.url}{JWKS}"\n'
        services.write_text(text)
        words = ["--key", f"jwks:jwks/{ISSUER}", "--key", str(CRL), "--services", str(services)]
        with disk(errno.ENOSPC):
            command = ["collateral", "fetch", *words, "--cache-dir", str(cache)]
            assert cli.execute(cli.build_parser(), command) == 4
    said = capsys.readouterr().err
    assert "hint: there is no room for the cache" in said
    assert "hint: check the network" in said


def test_an_import_on_the_command_line_ends_with_what_to_do(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, services = tmp_path / "cache", tmp_path / "services.toml"
    bundle = str(tmp_path / "bundle.json")
    with VendorServices() as served:
        served.answers[JWKS] = Answer(key_set("a"))
        services.write_text(f'[jwks]\n{ISSUER} = "{served.url}{JWKS}"\n')
        words = ["--key", f"jwks:jwks/{ISSUER}", "--services", str(services)]
        for action in (["fetch", *words], ["export", bundle]):
            command = ["collateral", *action, "--cache-dir", str(cache)]
            assert cli.execute(cli.build_parser(), command) == 0
    command = ["collateral", "import", bundle, "--cache-dir", str(tmp_path / "offline")]
    capsys.readouterr()
    with disk(errno.ENOSPC):
        assert cli.execute(cli.build_parser(), command) == 4
    assert "make room on its disk" in capsys.readouterr().err
