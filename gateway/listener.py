"""Accepts HTTP connections: each has a place before anything is done for it, the TLS handshake too.

The event loop's own listener knows no bound: it accepts until the process has no file left, and
then tries as often in one go as its queue is long, with a line on stderr for each.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from .attributes import Attr
from .journal import Event, Journal
from .seats import Seat, Seats
from .tasks import Tasks

#: Accepted in one turn of the event loop, in which others have something to do as well.
_A_TURN = 16
#: Until it is tried again where the system gave no connection.
_AGAIN_S = 1.0
#: A line about connections that had to give way at most this often.
_SAY_S = 60.0


class Listener:
    """One listening socket of a running event loop."""

    def __init__(
        self,
        sock: socket.socket,
        seats: Seats,
        make: Callable[[Seat], asyncio.Protocol],
        journal: Journal,
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        """Accept from `sock`, which does not block, and have `make` serve what comes."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._seats = seats
        self._make = make
        self._journal = journal
        self._tls = tls
        self._handshake_s = handshake_s
        self._tasks = Tasks()
        self._again: asyncio.TimerHandle | None = None
        self._said: float | None = None
        self.open()

    def open(self) -> None:
        """Begin to accept."""
        self._again = None
        self._loop.add_reader(self._sock, self._accept)

    async def close(self) -> None:
        """Accept no more, and end what has not shaken hands."""
        self._loop.remove_reader(self._sock)
        if self._again is not None:
            self._again.cancel()
        await self._tasks.cancel()

    def _accept(self) -> None:
        for _ in range(_A_TURN):
            try:
                conn, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                # The system has no file or memory for it, and would say so at once again.
                self._journal.write(Event.INTERNAL, level=logging.ERROR, error=error)
                self._loop.remove_reader(self._sock)
                self._again = self._loop.call_later(_AGAIN_S, self.open)
                break
            conn.setblocking(False)
            self._admit(conn)
        self._say()

    def _admit(self, conn: socket.socket) -> None:
        # Until there is a transport, the socket is what can be ended.
        seat = self._seats.take(partial(_hang_up, conn))
        if seat is None:
            conn.close()
        else:
            self._tasks.start(self._serve(conn, seat), self._fail)

    async def _serve(self, conn: socket.socket, seat: Seat) -> None:
        patience = None if self._tls is None else self._handshake_s
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make(seat), conn, ssl=self._tls, ssl_handshake_timeout=patience
            )
        except OSError:  # it left, or what it sent was no TLS
            seat.leave()
        except BaseException:
            seat.leave()
            raise

    def _fail(self, error: BaseException) -> None:
        self._journal.write(Event.INTERNAL, level=logging.ERROR, error=error)

    def _say(self) -> None:
        now = self._loop.time()
        if self._seats.cut and (self._said is None or now - self._said >= _SAY_S):
            fields = {Attr.COUNT: self._seats.cut}
            self._journal.write(Event.CONNECTIONS_CUT, fields, level=logging.WARNING)
            self._said, self._seats.cut = now, 0


def _hang_up(conn: socket.socket) -> None:
    try:
        conn.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has left already
