"""A worker that breaks the control protocol is ended: it never runs on without its launcher."""

import asyncio
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from enclave_worker.launch import Launcher
from enclave_worker.launcher_config import LauncherConfig

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

# What a compromised worker could be: it is answered once, says one thing, then stays.
PROGRAM = """
import socket, time

def main():
    control, heard = socket.socket(fileno=0), b""
    control.sendall({first!r})
    while b"ACTIVATED" not in heard:
        heard += control.recv(65536)
    control.sendall({then!r})
    time.sleep(600)
"""


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def message(**members: Any) -> bytes:
    return framed(json.dumps(members).encode())


async def left_with(config: LauncherConfig, said: bytes) -> tuple[Launcher, int]:
    """Run a launcher whose worker says this until it gives up; also the worker's process."""
    pids: list[int] = []

    def on_state(state: str, _facts: Any) -> None:
        if state == "loading":
            assert launcher.pid is not None
            pids.append(launcher.pid)

    launcher = Launcher(config, on_state=on_state)
    try:
        await asyncio.to_thread(launcher.measure)
        assert launcher._root is not None
        code = launcher._root.staged.parts["first_party"] / "enclave_worker"
        code.unlink()
        code.mkdir()
        (code / "__init__.py").write_text("")
        first = message(type="STATUS", state="loading")
        first += message(type="ACTIVATE", id=1, credential={})
        (code / "main.py").write_text(PROGRAM.format(first=first, then=said))
        await asyncio.wait_for(asyncio.to_thread(launcher._run), 30)
    finally:
        await asyncio.to_thread(launcher.stop)
    (pid,) = pids
    return launcher, pid


@pytest.mark.parametrize(
    "said",
    [
        framed(b"{"),
        framed(b"[]"),
        struct.pack(">I", 2**31),
        message(type="STATUS"),
        message(type="ATTEST", binding="AAAA"),
        message(type="ATTEST", id=1),
        message(type="ATTEST", id=1, binding=5),
        message(type="ACTIVATE"),
    ],
    ids=[
        "no-json", "no-object", "absurd-length", "status-of-nothing", "attest-without-id",
        "attest-nothing", "attest-a-number", "activate-without-id",
    ],
)  # fmt: skip
async def test_a_malformed_control_message_ends_the_worker(
    launcher_config: LauncherConfig, said: bytes, tmp_path: Path
) -> None:
    launcher, pid = await left_with(launcher_config, said)
    assert launcher.failure is not None
    assert launcher.state == "failed"
    assert launcher.pid is None, "nobody is attended to"
    assert launcher.starts == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
