"""The log's writer: durable before acknowledged, gapless, provable, and stopped by any doubt."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulators.written_log import KEY, ORIGIN, filled

from evidence.checkpoint import Checkpoint, open_checkpoint, peek_checkpoint, sign_checkpoint
from evidence.entry import Logged, verify_logged
from evidence.leaf import public_leaf
from evidence.merkle import EMPTY_ROOT, verify_consistency, verify_inclusion
from evidence.note import NoteSigner
from evidence.sequencer import Log
from evidence.store_sqlite import check_sqlite_version
from wire.errors import (
    ConfigError,
    ForkError,
    MalformedError,
    RollbackError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def damage(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Change a closed log's file, as somebody with access to the disk could."""
    db = apsw.Connection(str(path))
    for sql, values in statements:
        db.execute(sql, values)
    db.close()


async def test_a_new_log_is_empty_and_signed(opened: Callable[..., Log]) -> None:
    log = opened()
    head = open_checkpoint(log.checkpoint(), ORIGIN, [log.vkey])
    assert (head.size, head.root) == (0, EMPTY_ROOT)
    assert log.stopped is None


async def test_an_appended_event_comes_back_with_a_proof(opened: Callable[..., Log]) -> None:
    log = opened(clock=lambda: 42)
    logged = await log.append("test.event", {"n": 1})
    entry = verify_logged(logged, ORIGIN, [log.vkey])
    assert (entry.index, entry.event.type, entry.event.ts) == (0, "test.event", 42)
    assert entry.event.body == {"n": 1}


async def test_64_callers_get_gapless_indices_and_proofs_that_hold(
    opened: Callable[..., Log],
) -> None:
    log = opened()

    async def caller(name: int) -> list[Logged]:
        return [await log.append("test.event", {"caller": name, "n": n}) for n in range(5)]

    groups = await asyncio.gather(*(caller(name) for name in range(64)))
    entries = [entry for group in groups for entry in group]
    assert sorted(entry.index for entry in entries) == list(range(320))
    for entry in entries:
        verify_logged(entry, ORIGIN, [log.vkey])
    sizes = {peek_checkpoint(entry.checkpoint).size for entry in entries}
    assert len(sizes) < 160  # callers share commits
    for group in groups:
        assert [entry.index for entry in group] == sorted(entry.index for entry in group)


async def test_every_head_ever_signed_is_a_prefix_of_the_next(opened: Callable[..., Log]) -> None:
    log = opened()
    heads = [peek_checkpoint(entry.checkpoint) for entry in await filled(log, 12)]
    for old, new in itertools.pairwise(heads):
        proof = log.consistency(old.size, new.size)
        verify_consistency(old.size, new.size, old.root, new.root, proof)


async def test_proofs_of_any_earlier_size_are_computed_on_demand(
    opened: Callable[..., Log],
) -> None:
    log = opened()
    entries = await filled(log, 9)
    for size in range(1, 10):
        for index in range(size):
            proof = log.inclusion(index, size)
            leaf = log._tree.leaf(index)
            verify_inclusion(leaf, index, size, proof, log.root(size))
    again = await log.entry(3)
    assert (again.leaf, again.blind, again.event) == (
        entries[3].leaf,
        entries[3].blind,
        entries[3].event,
    )
    assert peek_checkpoint(again.checkpoint).size == 9
    verify_logged(again, ORIGIN, [log.vkey])


async def test_questions_outside_the_log_are_refused(opened: Callable[..., Log]) -> None:
    log = opened()
    await filled(log, 3)
    for ask in (
        lambda: log.inclusion(3, 3),
        lambda: log.inclusion(0, 4),
        lambda: log.inclusion(-1, 2),
        lambda: log.consistency(3, 2),
        lambda: log.consistency(0, 4),
        lambda: log.root(4),
    ):
        with pytest.raises(MalformedError, match="expected") as caught:
            ask()
        assert caught.value.code == "out_of_range"
    with pytest.raises(MalformedError):
        await log.entry(3)


async def test_a_body_that_does_not_fit_is_refused_and_nothing_is_written(
    opened: Callable[..., Log],
) -> None:
    log = opened()
    for event_type, body in (
        ("infer.receipt", {"prompt": "hello"}),
        ("test.event", {"x": 1.5}),
        ("test.event", {"x": "y" * 20_000}),
        ("Not A Type", {}),
    ):
        with pytest.raises(MalformedError):
            await log.append(event_type, body)
    assert log.size == 0
    assert (await log.append("test.event", {})).index == 0


async def test_a_log_reopens_where_it_ended(opened: Callable[..., Log]) -> None:
    first = opened()
    await filled(first)
    root, note = first.root(5), first.checkpoint()
    first.close()
    second = opened()
    assert (second.size, second.root(5), second.checkpoint()) == (5, root, note)
    assert (await second.append("test.event", {})).index == 5


async def test_a_closed_log_takes_nothing_more(opened: Callable[..., Log]) -> None:
    log = opened()
    await filled(log, 2)
    log.close()
    log.close()
    with pytest.raises(UnavailableError, match="closed"):
        await log.append("test.event", {})
    with pytest.raises(UnavailableError, match="closed"):
        await log.entry(0)
    assert log.inclusion(0, 2)


