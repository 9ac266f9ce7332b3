"""What tests of one group share is made once: they run in one process, whatever their files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import os
from pathlib import Path

import pytest

@pytest.mark.xdist_group("shared")
@pytest.mark.parametrize("number", range(6))
def test_who_runs_this(number):
    with open("who", "a") as who:
        who.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def test_tests_of_one_group_run_in_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    for name in ("test_first.py", "test_second.py"):
        (folder / name).write_text(TESTS)
    options = ["-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), "tests"],
        cwd=tmp_path, env={**os.environ, "PYTEST_ADDOPTS": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert "12 passed" in done.stdout, done.stdout + done.stderr
    workers = (tmp_path / "who").read_text().split()
    assert len(workers) == 12
    assert len(set(workers)) == 1
