"""Starts one worker process: wrapper, cleared environment, control socket as descriptor 0."""

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wire.errors import UnavailableError

from .control import ControlSocket
from .launch_line import ARGUMENTS, MODULE, environment
from .sandbox.namespaces import namespace_ids, wrap_command
from .stage import WorkerRoot

# How long a killed process may take to be reaped before it is reported as stuck.
KILL_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A command ready to run, the wrapper's name, and the launcher's namespaces to compare with."""

    command: list[str]
    wrapper: str
    namespaces: dict[str, str]


@dataclass(slots=True)
class WorkerProcess:
    """A running worker (or its wrapper, which dies with it) and the channel to it."""

    process: "subprocess.Popen[bytes]"
    control: ControlSocket

    @property
    def pid(self) -> int:
        """Process id of the wrapper, or of the worker where there is none."""
        return self.process.pid

    def end(self, wait_s: float) -> int:
        """Wait for the process, then kill it; returns its exit status (negative: the signal)."""
        try:
            status = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait(KILL_WAIT_S)
        self.control.close()
        return status


def wrap(root: WorkerRoot, model_dir: Path) -> Wrapped:
    """Choose the best wrapper that works here for this root's command."""
    command = root.command(MODULE, *ARGUMENTS)
    wrapped, name = wrap_command(command, read_paths=(*root.read_paths, model_dir))
    return Wrapped(wrapped, name, dict(namespace_ids()))


def spawn(command: Sequence[str], threads: int, log: Path | None) -> WorkerProcess:
    """Start the worker.

    Call from a thread that outlives the worker: its parent-death signal belongs to the thread.

    Args:
        command: from `wrap`.
        threads: of the engine; libraries that size themselves from the environment get the same.
        log: receives stderr; None inherits the launcher's.

    Raises:
        UnavailableError: the operating system refused to start it.
    """
    with ExitStack() as stack:
        stderr: BinaryIO | None = None
        if log is not None:
            try:
                log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Opened at once, or not at all: nobody may be reading where it is a pipe.
                stderr = stack.enter_context(open(log, "ab", opener=_at_once))
            except OSError as error:
                raise UnavailableError(f"log: cannot write {log}: {error.strerror}") from None
            os.set_blocking(stderr.fileno(), True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(theirs.close)
        try:
            process = subprocess.Popen(
                list(command),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment(threads),
                cwd="/",
                close_fds=True,
            )
        except OSError as error:
            ours.close()
            raise UnavailableError(f"worker: could not be started ({error.strerror})") from None
    return WorkerProcess(process, ControlSocket(ours))


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