async def test_what_was_queued_is_written_before_closing(opened: Callable[..., Log]) -> None:
    log = opened()
    pending = [asyncio.ensure_future(log.append("test.event", {"n": n})) for n in range(20)]
    await asyncio.sleep(0)
    log.close()
    done = await asyncio.gather(*pending)
    assert [entry.index for entry in done] == list(range(20))


async def test_a_caller_that_gives_up_does_not_stop_the_others(opened: Callable[..., Log]) -> None:
    log = opened()
    quitter = asyncio.ensure_future(log.append("test.event", {"n": 0}))
    await asyncio.sleep(0)
    quitter.cancel()
    assert (await log.append("test.event", {"n": 1})).index in (0, 1)
    with pytest.raises(asyncio.CancelledError):
        await quitter
    assert log.stopped is None


async def test_reads_from_other_threads_see_only_durable_heads(opened: Callable[..., Log]) -> None:
    log = opened()
    wrong: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            head = open_checkpoint(log.checkpoint(), ORIGIN, [log.vkey])
            if head.size == 0:
                continue
            middle = (head.size + 1) // 2
            proof = log.consistency(middle, head.size)
            try:
                verify_consistency(middle, head.size, log.root(middle), head.root, proof)
            except MalformedError as error:
                wrong.append(error.message)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    await asyncio.gather(*(log.append("test.event", {"n": n}) for n in range(300)))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_an_event_loop_that_is_gone_does_not_stop_the_log(opened: Callable[..., Log]) -> None:
    log = opened()

    async def leave() -> None:
        await asyncio.wait_for(asyncio.shield(log.append("test.event", {})), 0)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            asyncio.run(leave())
    assert asyncio.run(filled(log, 2))
    assert log.stopped is None


def test_two_event_loops_can_share_a_log(opened: Callable[..., Log]) -> None:
    log = opened()
    indices: list[int] = []

    def run() -> None:
        indices.extend(entry.index for entry in asyncio.run(filled(log, 10)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(indices) == list(range(20))


# ---------------------------------------------------------------- refusing to start


async def test_a_second_writer_is_refused(opened: Callable[..., Log]) -> None:
    opened()
    with pytest.raises(ConfigError, match="another process"):
        opened()


async def test_another_key_or_origin_is_refused(opened: Callable[..., Log], tmp_path: Path) -> None:
    opened().close()
    with pytest.raises(ConfigError, match="vkey"):
        Log.open(tmp_path / "log.db", ORIGIN, Ed25519PrivateKey.generate())
    with pytest.raises(ConfigError, match="origin"):
        Log.open(tmp_path / "log.db", "log.test/other", KEY)


def test_a_path_that_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="writable file"):
        Log.open(tmp_path / "missing" / "log.db", ORIGIN, KEY)
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(ConfigError, match="SQLite database expected"):
        Log.open(text, ORIGIN, KEY)
    assert text.read_text().startswith("not a database")


def test_somebody_elses_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    damage(path, ("CREATE TABLE theirs (x)", ()))
    with pytest.raises(ConfigError, match="a log of schema 1"):
        Log.open(path, ORIGIN, KEY)
    damage(path, ("INSERT INTO theirs VALUES (1)", ()))


async def test_a_log_of_a_later_schema_is_refused(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    opened().close()
    damage(tmp_path / "log.db", ("PRAGMA user_version=2", ()))
    with pytest.raises(ConfigError, match="schema 2"):
        opened()


def test_an_sqlite_with_the_wal_reset_bug_is_refused() -> None:
    for version in ("3.40.1", "3.51.2"):
        with pytest.raises(ConfigError, match="found " + version):
            check_sqlite_version(version)
    for version in ("3.51.3", "3.54.1", "4.0"):
        check_sqlite_version(version)


LEAF = public_leaf(b"{}", bytes(32))


@pytest.mark.parametrize(
    ("statement", "error", "code"),
    [
        (("UPDATE entry SET leaf=? WHERE idx=2", (LEAF,)), ForkError, "log_tampered"),
        (("INSERT INTO entry VALUES (5, ?)", (LEAF,)), ForkError, "log_tampered"),
        (("DELETE FROM ckpt", ()), ForkError, "log_tampered"),
        (("UPDATE ckpt SET note='x' WHERE size=5", ()), ForkError, "log_tampered"),
        (("DELETE FROM entry WHERE idx=4", ()), RollbackError, "log_rollback"),
        (("DELETE FROM entry WHERE idx=1", ()), RollbackError, "log_rollback"),
        (("UPDATE entry SET idx=9 WHERE idx=4", ()), RollbackError, "log_rollback"),
    ],
    ids=range(7),
)
async def test_a_file_changed_behind_our_back_is_refused(
    opened: Callable[..., Log],
    tmp_path: Path,
    statement: tuple[str, tuple[Any, ...]],
    error: type[ForkError | RollbackError],
    code: str,
) -> None:
    log = opened()
    await filled(log)
    log.close()
    damage(tmp_path / "log.db", statement)
    with pytest.raises(error) as caught:
        opened()
    assert caught.value.code == code
    assert "expected" in caught.value.message


async def test_a_head_by_another_key_is_refused(opened: Callable[..., Log], tmp_path: Path) -> None:
    log = opened()
    await filled(log)
    root = log.root(5)
    log.close()
    forger = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
    note = sign_checkpoint(Checkpoint(ORIGIN, 5, root), forger)
    damage(tmp_path / "log.db", ("UPDATE ckpt SET note=? WHERE size=5", (note,)))
    with pytest.raises(ForkError, match="this log's key"):
        opened()
