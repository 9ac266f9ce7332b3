"""The worker's side of the control channel, inside its event loop."""

import asyncio
import contextlib
import socket
from itertools import count
from typing import Any

from attestation.evidence import Evidence, evidence_list
from wire.errors import UnavailableError
from wire.ids import b64u

from .control import ControlSocket, Message

# A TPM quote through its tools takes about a second, and so do the reports of a few GPUs, one after
# another; far longer means that the launcher is stuck,
# and a worker without evidence must not wait for ever with a half-made epoch.
ANSWER_TIMEOUT_S = 60.0


class LauncherPort:
    """Asks the launcher for evidence and connections; hears its STOP.

    Attributes:
        stopping: set when the launcher asks the worker to end, or has gone away.
    """

    def __init__(self, control: ControlSocket) -> None:
        """Take the control socket; `attach` connects it to the running loop."""
        self._control = control
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._sockets: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.stopping = asyncio.Event()

    def attach(self) -> None:
        """Start reading control messages in the running event loop."""
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._readable)

    def detach(self) -> None:
        """Stop reading; the socket stays open for the last status message."""
        asyncio.get_running_loop().remove_reader(self._control.fileno())

    def status(self, state: str, **fields: Any) -> None:
        """Tell the launcher how far the worker is; a launcher that is gone is not an error here."""
        with contextlib.suppress(OSError):
            self._control.send({"type": "STATUS", "state": state, **fields})

    async def connection(self) -> socket.socket:
        """Ask for a connection to the gateway and wait until one arrives."""
        self._control.send({"type": "NEED_CONN"})
        return await self._sockets.get()

    async def attest(self, binding: bytes) -> tuple[Evidence, ...]:
        """Return evidence over exactly these binding bytes, the processor's first."""
        answer = await self._ask({"type": "ATTEST", "binding": b64u(binding)})
        return evidence_list(answer.get("evidence"))

    async def activate(self, credential: dict[str, Any]) -> dict[str, Any]:
        """Return the attester's answer to a credential challenge."""
        answer = await self._ask({"type": "ACTIVATE", "credential": credential})
        document = answer["answer"]
        if not isinstance(document, dict):
            raise UnavailableError("launcher: found no activation answer, expected an object")
        return document

    async def _ask(self, question: Message) -> Message:
        number = next(self._ids)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            self._control.send({**question, "id": number})
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await future
        except (TimeoutError, OSError):
            raise UnavailableError("launcher: no answer from the attester") from None
        finally:
            self._answers.pop(number, None)
        if "error" in answer:
            raise UnavailableError("launcher: the attester could not answer")
        return answer

    def _readable(self) -> None:
        for message in self._control.receive_ready():
            self._take(message)
        if self._control.closed:
            # Nobody can attest, connect or stop this worker any more: it ends.
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._fail_waiting()
            self.stopping.set()

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "CONN":
            self._sockets.put_nowait(socket.socket(fileno=self._control.take_fd()))
        elif kind in ("EVIDENCE", "ACTIVATED"):
            future = self._answers.get(message.get("id", 0))
            if future is not None and not future.done():
                future.set_result(message)
        elif kind == "STOP":
            self.stopping.set()

    def _fail_waiting(self) -> None:
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ConnectionError())
