"""Crashes and full disks: nothing acknowledged is lost, nothing signed is unsaid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulators import crashing_log

from evidence.checkpoint import peek_checkpoint

ROUNDS = 24


def run(mode: str, folder: Path, rounds: int = 1) -> list[dict[str, Any]]:
    """Run the dying program and return what it said."""
    script = Path(crashing_log.__file__)
    done = subprocess.run(
        [sys.executable, str(script), mode, str(folder), str(rounds)],
        capture_output=True,
        text=True,
        timeout=50,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(script.parents[1]), *sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_acknowledged_entry_and_forks_nothing(
    tmp_path: Path,
) -> None:
    said = run("kill", tmp_path, ROUNDS)
    acknowledged = [line for line in said if "index" in line]
    opened = [line for line in said if "open" in line]
    assert [line["round"] for line in opened] == list(range(ROUNDS))
    assert len({line["round"] for line in acknowledged}) >= ROUNDS // 2

    log = crashing_log.open_log(tmp_path)  # recomputes the tree from the leaves and checks it
    try:
        for line in acknowledged:  # no acknowledged entry is lost or moved
            assert log._tree.leaf(line["index"]).hex() == line["leaf"]
        indices = [line["index"] for line in acknowledged]
        assert len(set(indices)) == len(indices)
        for line in acknowledged:  # every head ever shown is a prefix of what there is now
            assert log.root(line["size"]).hex() == line["root"]
        for line in opened:
            assert log.root(line["open"]).hex() == line["root"]
        sizes = [line["open"] for line in opened]
        assert sizes == sorted(sizes)
        for line in acknowledged:  # and each start already had what the rounds before acknowledged
            later = [start["open"] for start in opened if start["round"] > line["round"]]
            assert all(line["index"] < size for size in later)
    finally:
        log.close()


def test_a_full_disk_stops_the_log_and_fails_everything_pending(tmp_path: Path) -> None:
    [said] = run("full", tmp_path)
    assert said["acknowledged"] == list(range(said["size"]))
    assert said["size"] > 10
    assert len(said["refused"]) == crashing_log.CALLERS
    assert all("commit failed" in message for message in said["refused"])
    assert said["later"] == said["stopped"]
    assert "commit failed" in said["stopped"]
    assert said["proofs"] > 0  # what was durable can still be proved

    log = crashing_log.open_log(tmp_path)
    try:
        assert log.size == said["size"]
        assert peek_checkpoint(log.checkpoint()).size == said["size"]
    finally:
        log.close()
