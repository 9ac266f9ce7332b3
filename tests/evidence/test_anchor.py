"""The rollback anchor: a second copy of the head that gives away a restored backup."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest
from simulators.written_log import KEY, ORIGIN, filled

from evidence.checkpoint import Checkpoint, peek_checkpoint, sign_checkpoint
from evidence.entry import Logged
from evidence.note import NoteSigner
from evidence.sequencer import Log
from wire.errors import (
    ConfigError,
    ForkError,
    RollbackError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_a_restored_backup_is_refused_by_the_anchor(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere"
    log = opened(anchor=anchor)
    await filled(log, 3)
    log.close()
    shutil.copy(tmp_path / "log.db", tmp_path / "backup.db")
    log = opened(anchor=anchor)
    await filled(log, 3)
    log.close()
    shutil.copy(tmp_path / "backup.db", tmp_path / "log.db")
    with pytest.raises(RollbackError, match="anchored 6 entries expected, found 3"):
        opened(anchor=anchor)


async def test_a_log_that_moved_on_past_its_anchor_opens(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere"
    log = opened(anchor=anchor)
    await filled(log, 3)
    log.close()
    kept = anchor.read_bytes()
    log = opened(anchor=anchor)
    await filled(log, 3)
    log.close()
    anchor.write_bytes(kept)  # as after a crash between a commit and its anchor
    assert opened(anchor=anchor).size == 6


async def test_a_missing_anchor_is_refused_once_there_are_entries(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere"
    log = opened(anchor=anchor)
    await filled(log, 1)
    log.close()
    anchor.unlink()
    with pytest.raises(RollbackError, match="anchor"):
        opened(anchor=anchor)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
async def test_a_damaged_anchor_is_refused(
    opened: Callable[..., Log], tmp_path: Path, content: bytes
) -> None:
    anchor = tmp_path / "elsewhere"
    log = opened(anchor=anchor)
    await filled(log, 1)
    log.close()
    anchor.write_bytes(content)
    with pytest.raises(ForkError):
        opened(anchor=anchor)


async def test_an_anchor_of_another_history_is_refused(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    anchor = tmp_path / "elsewhere"
    log = opened(anchor=anchor)
    await filled(log, 3)
    log.close()
    other = Checkpoint(ORIGIN, 2, bytes(32))
    anchor.write_text(sign_checkpoint(other, NoteSigner(ORIGIN, KEY)))
    with pytest.raises(ForkError, match="anchored root at size 2"):
        opened(anchor=anchor)


async def test_an_anchor_that_cannot_be_written_stops_the_log(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    log = opened(anchor=folder / "anchor")
    shutil.rmtree(folder)
    pending = [log.append("test.event", {"n": n}) for n in range(600)]
    results = await asyncio.gather(*pending, return_exceptions=True)
    kept = [item for item in results if isinstance(item, Logged)]
    # the first commit was durable when the anchor's turn came; nothing after it was tried
    assert [item.index for item in kept] == list(range(log.size))
    assert 0 < len(kept) <= 256
    lost = [item for item in results if not isinstance(item, Logged)]
    assert all(isinstance(item, UnavailableError) for item in lost)
    assert len(kept) + len(lost) == 600
    with pytest.raises(UnavailableError, match="stopped"):
        await log.append("test.event", {})


async def test_an_anchor_stands_before_the_first_entry(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    opened(anchor=tmp_path / "elsewhere")
    assert peek_checkpoint((tmp_path / "elsewhere").read_text()).size == 0


async def test_an_emptied_log_is_refused_by_the_anchor(
    opened: Callable[..., Log], tmp_path: Path
) -> None:
    log = opened(anchor=tmp_path / "elsewhere")
    await filled(log, 2)
    log.close()
    (tmp_path / "log.db").unlink()
    with pytest.raises(RollbackError, match="found 0"):
        opened(anchor=tmp_path / "elsewhere")


def test_an_unreadable_anchor_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="anchor"):
        Log.open(tmp_path / "log.db", ORIGIN, KEY, anchor=tmp_path)
