"""What a link writes to its worker, and what becomes of it when the worker does not read.

Jobs are bounded by credits, questions by their number. Answers are made as fast as a worker asks,
so one that asks and reads nothing is ended before what waits for it fills the memory.
"""

import asyncio
from dataclasses import dataclass

from wire.link import Message, encode

#: Answers that may wait. The backlog is looked at whenever one is due; while it is short, they cost
#: nothing and none counts.
REPLIES_MAX = 1024
BACKLOG_SHORT = 65_536
#: Time for the last bytes to leave after the connection was closed, in seconds.
LINGER_S = 5.0


@dataclass(slots=True, eq=False)
class Outbound:
    """The writing half of one link.

    Args:
        linger_s: how long `close` waits for a peer that still reads.
    """

    writer: asyncio.StreamWriter
    linger_s: float = LINGER_S
    _replies: int = 0

    def send(self, message: Message) -> None:
        """Write one message. Not awaited: what waits is bounded by the credits and the lease."""
        if not self.writer.is_closing():
            self.writer.write(encode(message))

    def reply(self, message: Message) -> bool:
        """Answer a worker; False if it asks and asks and reads no answer."""
        waits = self.writer.transport.get_write_buffer_size() > BACKLOG_SHORT
        self._replies = self._replies + 1 if waits else 0
        if self._replies > REPLIES_MAX:
            return False
        self.send(message)
        return True

    def close(self, *, jobs: bool) -> None:
        """End the connection.

        Args:
            jobs: whether what is left may hold any. Then nothing of it goes out: they are others'
                by now, and this worker may be denied, or its keys refused, while they wait here.
        """
        self.writer.close()
        if not self.writer.transport.get_write_buffer_size():
            return
        if jobs:
            self.writer.transport.abort()
        else:
            asyncio.get_running_loop().call_later(self.linger_s, self._give_up)

    def _give_up(self) -> None:
        """Drop what the peer has not read; a transport that has ended by itself takes no abort."""
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()
