"""A demo's folder: private, gone at the end; a dead demo's is deleted, nobody else's ever is."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.demo_folder import LOCK, PREFIX, demo_folder, sweep

HOLD = """
import sys
from pathlib import Path
from ops.demo_folder import demo_folder
with demo_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def other_demo(parent: Path) -> "tuple[subprocess.Popen[str], Path]":
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(parent)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_the_folder_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with demo_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "d").mkdir()
    assert not folder.exists()


def test_a_failing_demo_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), demo_folder(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_running_demo_is_left_alone_and_a_killed_one_is_swept(tmp_path: Path) -> None:
    child, theirs = other_demo(tmp_path)
    try:
        (theirs / "d").mkdir()
        (theirs / "d" / "secret.key").write_text("x")
        with demo_folder(tmp_path):
            assert theirs.is_dir()
        assert sweep(tmp_path) == []
    finally:
        child.kill()
        child.communicate()
    assert theirs.is_dir()
    with demo_folder(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]


def test_what_is_no_dead_demos_folder_is_never_touched(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / LOCK).touch()
    unlocked = tmp_path / f"{PREFIX}starting"
    unlocked.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(outside)
    (tmp_path / f"{PREFIX}file").write_text("x")
    linked = tmp_path / f"{PREFIX}linked-lock"
    linked.mkdir()
    (linked / LOCK).symlink_to(outside / LOCK)
    before = sorted(tmp_path.rglob("*"))
    assert sweep(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
