"""A write that is killed or fails, at whatever step, takes nothing away that was in force."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attestation.collateral.entry import Checked, Entry, Piece, make_entry
from attestation.collateral.room import ABANDONED_S
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey, ocsp
from wire.errors import AttestationError

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_790_000_000
CRL = CollateralKey("amd-kds", "crl/vcek/Genoa")
ANSWER = ocsp("sha384", bytes(48), bytes(48), 7)
OLD, NEWER = 1000, 2000

# Kills itself, or runs out of room, at one of the system calls that the interpreter tells of.
WRITER = """
import json, os, resource, signal, sys
from pathlib import Path
from attestation.collateral.entry import Checked, Piece, make_entry
from attestation.collateral.store import Store
from attestation.collateral_key import parse_key
from wire.errors import UnavailableError

folder, key, now = Path(sys.argv[1]), parse_key(sys.argv[2]), int(sys.argv[3])
first, second, fault = int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]

def entry(number):
    return make_entry(key, Piece(b"%d" % number * 400), Checked(None, number), now)

def write(at):
    steps = 0
    def step(event, arguments):
        nonlocal steps
        if event in ("open", "os.rename", "os.remove", "os.utime", "os.truncate"):
            steps += 1
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)
    if fault == "kill":
        sys.addaudithook(step)
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, resource.RLIM_INFINITY))
    try:
        Store(folder / str(at)).put(entry(second), now)
    except UnavailableError:
        os._exit(3)
    os._exit(0)

ends = {}
for at in range(1, 100) if fault == "kill" else (50, 200, 1000):
    Store(folder / str(at)).put(entry(first), now)
    child = os.fork()
    if child == 0:
        write(at)
    ends[at] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ends[at] == 0:
        break
print(json.dumps(ends))
"""


def faults(folder: Path, key: CollateralKey, fault: str) -> dict[str, int]:
    """Where the second of two writes ended, by the step at which it was disturbed."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder), str(key), *map(str, (NOW, OLD, NEWER)), fault],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout)
    return found


def numbered(key: CollateralKey, number: int) -> Entry:
    return make_entry(key, Piece(b"%d" % number * 400), Checked(None, number), NOW)


def leftovers(store: Store) -> list[Path]:
    kept = {store.root / "entries", store.root / "seen"}
    found = [path for path in store.root.rglob("*") if path.is_file()]
    strange = [path for path in found if path.name.startswith(".new-")]
    return strange + [p for p in found if p.parent not in kept and p.parent.name == "begun"]


@pytest.mark.parametrize("key", [CRL, ANSWER], ids=["crl", "ocsp"])
def test_a_writer_killed_at_any_step_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, key: CollateralKey
) -> None:
    ends = faults(tmp_path, key, "kill")
    assert list(ends.values())[-1] == 0
    assert len(ends) > 6
    found = []
    for at in ends:
        store = Store(tmp_path / at)
        kept = store.get(key, NOW)
        assert kept in (numbered(key, OLD), numbered(key, NEWER)), at
        assert kept is not None
        assert list(store.entries(NOW)) == [kept], at
        found.append(kept.sequence)
        # What was seen is not forgotten either: the next writer goes on from there.
        store.put(kept, NOW)
        assert store.get(key, NOW) == kept
        assert not leftovers(store), at
    assert found == sorted(found, key=lambda number: number or 0)  # once it counts, it stays


@pytest.mark.parametrize("key", [CRL, ANSWER], ids=["crl", "ocsp"])
def test_a_newer_one_that_was_remembered_is_never_followed_by_the_old_one(
    tmp_path: Path, key: CollateralKey
) -> None:
    for at in faults(tmp_path, key, "kill"):
        store = Store(tmp_path / at)
        if store.get(key, NOW) == numbered(key, NEWER):
            with pytest.raises(AttestationError):
                store.put(numbered(key, OLD), NOW)


@pytest.mark.parametrize("key", [CRL, ANSWER], ids=["crl", "ocsp"])
def test_a_disk_without_room_leaves_what_is_in_force(tmp_path: Path, key: CollateralKey) -> None:
    ends = faults(tmp_path, key, "full")
    assert set(ends.values()) == {3}
    for at in ends:
        store = Store(tmp_path / at)
        assert store.get(key, NOW) == numbered(key, OLD)
        assert [found.sequence for found in store.entries(NOW)] == [OLD]
        assert not leftovers(store)
        store.put(numbered(key, NEWER), NOW)
        assert store.get(key, NOW) == numbered(key, NEWER)


def test_what_the_memory_overtook_is_not_listed_as_in_force(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(numbered(CRL, OLD), NOW)
    (path,) = (tmp_path / "entries").iterdir()
    old = path.read_bytes()
    store.put(numbered(CRL, NEWER), NOW)
    path.write_bytes(old)
    assert list(store.entries(NOW)) == []


def test_half_written_files_of_the_dead_are_swept_from_every_folder(tmp_path: Path) -> None:
    """Versions before wrote beside the entries and beside the memory, under these names."""
    abandoned, fresh = [], []
    for folder in ("entries", "seen"):
        (tmp_path / folder).mkdir()
        for name, age, found in ((".new-a", ABANDONED_S + 5, abandoned), (".new-b", 5, fresh)):
            path = tmp_path / folder / name
            path.write_bytes(b"half")
            os.utime(path, (NOW - age, NOW - age))
            found.append(path)
    Store(tmp_path).put(numbered(CRL, OLD), NOW)
    assert not any(path.exists() for path in abandoned)
    assert all(path.exists() for path in fresh)


def test_a_reader_never_finds_less_while_it_is_replaced(tmp_path: Path) -> None:
    """The memory rises before the entry is in its place: who reads in between must not be told
    that the vendor went back in time."""
    store = Store(tmp_path)
    store.put(numbered(CRL, 1), NOW)
    writer = subprocess.Popen(
        [sys.executable, "-c", REPLACER, str(tmp_path), str(NOW)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    highest = 0
    while writer.poll() is None:
        found: Any = Store(tmp_path).get(CRL, NOW)
        assert found.sequence >= highest
        highest = found.sequence
    writer.stdout.close()
    assert highest > 1


REPLACER = """
import sys
from pathlib import Path
from attestation.collateral.entry import Checked, Piece, make_entry
from attestation.collateral.store import Store
from attestation.collateral_key import CollateralKey
store, now = Store(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for number in range(2, 600):
    key = CollateralKey("amd-kds", "crl/vcek/Genoa")
    store.put(make_entry(key, Piece(b"%d" % number * 400), Checked(None, number), now), now)
"""
