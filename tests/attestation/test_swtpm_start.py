"""A simulated TPM that cannot start says so at once, and why; nothing in its folders is waited for.

The programs are played by scripts: what is looked at here is ours, not theirs.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from attestation.collect.swtpm import START_TIMEOUT_S, TOOLS, SimulatedTpm
from wire.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every program needed, none of which does anything, before all others."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv here")
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in TOOLS:
        if name != "setpriv":
            plays(folder / name, "exit 0")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A TPM's folder as an earlier run left it."""
    (tmp_path / "state" / "tpm").mkdir(parents=True)
    return tmp_path / "state"


def plays(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


def start(state: Path) -> None:
    SimulatedTpm(state, state.parent / "ca").close()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo first >&2; echo 'Error: last word' >&2; exit 7", "exit 7, .*serve: Error: last wo"),
        ("kill -9 $$", "signal 9, expected it to serve: it said nothing"),
        ("exit 0", "exit 0, expected it to serve: it said nothing"),
        (r"printf 'red \033[31m \377\n' >&2; exit 1", r"exit 1, .*: red \?\[31m \?$"),
        ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "exit 1, .*: x{200}…$"),
    ],
)
def test_a_tpm_that_ends_at_once_says_how_and_its_last_word(
    programs: Path, state: Path, script: str, sentence: str
) -> None:
    plays(programs / "swtpm", script)
    with pytest.raises(UnavailableError, match=f"swtpm: found {sentence}") as caught:
        start(state)
    assert f"{START_TIMEOUT_S:.0f} s" not in str(caught.value)


def test_a_tpm_that_cannot_be_run_says_so(
    programs: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(programs / "setpriv", "")
    (programs / "setpriv").write_bytes(b"no program")
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(UnavailableError, match="swtpm: does not run") as caught:
        start(state)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("name", ["state", "ca", "state/tpm"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.write_text("")], ids=["pipe", "file"]
)
def test_what_is_no_folder_is_refused_and_not_opened(
    programs: Path, state: Path, name: str, make: Callable[[Path], None]
) -> None:
    del programs
    path = state.parent / name
    shutil.rmtree(path, ignore_errors=True)
    make(path)
    with pytest.raises(ConfigError, match=r"found (no folder|a pipe)"):
        start(state)


@pytest.mark.parametrize(
    "name",
    ["state/tpm/tpm2-00.permall", "state/tpm/.lock", "state/swtpm.log", "state/work", "ca/key.pem"],
)
def test_a_pipe_among_a_tpms_files_is_refused_and_not_opened(
    programs: Path, state: Path, name: str
) -> None:
    del programs
    (state.parent / "ca").mkdir()
    os.mkfifo(state.parent / name)
    with pytest.raises(ConfigError, match=r"found a pipe or a device .*, expected files only"):
        start(state)


def test_what_an_earlier_run_left_is_no_hindrance(programs: Path, state: Path) -> None:
    plays(programs / "swtpm", "echo ran >&2; exit 3")
    (state / "work").mkdir()
    (state / "work" / "ak.ctx").write_text("dead")
    (state / "swtpm.log").write_text("old words\n")
    (state / "gone").symlink_to(state / "nowhere")
    with pytest.raises(UnavailableError, match=r"exit 3, .*: ran"):
        start(state)
    assert (state / "swtpm.log").read_text() == "ran\n"
    assert not list((state / "work").iterdir())
