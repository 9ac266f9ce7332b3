"""An engine under measurement: a process of its own, stopped while another one's turn is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
ROOT = PEERS.parents[1]
#: vLLM compiles for a minute and more when its cache is empty; a run of 64 slow streams takes less.
START_S, RUN_S = 400.0, 600.0
TICK = os.sysconf("SC_CLK_TCK")
#: A moment is quiet when others use less than this many cores for this long.
QUIET_CORES, QUIET_S = 0.25, 0.7


@dataclass(frozen=True, slots=True)
class Arm:
    """What to start: an engine at a precision.

    Attributes:
        engine: anchorhold, vllm, openvino, llamacpp, llamacpp-bench, transformers.
        precision: bfloat16, w8a8, w8a16, int8 (weights only), q8_0.
        python: that runs the driver.
        driver: script under bench/peers.
        model: folder or file.
        binary: of an engine that is a program, or "".
    """

    engine: str
    precision: str
    python: Path
    driver: str
    model: Path
    binary: str = ""

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.engine} {'bf16' if self.precision == 'bfloat16' else self.precision}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The same for every arm: all but `threads` and `clock` (wall, cpu) are most tokens or streams.

    `longest` is of one request, for engines that must know it beforehand: ours need not.
    """

    threads: int
    streams: int
    tokens: int
    longest: int
    clock: str


class ArmError(Exception):
    """An engine that did not start or did not answer."""


class Process:
    """A started arm.

    Attributes:
        version: as the driver says.
        arena: bytes of the KV arena, 0 where the driver does not know.
        spawned: when it was started, on the clock of its answers.
        loaded: seconds from start until it takes orders.
    """

    def __init__(self, arm: Arm, sizes: Sizes, log: Path) -> None:
        """Start it and wait until it takes orders; raises ArmError."""
        self.arm, self._log = arm, log
        command = [str(arm.python), str(PEERS / arm.driver), "--model", str(arm.model)]
        command += ["--precision", arm.precision, "--binary", arm.binary]
        command += ["--threads", str(sizes.threads), "--streams", str(sizes.streams)]
        command += ["--tokens", str(sizes.tokens), "--longest", str(sizes.longest)]
        command += ["--clock", sizes.clock]
        environment = {**os.environ, "VLLM_CACHE_ROOT": str(log.parent / "vllm-cache")}
        if arm.engine == "anchorhold":
            environment["PYTHONPATH"] = str(ROOT)
        self.spawned = time.perf_counter()
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                start_new_session=True,
            )
        hello = self._read(START_S)
        self.loaded = time.perf_counter() - self.spawned
        self.version, self.arena = hello["version"], hello["arena"]

    def order(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """All prompts at once, `out` tokens each; raises ArmError."""
        order = {"prompts": prompts, "out": out, "options": options}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer that does not come says why
        return self._read(RUN_S)

    def _read(self, limit: float) -> dict[str, Any]:
        """One answer within `limit` seconds."""
        assert self._process.stdout is not None
        watch = threading.Timer(limit, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if line:
            return dict(json.loads(line))
        self.close()
        said = [x.strip() for x in self._log.read_text(errors="replace").splitlines() if x.strip()]
        raise ArmError(f"{self.arm.name}: {said[-1] if said else 'ended without a word'}")

    def suspend(self) -> None:
        """Not one instruction until `resume`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End of orders; killed if that does not end it."""
        assert self._process.stdin is not None
        # The whole group: a driver that died may leave a server behind.
        with contextlib.suppress(ProcessLookupError, BrokenPipeError):
            self.resume()
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def cpu(self) -> float:
        """CPU seconds of the whole process tree so far, ended children included."""
        total = 0
        for pid in tree(self._process.pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(int(x) for x in fields[11:15])
        return total / TICK

    def rss(self, kind: str) -> int:
        """Bytes of all living processes of the tree together.

        Args:
            kind: VmHWM, the peak of each, loading included; VmRSS, now.
        """
        total = 0
        for pid in tree(self._process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            found = [x for x in status.splitlines() if x.startswith(kind)]
            total += int(found[0].split()[1]) * 1024 if found else 0
        return total


def tree(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def machine_busy() -> float:
    """CPU seconds that the whole machine has spent on anything."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(x) for i, x in enumerate(fields) if i not in (3, 4)) / TICK


def wait_quiet(limit: float) -> None:
    """Wait, at most `limit` seconds, for a quiet moment."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = machine_busy()
        time.sleep(QUIET_S)
        if machine_busy() - before < QUIET_CORES * QUIET_S:
            return


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable")) * 1024
