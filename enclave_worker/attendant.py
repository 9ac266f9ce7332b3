"""Attends to one running worker: evidence, activation, connections, states. One thread, blocking.

Everything the worker can ask of the world outside its sandbox is in this file.
"""

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from wire.errors import AnchorholdError, ProtocolFailure
from wire.ids import unb64u

from .clock import Clock
from .control import Message
from .machine import Machine
from .measured import Measured
from .spawn import WorkerProcess
from .worker_config import WorkerConfig

CONNECT_FIRST_S = 0.05
CONNECT_MAX_S = 2.0
# A ready worker drains for a few seconds when told to stop; longer means that it hangs.
DRAIN_WAIT_S = 10.0
# Wakes up now and then although nothing happened: notices a worker that died without closing.
IDLE_S = 5.0

Enter = Callable[[str, Mapping[str, Any]], None]


class Attendant:
    """Serves one worker process until it ends.

    Attributes:
        was_ready: whether the worker ever got ready.
        failure: (stage, message) if the worker said why it cannot go on.
        attested: whether evidence for its keys could be made, once it was asked for.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        machine: Machine,
        gateway_socket: Path,
        clock: Clock,
        enter: Enter,
    ) -> None:
        """Take charge of a started worker; `enter` is told every state it reports."""
        self._worker = worker
        self._machine = machine
        self._gateway = gateway_socket
        self._clock = clock
        self._enter = enter
        self._wake_out, self._wake_in = socket.socketpair()
        self._connect_at: float | None = None
        self._stop_by: float | None = None
        self._pause = CONNECT_FIRST_S
        self.was_ready = False
        self.attested: bool | None = None
        self.failure: tuple[str, str] | None = None

    @property
    def pid(self) -> int:
        """Process id of the worker or its wrapper."""
        return self._worker.pid

    def configure(
        self, config: WorkerConfig, read_paths: Iterable[Path], measured: Measured
    ) -> None:
        """Send the first message: settings, what the worker may read, what was measured."""
        self._send(
            {
                "type": "CONFIG",
                "worker": config.document(),
                "read_paths": [*map(str, read_paths), config.model_dir],
                "measured": measured.to_json(),
            }
        )

    def ask_to_stop(self) -> None:
        """Ask the worker to drain and end. Called from any thread."""
        with contextlib.suppress(OSError):
            self._wake_in.send(b"s")

    def attend(self) -> None:
        """Serve until the worker closes its channel, or does not end when it should."""
        control = self._worker.control
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            while not control.closed and not self._overdue():
                for key, _ in selector.select(self._timeout()):
                    if key.fileobj is self._wake_out:
                        self._wake_out.recv(64)
                        self._stop()
                    else:
                        for message in control.receive_ready():
                            self._handle(message)
                if self._connect_at is not None and time.monotonic() >= self._connect_at:
                    self._connect()

    def _stop(self) -> None:
        """Pass the wish to stop on; a worker that is still loading does not listen yet."""
        self._send({"type": "STOP"})
        wait = DRAIN_WAIT_S if self.was_ready else 0.0
        self._stop_by = time.monotonic() + wait

    def _overdue(self) -> bool:
        return self._stop_by is not None and time.monotonic() >= self._stop_by

    def close(self) -> None:
        """Release the wake-up pipe."""
        self._wake_in.close()
        self._wake_out.close()

    def _timeout(self) -> float:
        moments = [at for at in (self._connect_at, self._stop_by) if at is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else IDLE_S

    def _handle(self, message: Message) -> None:
        kind = message["type"]
        if kind == "NEED_CONN":
            self._pause = CONNECT_FIRST_S
            self._connect()
        elif kind == "ATTEST":
            self._attest(message)
        elif kind == "ACTIVATE":
            self._activate(message)
        elif kind == "STATUS":
            facts = {key: value for key, value in message.items() if key not in ("type", "state")}
            state = str(_member(message, "state"))
            self.was_ready = self.was_ready or state == "ready"
            self._enter(state, facts)
        elif kind == "FAILED":
            # A failed attester is the reason; what the worker says is its consequence.
            self.failure = self.failure or (
                str(message.get("stage")),
                str(message.get("message")),
            )

    def _connect(self) -> None:
        """Connect to the gateway and hand the descriptor over, or try again a little later."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(self._gateway))
        except OSError:
            sock.close()
            if self._pause == CONNECT_FIRST_S:
                self._enter("waiting", {"socket": str(self._gateway)})
            self._connect_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, CONNECT_MAX_S)
            return
        self._connect_at = None
        with sock:
            self._send({"type": "CONN"}, fd=sock.fileno())

    def _attest(self, message: Message) -> None:
        answer: Message = {"type": "EVIDENCE", "id": _member(message, "id")}
        binding = unb64u(_member(message, "binding"))
        try:
            evidence = self._machine.attest(binding, self._clock.ms())
            answer["evidence"] = [item.to_json() for item in evidence]
            self.attested, self.failure = True, None
        except (AnchorholdError, OSError) as error:
            self.attested = self.attested or False
            self.failure = ("attest", str(error))
            answer["error"] = "attest"
        self._send(answer)

    def _activate(self, message: Message) -> None:
        answer: Message = {"type": "ACTIVATED", "id": _member(message, "id")}
        try:
            answer["answer"] = dict(self._machine.activate(message["credential"]))
        except (AnchorholdError, OSError, KeyError) as error:
            # Usually the challenger's fault (a blob made for another TPM): the worker goes on.
            answer["error"] = "activate" if isinstance(error, AnchorholdError) else "malformed"
        self._send(answer)

    def _send(self, message: Message, fd: int | None = None) -> None:
        # A worker that has gone is noticed by its closed channel, not by a failing send.
        with contextlib.suppress(OSError):
            self._worker.control.send(message, fd)


def _member(message: Message, name: str) -> Any:
    """Return a member the message must have; a worker that leaves it out is broken or hostile."""
    try:
        return message[name]
    except KeyError:
        raise ProtocolFailure(f"control: expected {name} in every {message['type']}") from None
