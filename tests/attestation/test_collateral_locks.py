"""Nobody waits for ever for a lock of the cache: whoever holds one may be suspended."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from attestation.collateral.entry import Checked, Entry, Piece, make_entry
from attestation.collateral.locks import Locks
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey
from wire.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")


def entry(number: int = 1) -> Entry:
    return make_entry(CRL, Piece(b"list"), Checked(None, number), NOW)


@contextmanager
def suspended(store: Store) -> Iterator[None]:
    """Another process that holds every lock of the folder and does not go on."""
    folder = store.root / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    held = []
    try:
        for name in (*(f"{number:02}" for number in range(64)), "store"):
            held.append(os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
        yield
    finally:
        for lock in held:
            os.close(lock)


def impatient(root: Path) -> Store:
    return Store(root, lock_wait_s=0.2)


def test_a_write_gives_up_on_a_process_that_does_not_let_go(tmp_path: Path) -> None:
    store = impatient(tmp_path)
    store.put(entry(), NOW)
    with suspended(store), pytest.raises(UnavailableError, match="another process"):
        store.put(entry(2), NOW)
    assert Store(tmp_path).get(CRL, NOW) == entry()
    store.put(entry(2), NOW)
    assert Store(tmp_path).get(CRL, NOW) == entry(2)


def test_a_vendor_is_asked_although_another_process_holds_the_key(tmp_path: Path) -> None:
    """Taking turns saves questions. No vendor's word may be missing because of it."""
    store = impatient(tmp_path)
    with suspended(store), store.exclusive(CRL):
        pass


def test_what_was_not_let_go_a_moment_ago_is_not_waited_for_again(tmp_path: Path) -> None:
    """A node needs tens of pieces: waited for one by one, they would take minutes."""
    ticks = iter(range(1000))
    locks = Locks(tmp_path, 5, lambda: float(next(ticks)), lambda _: None)
    waits = []
    with (tmp_path / "a.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for _ in range(3):
            before = next(ticks)
            with locks.held("a") as mine:
                assert not mine
            waits.append(next(ticks) - before)
    assert waits[0] > waits[1] == waits[2]
    with locks.held("a") as mine:
        assert mine


def test_who_only_tries_waits_for_nobody_and_costs_nobody_a_wait(tmp_path: Path) -> None:
    """Not to be had at once says nothing of who holds it: a write takes milliseconds."""
    ticks, pauses = iter(range(1000)), list[float]()
    locks = Locks(tmp_path, 5, lambda: float(next(ticks)), pauses.append)
    with (tmp_path / "a.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with locks.held("a", wait=False) as mine:
            assert not mine
        assert not pauses
        with locks.held("a") as mine:
            assert not mine
        assert pauses


def test_who_only_tries_waits_for_no_thread_either(tmp_path: Path) -> None:
    locks = Locks(tmp_path, 3600)
    with locks.held("a"):
        with pytest.raises(UnavailableError), locks.held("a", wait=False):
            pass
        with locks.held("b", wait=False) as mine:
            assert mine


def test_what_another_process_lets_go_is_had(tmp_path: Path) -> None:
    store = Store(tmp_path, lock_wait_s=30)
    store.put(entry(), NOW)
    entered, go = threading.Event(), threading.Event()

    def other() -> None:
        with suspended(store):
            entered.set()
            go.wait(10)
            time.sleep(0.1)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    go.set()
    store.put(entry(2), NOW)
    thread.join()
    assert store.get(CRL, NOW) == entry(2)


def test_threads_of_one_process_take_turns_and_do_not_wait_for_ever(tmp_path: Path) -> None:
    locks = Locks(tmp_path, 0.1)
    with locks.held("a") as mine:
        assert mine
        with pytest.raises(UnavailableError, match="being written or fetched"), locks.held("a"):
            pass
    with locks.held("a") as mine:
        assert mine
