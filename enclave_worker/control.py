"""Launcher ⇄ worker: JSON messages over a socketpair, gateway connections as passed descriptors.

Message = `u32 len ‖ JSON object` with a member `type`. L = launcher, W = worker:

    L→W CONFIG {worker, read_paths, measured}      first message
    L→W CONN {}            + one descriptor        a fresh connection to the gateway
    L→W EVIDENCE {id, evidence | error}            answers ATTEST: [{kind, body}, …]
    L→W ACTIVATED {id, answer | error}             answers ACTIVATE
    L→W STOP {}                                    drain and end
    W→L STATUS {state, …}                          loading, warming, confined, ready, admitted, …
    W→L NEED_CONN {}                               the worker has no gateway connection
    W→L ATTEST {id, binding}                       evidence for these exact binding bytes
    W→L ACTIVATE {id, credential}                  a gateway's or client's TPM credential
    W→L FAILED {stage, message}                    the worker cannot go on

Nothing a client sent travels here, in either direction: the launcher is outside the sandbox.
"""

import json
import os
import socket
import struct
from collections import deque
from typing import Any

from wire.errors import ConfigError, ProtocolFailure

# A CONFIG carries a service policy, an EVIDENCE the certificates and reports of up to sixteen GPUs,
# which are half a megabyte in base64: both far below this.
MESSAGE_MAX = 4 * 1024 * 1024
# Descriptors are sent one by one; a peer that sends more is broken, so no more are accepted.
FDS_MAX = 4
READ_SIZE = 65536

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """Frame one message; `message["type"]` names it."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MESSAGE_MAX:
        raise ConfigError(f"control message: found {len(body)} bytes, expected ≤ {MESSAGE_MAX}")
    return struct.pack(">I", len(body)) + body


class ControlSocket:
    """One end of the channel. Not thread-safe for reading; `send` may be called by one owner.

    The same class serves the launcher (blocking, in its own thread) and the worker (non-blocking,
    woken by the event loop): `receive_ready` takes what is there, `receive` waits for one message.
    """

    def __init__(self, sock: socket.socket, *, takes_fds: bool = False) -> None:
        """Take ownership of a connected stream socket of the Unix family.

        `takes_fds` is for the worker's end. The launcher's takes none, so that a worker cannot
        fill the launcher's table of descriptors: the kernel closes what is sent to it.
        """
        self._sock = sock
        self._takes_fds = takes_fds
        self._buffer = bytearray()
        self._messages: deque[Message] = deque()
        self._fds: deque[int] = deque()
        self.closed = False

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self._sock.fileno()

    def send(self, message: Message, fd: int | None = None) -> None:
        """Send one message, waiting for room; `fd`, if given, rides on its first byte."""
        data = memoryview(encode(message))
        if fd is not None:
            sent = socket.send_fds(self._sock, [data], [fd])
            data = data[sent:]
        self._sock.sendall(data)

    def receive(self) -> Message | None:
        """Wait for the next message; None when the other end has closed."""
        while not self._messages:
            if self.closed:
                return None
            self._read()
        return self._messages.popleft()

    def receive_ready(self) -> list[Message]:
        """Read once (the socket is known to be readable) and return every complete message."""
        self._read()
        messages = list(self._messages)
        self._messages.clear()
        return messages

    def take_fd(self) -> int:
        """Return the descriptor that came with a CONN message; the caller owns it."""
        if not self._fds:
            raise ProtocolFailure("control: found CONN without a descriptor, expected one")
        return self._fds.popleft()

    def close(self) -> None:
        """Close the socket and every descriptor nobody took."""
        self.closed = True
        while self._fds:
            os.close(self._fds.popleft())
        self._sock.close()

    def _read(self) -> None:
        try:
            if self._takes_fds:
                data, fds, _flags, _address = socket.recv_fds(self._sock, READ_SIZE, FDS_MAX)
                self._fds.extend(fds)
            else:
                data = self._sock.recv(READ_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        self._buffer += data
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from(">I", self._buffer)
            if length > MESSAGE_MAX:
                raise ProtocolFailure(f"control: found length {length}, expected ≤ {MESSAGE_MAX}")
            if len(self._buffer) < 4 + length:
                return
            try:
                message = json.loads(bytes(self._buffer[4 : 4 + length]))
            except (ValueError, RecursionError):
                raise ProtocolFailure("control: expected JSON, found something else") from None
            del self._buffer[: 4 + length]
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                raise ProtocolFailure("control: expected a JSON object with a string member type")
            self._messages.append(message)
