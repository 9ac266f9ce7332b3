"""Real child processes for controls that cannot be undone: each test confines one and asks it."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from enclave_worker.sandbox import landlock, namespaces

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

# What every child can use: `attempt` turns a call into its errno name, the currency of these tests.
PREAMBLE = """
import errno, json, os, sys, socket, threading, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
def system(number, *arguments):
    ctypes.set_errno(0)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
def read(path):
    with open(path, "rb") as file:
        file.read(1)
def allow_only(*paths):
    from pathlib import Path
    from enclave_worker.sandbox import landlock
    controls = landlock.restrict([Path(path) for path in paths])
    assert controls["landlock_fs"].state == "applied", controls
def seal():
    from enclave_worker.sandbox import confine, limits
    limits.no_new_privileges()
    controls = confine.confine_late()
    assert controls["seccomp"].state == controls["tsync"].state == "applied", controls
def report(**facts):
    print(json.dumps(facts), flush=True)
"""


def child_argv(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), *arguments]


class Child:
    """Runs code in a child and returns what it reported."""

    def __call__(
        self, code: str, *arguments: str, wrapper: Sequence[str] = (), **options: Any
    ) -> dict[str, Any]:
        done = self.run(code, *arguments, wrapper=wrapper, **options)
        assert done.returncode == 0, done.stderr.decode()
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def run(
        self, code: str, *arguments: str, wrapper: Sequence[str] = (), **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*wrapper, *child_argv(code, *arguments)],
            cwd=ROOT,
            capture_output=True,
            timeout=30,
            **options,
        )


@pytest.fixture
def child() -> Child:
    return Child()


@pytest.fixture
def spawn() -> Iterator[Any]:
    """Start a child that stays; the first line it reports is returned with the process."""
    running: list[subprocess.Popen[bytes]] = []

    def start(
        code: str, *arguments: str, wrapper: Sequence[str] = (), **options: Any
    ) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
        process = subprocess.Popen(
            [*wrapper, *child_argv(code, *arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,
        )
        running.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def needs_landlock() -> int:
    abi, failed = landlock.supported_abi()
    if failed:
        pytest.skip(f"kernel without Landlock: {os.strerror(failed)}")
    return abi


@pytest.fixture
def wrapper() -> list[str]:
    """The prefix of a wrapper that works here."""
    prefix, name = namespaces.wrap_command([])
    if name == "none":
        pytest.skip("no bwrap or unshare that may create user namespaces on this kernel")
    return prefix


@pytest.fixture
def ends() -> Callable[[int, float], bool]:
    """Whether a process ends (a zombie has ended) within some seconds."""

    def watch(pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            except OSError:
                return True
            if stat.rsplit(")", 1)[1].split()[0] in "ZX":
                return True
            time.sleep(0.01)
        return False

    return watch
