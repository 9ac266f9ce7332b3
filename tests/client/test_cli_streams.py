"""The program at the ends of its pipes: closed, full, narrow, without a terminal, interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulators.tee import SoftwareTee

from client.cli_terminal import fold

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from client.cli import main; main()"]


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({**SoftwareTee().demands, "expires": 2**33}))
    return str(path)


def shell(line: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which "$@" is the program and its words."""
    done = subprocess.run(
        ["bash", "-c", line, "bash", *PROGRAM, *words],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("words", [("explain", "POLICY"), ("check", "missing.json", "--json")])
def test_a_reader_that_leaves_ends_the_program_quietly(policy: str, words: tuple[str, ...]) -> None:
    named = [policy if word == "POLICY" else word for word in words]
    done = shell('"$@" | true; exit ${PIPESTATUS[0]}', "policy", *named)
    assert done.returncode in (0, 4, 130)  # 130 where the reader left first
    assert "defect" not in done.stderr


def test_output_that_finds_no_room_is_said_and_exits_4(policy: str) -> None:
    done = shell('"$@" > /dev/full', "policy", "check", policy)
    assert done.returncode == 4
    assert "standard output: No space left on device" in done.stderr
    assert "hint: part of the output is lost" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_program_started_without_its_streams_keeps_its_exit_codes(
    policy: str, closed: str
) -> None:
    assert shell(f'"$@" {closed}', "policy", "check", policy).returncode == 0
    assert shell(f'"$@" {closed}', "policy", "check", "missing.json").returncode == 4


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_output_that_has_nowhere_to_go_is_not_lost_in_silence(
    policy: str, closed: str, json: list[str]
) -> None:
    done = shell(f'"$@" {closed}', "policy", "check", policy, *json)
    assert done.returncode == 4
    if "2>&-" not in closed:
        assert "standard output: Bad file descriptor" in done.stderr
        assert "hint: part of the output is lost" in done.stderr


def test_the_module_is_the_program(policy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", "policy", "check", policy],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert (done.returncode, "tests seq 1" in done.stdout) == (0, True)


def test_an_encoding_that_lacks_a_sign_is_no_defect(tmp_path: Path, policy: str) -> None:
    other = tmp_path / "grün.json"
    shutil.copy(policy, other)
    words = ("policy", "simulate", str(other), "recörd.json")
    done = shell('"$@"', *words, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 4
    assert "rec\\xf6rd.json" in done.stderr


@pytest.mark.parametrize("columns", ["40", "80", "200", "1", "x"])
def test_lines_fit_the_terminal_and_are_never_wider_than_80(
    run: Any, monkeypatch: pytest.MonkeyPatch, policy: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    width = {"40": 40, "1": 40}.get(columns, 80)
    for words in (("check", policy), ("check", "missing.json"), ("explain", policy)):
        _, out, err = run("policy", *words)
        for line in (out + err).splitlines():
            # A word that does not fit stands alone, whole, to be copied.
            assert len(line) <= width or len(line.split()) == 1, line


@pytest.mark.parametrize(
    ("text", "hang", "lines"),
    [
        ("short", 2, ["short"]),
        (
            "ok    " + "word " * 9,
            6,
            ["ok    word word word word word word word", "      word word"],
        ),
        ("name      " + "x" * 35, 10, ["name", "     " + "x" * 35]),
        ("a\nb", 2, ["a", "b"]),
        ("x" * 60, 2, ["x" * 60]),
        ("\x1b[2J", 2, ["\N{REPLACEMENT CHARACTER}[2J"]),
    ],
)
def test_lines_are_folded_between_words(
    monkeypatch: pytest.MonkeyPatch, text: str, hang: int, lines: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert fold(text, hang).split("\n") == lines


def test_what_a_shell_gives_for_a_file_is_read(policy: str) -> None:
    piped = 'cat "$0" | "$@" /dev/stdin && "$@" <(cat "$0")'
    done = subprocess.run(
        ["bash", "-c", piped, policy, *PROGRAM, "policy", "check"],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tests seq 1") == 2


def test_an_interrupt_in_the_middle_is_130_and_no_trace(policy: str) -> None:
    words = [*PROGRAM, "policy", "simulate", policy, "/dev/stdin"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(words, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin is not None
        # More than a pipe holds: once it is written the program reads, and waits for the rest.
        process.stdin.write(" " * 262_144)
        process.stdin.flush()
        while process.poll() is None:  # one between two reads is seen after the next
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
        assert (process.returncode, process.stdout.read()) == (130, "")
        assert process.stderr.read() == "anchorhold: interrupted\n"
