"""The memory of highest numbers is one for all processes that share a state folder."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor, wait
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from client.highest import FOLDER, Highest, Mark

if TYPE_CHECKING:
    from pathlib import Path

NAME = "intel-tcb/x"
# Time in which one that does not wait has long been done; one that waits is not done in any.
HELD_S = 0.5


@pytest.mark.parametrize(
    ("number", "digest", "against"),
    [(8, "", None), (6, "", Mark(7, "")), (7, "", None), (7, "other", Mark(7, ""))],
)
def test_a_number_is_held_against_what_another_process_writes_meanwhile(
    tmp_path: Path, number: int, digest: str, against: Mark | None
) -> None:
    """Of two that read at once, the one with the lower number must not write last."""
    ours, theirs = Highest(tmp_path / "ours"), Highest(tmp_path / "theirs")
    ours.admit(NAME, 5)
    theirs.admit(NAME, 7)
    file = f"{sha256(NAME.encode()).hexdigest()[:32]}.json"
    lock = os.open(tmp_path / "ours" / FOLDER / file.replace(".json", ".lock"), os.O_RDWR)
    with ThreadPoolExecutor(1) as threads:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # as another process that writes
            asked = threads.submit(ours.admit, NAME, number, digest)
            assert wait([asked], HELD_S).not_done
            written = (tmp_path / "theirs" / FOLDER / file).read_bytes()
            (tmp_path / "ours" / FOLDER / file).write_bytes(written)
        finally:
            os.close(lock)
        assert asked.result() == against
    assert ours.admit(NAME, 5) == Mark(max(number, 7), "")
