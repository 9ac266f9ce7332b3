"""One connection to the gateway, from CHALLENGE to its end. The worker's half of `wire.link`.

The worker proves its attested key on this very connection (HELLO signs the gateway's nonce), asks
for work with signed credits, and answers on the same socket. Losing the connection cancels what
runs: its readers sat behind that gateway. A gateway silent for a whole lease is lost as well.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Coroutine
from itertools import count
from typing import Any

from wire.canonical import encode as encode_json
from wire.errors import MalformedError, ProtocolFailure, ReceiptError
from wire.ids import b64u, unb64u
from wire.limits import ENVELOPE_MAX
from wire.link import (
    ACTIVATED,
    BYTES,
    CHALLENGE_ANSWER,
    DONE,
    GOODBYE,
    HEARTBEAT,
    HELLO,
    KEYS,
    NOTICE,
    PROVED,
    PULL,
    RECEIPT,
    Decoder,
    Message,
    MessageType,
    encode,
    hello_bytes,
    json_message,
    pull_bytes,
    raw_message,
)

from .answering import NO_USAGE
from .bench import Bench
from .challenges import NONCE_LEN, Challenges
from .epochs import Epoch
from .journal import Event, emit, report
from .port import LauncherPort
from .rotation import Rotation
from .session import Session

READ_SIZE = 262_144
# The largest message for a worker is a JOB: one envelope and its request id.
INBOUND_MAX = ENVELOPE_MAX + 64
# A gateway that accepts and then says nothing holds up a worker that another could use.
HANDSHAKE_TIMEOUT_S = 30.0
HEARTBEAT_PART = 3  # heartbeats in one lease: two may be lost
LEASE_MIN_S, LEASE_MAX_S = 1, 300


class Refused(Exception):  # noqa: N818 - states what happened, not what went wrong
    """The gateway does not admit this worker.

    Attributes:
        reasons: machine codes as the gateway sent them.
    """

    def __init__(self, reasons: list[str]) -> None:
        """Keep the reasons."""
        super().__init__("the gateway refused this worker's evidence")
        self.reasons = reasons


class GatewayLink:
    """Speaks on one connection. Implements bench.Outlet."""

    def __init__(
        self,
        sock: socket.socket,
        bench: Bench,
        port: LauncherPort,
        posture: bytes,
        rotation: Rotation,
    ) -> None:
        """Take ownership of a connected socket."""
        self._sock = sock
        self._bench = bench
        self._port = port
        self._rotation = rotation
        self._challenges = Challenges(bench, port, posture)
        self._decoder = Decoder(INBOUND_MAX)
        self._incoming = self._messages()
        self._nonce = b""
        self._numbers = count(1)
        self._sessions: dict[bytes, Session] = {}
        self._logging: dict[bytes, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._admitted = False
        self._outgoing: list[bytes] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def run(self) -> None:
        """Serve until the connection ends.

        Raises:
            Refused: the gateway does not admit this worker.
            ConnectionError, TimeoutError, MalformedError: the connection is of no use any more.
            FirstEpochError: the attester failed, and there is no key to introduce.
        """
        self._reader, self._writer = await asyncio.open_connection(sock=self._sock)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self._challenged()
            # Perhaps an attestation, which has its own limit and is not the gateway's to hurry.
            offered = await self._rotation.offered()
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                lease_s = await self._introduce(offered)
            beat = self._task(self._heartbeat(lease_s))
            await self._pull(self._bench.config.slots)
            try:
                await self._serve_until_silent(lease_s)
            finally:
                beat.cancel()
        except TimeoutError:
            # What is unsent stays unsent: closing politely would wait for the one who is silent.
            self._writer.transport.abort()
            raise
        finally:
            await self._close()

    @property
    def admitted(self) -> bool:
        """Whether the gateway has admitted this worker on this connection."""
        return self._admitted

    async def announce(self, epoch: Epoch) -> None:
        """Offer a new epoch on an admitted connection (KEYS); nothing before admission."""
        if self._admitted:
            await self._send(json_message(KEYS, self._introduction(epoch)))

    async def drain(self) -> None:
        """Say goodbye, take nothing new, and return when the running requests have ended."""
        self._draining = True
        if not self._admitted:
            return
        with contextlib.suppress(ConnectionError):
            await self._send(json_message(GOODBYE, {}))
        await self._idle.wait()

    # ------------------------------------------------------------ bench.Outlet

    async def send_bytes(self, rid: bytes, data: bytes) -> None:
        """Send response bytes; waits while the gateway is slow."""
        await self._send(raw_message(BYTES, rid, data))

    async def send_notice(self, rid: bytes, notice: dict[str, Any]) -> None:
        """Send a signed refusal."""
        await self._send(json_message(NOTICE, notice, rid=rid))

    async def send_done(self, rid: bytes, done: dict[str, Any]) -> None:
        """Report the end of a request."""
        await self._send(json_message(DONE, done, rid=rid))

    async def log(self, rid: bytes, event: dict[str, Any]) -> dict[str, Any]:
        """Send the outer event and wait for the log's answer."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._logging[rid] = future
        try:
            event_bytes = b64u(encode_json(event))
            await self._send(json_message(RECEIPT, {"event": event_bytes}, rid=rid))
            return await future
        finally:
            self._logging.pop(rid, None)

    # ------------------------------------------------------------ handshake

    async def _challenged(self) -> None:
        """CHALLENGE: what to sign, and the log's newest head."""
        challenge = await anext(self._incoming, None)
        if challenge is None or challenge.type != MessageType.CHALLENGE:
            raise ProtocolFailure("link: expected a CHALLENGE first")
        document = challenge.json()
        self._nonce = unb64u(document["nonce"], NONCE_LEN)
        self._rotation.heard(document, "link: CHALLENGE")

    async def _introduce(self, offered: list[Epoch]) -> int:
        """HELLO, PROVE, perhaps ACTIVATE, ADMITTED; returns the lease in seconds."""
        await self._send(json_message(HELLO, self._introduction(offered[0])))
        async for message in self._incoming:
            if message.type == MessageType.ADMITTED:
                lease_s = _lease(message.json())
                self._admitted = True
                emit(Event.ADMITTED, lease_s=lease_s)
                self._port.status("admitted", lease_s=lease_s)
                for epoch in offered[1:]:
                    await self.announce(epoch)
                return lease_s
            if message.type == MessageType.REFUSED:
                raise Refused(_reasons(message.json()))
            self._handle(message)
        raise ConnectionError("gateway: closed during the handshake")

    def _introduction(self, epoch: Epoch) -> dict[str, Any]:
        return self._challenges.introduction(epoch, hello_bytes(self._nonce, epoch.bh))

    # ------------------------------------------------------------ messages in

    async def _serve_until_silent(self, lease_s: int) -> None:
        """Handle messages until the gateway closes.

        Every heartbeat is answered with a LEASE, so an admitted worker hears something three times
        in a lease. After a lease of silence the gateway has given its work to others.

        Raises:
            TimeoutError: nothing came for a whole lease.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(lease_s) as lease:
            async for message in self._incoming:
                lease.reschedule(loop.time() + lease_s)
                self._handle(message)

    async def _messages(self) -> AsyncGenerator[Message, None]:
        """Yield messages until the peer closes."""
        while chunk := await self._reader.read(READ_SIZE):
            for message in self._decoder.feed(chunk):
                yield message

    def _handle(self, message: Message) -> None:
        kind = message.type
        if kind == MessageType.JOB and self._admitted:
            self._start(message.rid, message.data)
        elif kind == MessageType.CANCEL:
            session = self._sessions.get(message.rid)
            if session is not None:
                session.cancel()
                emit(Event.CANCELLED, running=len(self._sessions))
        elif kind == MessageType.LOGGED:
            self._logged(message)
        elif kind == MessageType.ACTIVATE:
            _ = self._task(self._activate(message.json()))
        elif kind == MessageType.PROVE:
            _ = self._task(self._prove(message.json()))
        elif kind == MessageType.CHALLENGE_JOB:
            _ = self._task(self._live(message.json()))
        elif kind == MessageType.REFUSED:
            # A later epoch was refused: the ones admitted go on, and the launcher says why.
            emit(Event.REFUSED)
            self._port.status("epoch_refused", reasons=_reasons(message.json()))
        elif kind == MessageType.LEASE:
            self._rotation.heard(message.json(), "link: LEASE")
        elif kind != MessageType.ADMITTED:
            raise ProtocolFailure(f"link: message type {int(kind)} is not for a worker")

    def _start(self, rid: bytes, envelope: bytes) -> None:
        if rid in self._sessions:
            raise ProtocolFailure("link: JOB with the id of a running request")
        session = Session(self._bench, self, rid)
        # A gateway that sends more than it was asked for is told so; nothing is held for it.
        full = len(self._sessions) >= self._bench.config.slots
        self._sessions[rid] = session
        self._idle.clear()
        work = session.turn_away(envelope) if full else session.run(envelope)
        _ = self._task(self._serve(session, rid, work))

    async def _serve(self, session: Session, rid: bytes, work: Coroutine[Any, Any, None]) -> None:
        """Run one session and ask for another one when it has ended."""
        try:
            await work
        except ConnectionError:
            return
        except Exception as error:
            report(error)
            with contextlib.suppress(ConnectionError):
                await self.send_done(rid, session.done("error", NO_USAGE))
        finally:
            self._sessions.pop(rid, None)
            if not self._sessions:
                self._idle.set()
        emit(Event.JOB_DONE, running=len(self._sessions))
        if not self._draining:
            with contextlib.suppress(ConnectionError):
                await self._pull(1)

    def _logged(self, message: Message) -> None:
        future = self._logging.get(message.rid)
        if future is None or future.done():
            return
        document = message.json()
        if "error" in document:
            future.set_exception(ReceiptError("the evidence log refused the event"))
        else:
            future.set_result(document)

    async def _activate(self, question: dict[str, Any]) -> None:
        await self._send(json_message(ACTIVATED, await self._challenges.activate(question)))

    async def _prove(self, question: dict[str, Any]) -> None:
        await self._send(json_message(PROVED, self._challenges.prove(question, self._nonce)))

    async def _live(self, question: dict[str, Any]) -> None:
        await self._send(json_message(CHALLENGE_ANSWER, await self._challenges.live(question)))

    # ------------------------------------------------------------ messages out

    async def _send(self, message: Message) -> None:
        """Write one message; waits while more than the transport's high-water mark is unsent."""
        if self._writer.is_closing():
            raise ConnectionError("gateway: the connection is closed")
        # What one turn of the loop has to say, the tokens of a whole step say, goes out in one
        # system call: each one wakes the gateway, and all streams share this socket.
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(encode(message))
        await self._writer.drain()

    def _flush(self) -> None:
        if self._outgoing and not self._writer.is_closing():
            self._writer.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def _pull(self, amount: int) -> None:
        seq = next(self._numbers)
        sig = self._bench.keyring.sig.sign(pull_bytes(self._nonce, seq, amount))
        await self._send(json_message(PULL, {"n": amount, "seq": seq, "sig": b64u(sig)}))

    async def _heartbeat(self, lease_s: int) -> None:
        while True:
            await asyncio.sleep(lease_s / HEARTBEAT_PART)
            await self._send(json_message(HEARTBEAT, {}))

    def _task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task, keep it until it ends, and report its failure."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionError):
            report(error)

    async def _close(self) -> None:
        """Cancel what runs and close the socket."""
        self._admitted = False
        await self._incoming.aclose()
        for session in list(self._sessions.values()):
            session.cancel()
        for future in self._logging.values():
            if not future.done():
                future.set_exception(ConnectionError("gateway: the connection is closed"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flush()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _lease(document: dict[str, Any]) -> int:
    """Return the lease an ADMITTED message grants, in seconds, within sane bounds."""
    lease = document.get("lease_s")
    if type(lease) is not int:
        raise MalformedError("link: ADMITTED without lease_s")
    return min(max(lease, LEASE_MIN_S), LEASE_MAX_S)


def _reasons(document: dict[str, Any]) -> list[str]:
    """Return the reason codes of a REFUSED message, as text the launcher may print."""
    reasons = document.get("reasons")
    if not isinstance(reasons, list):
        return []
    return [str(item)[:64] for item in reasons[:32]]
