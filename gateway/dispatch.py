"""Which worker gets which request, and what happens when it cannot answer.

An envelope is released only to a worker with a live lease, an authenticated pull and one of the
request's keys. Until the first response byte a request moves on to its next candidate when a worker
is busy, does not know the key, or is lost; after that byte it never does: the client may have read
what was sent. When no candidate is left, the client is asked for new wraps and the ciphertext stays
for a while. Everything here runs in one event loop, so nothing is locked.
"""

import dataclasses
import logging
from functools import partial
from typing import Any

from tenancy.queue import Queue, QueueFullError
from wire.errors import MalformedError, ProtocolFailure
from wire.link import BYTES, CANCEL, DONE, JOB, NOTICE, Message, raw_message
from wire.notice import RETRY_CODES, verify_notice

from .candidates import Candidates
from .clock import Clock
from .errors import NOTICE_FAULTS, Fault, Refusal
from .exchange import Exchange, State
from .journal import Event, Journal
from .session import Session
from .tasks import Tasks

#: Re-wrapping takes a directory refresh and one round trip; longer means the client is gone.
REWRAP_WAIT_S = 60.0
#: A worker stops within a step of its engine; one that never says so is not waited for longer.
CANCEL_WAIT_S = 60.0


class Dispatcher:
    """Owns the requests in flight.

    Args:
        candidates: the workers that could take a request.
        queue: requests waiting.
        clock: time.
        journal: hears of what should not happen.
        response_max: response bytes kept for one slow reader before its stream is cut.
    """

    def __init__(
        self,
        candidates: Candidates,
        queue: Queue,
        clock: Clock,
        journal: Journal,
        *,
        response_max: int,
    ) -> None:
        """Begin with nothing in flight."""
        self._candidates = candidates
        self._queue = queue
        self._clock = clock
        self._journal = journal
        self._response_max = response_max
        self._exchanges: dict[bytes, Exchange] = {}
        self._held: dict[Session, dict[bytes, Exchange]] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._exchanges)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def in_flight(self, rid: bytes) -> bool:
        """Whether a request of this id is here."""
        return rid in self._exchanges

    # ------------------------------------------------------------------ from HTTP

    def submit(self, exchange: Exchange) -> None:
        """Put a checked request in line, or give it to a worker at once.

        Raises:
            Refusal: its id is in flight, a key is unknown, or a cap is reached.
        """
        if exchange.rid in self._exchanges:
            raise Refusal(Fault.DUPLICATE)
        self._candidates.check(exchange.kids)
        try:
            exchange.ticket = self._queue.put(exchange.first_ticket())
        except QueueFullError as error:
            if error.tenant_cap:
                raise Refusal(Fault.QUOTA, retry_after=5) from error
            raise Refusal(Fault.QUEUE_FULL, retry_after=2) from error
        self._exchanges[exchange.rid] = exchange
        exchange.trace.queued()
        self._place(exchange)

    def rewrap(self, rid: bytes, tenant: str, body: bytes) -> Exchange:
        """Continue a request with new wraps.

        Steps: 1 the request is this tenant's (another does not learn that it exists). 2 it waits
        for wraps. 3 the wraps are well formed, and no more than eight keys in all. 4 the keys are
        known.

        Raises:
            Refusal: a step fails; the request keeps waiting.
        """
        exchange = self._exchanges.get(rid)
        # 1
        if exchange is None or exchange.tenant != tenant:
            raise Refusal(Fault.NOT_FOUND, "no request of this id waits for wraps")
        # 2
        if exchange.state is not State.REWRAP or exchange.ticket is None:
            raise Refusal(Fault.DUPLICATE, "the request does not wait for wraps")
        # 3
        wraps = exchange.parse_rewrap(body)
        kids = {wrap.kid for wrap in wraps}
        # 4
        self._candidates.check(kids)
        exchange.forget_at = None
        exchange.resume(wraps)
        exchange.trace.rewrapped(exchange.rewraps)
        exchange.state = State.QUEUED
        exchange.ticket = self._queue.put(
            dataclasses.replace(exchange.ticket, kids=frozenset(kids))
        )
        self._place(exchange)
        return exchange

    def cancel(self, exchange: Exchange) -> None:
        """The client went away: the worker is told to stop."""
        if exchange.state is State.ENDED or exchange.cancelled:
            return
        exchange.cancelled = True
        exchange.trace.ended("cancelled", "cancelled")
        exchange.close(complete=False)
        if exchange.session is None:
            self._drop(exchange)
        else:
            # It stays known until the worker says DONE: its receipt is still owed to the log.
            exchange.forget_at = self._clock.monotonic() + CANCEL_WAIT_S
            exchange.session.send(raw_message(CANCEL, exchange.rid))
            self._forget(exchange)

    # ------------------------------------------------------------------ from workers

    def held(self, session: Session, rid: bytes) -> Exchange | None:
        """The request of this id that this worker has."""
        return self._held.get(session, {}).get(rid)

    def pump(self, session: Session) -> None:
        """Give a worker what it asked for."""
        now = self._clock.wall()
        while session.can_take(self._clock.monotonic()):
            kids = session.takes(now)
            ticket = self._queue.pop_for(kids, now)
            if ticket is None:
                return
            self._release(self._exchanges[ticket.rid], session)

    def receive(self, session: Session, message: Message) -> None:
        """Take BYTES, NOTICE or DONE from a worker.

        Raises:
            MalformedError: the message does not fit the request's state; the link is closed.
        """
        exchange = self.held(session, message.rid)
        if exchange is None:
            return  # it ended here while the message was under way
        if message.type == BYTES:
            self._bytes(exchange, message.data)
        elif message.type == NOTICE:
            self._notice(exchange, session, message.json())
        elif message.type == DONE:
            self._done(exchange, session, message.json())

    def lost(self, session: Session, cause: str) -> None:
        """A worker's session ended: move its requests on, or cut their streams."""
        for exchange in list(self._held.pop(session, {}).values()):
            self._take_back(exchange)
            if exchange.cancelled:
                self._drop(exchange)
            elif exchange.state is State.STREAMING:
                self._cut(exchange)
            else:
                self._retry_unless_acted_on(exchange, cause)
        self.check_waiting()

    def cut(self, exchange: Exchange, refusal: Refusal | None = None) -> None:
        """End an exchange without its end: no receipt could be made durable, or we failed.

        Args:
            refusal: the answer where no byte is out yet; `no_worker` unless another is given.
        """
        if exchange.session is not None:
            exchange.session.send(raw_message(CANCEL, exchange.rid))
        if exchange.state is State.STREAMING:
            self._cut(exchange)
        elif exchange.state is not State.ENDED:
            self._refuse(exchange, refusal or Refusal(Fault.NO_WORKER, retry_after=10))

    # ------------------------------------------------------------------ from time

    def check_waiting(self) -> None:
        """Refuse what expired, and what waits for workers that are not there any more."""
        now = self._clock.wall()
        for ticket in self._queue.waiting():
            exchange = self._exchanges[ticket.rid]
            if now >= ticket.expires:
                self._refuse(exchange, Refusal(Fault.EXPIRED))
            elif self._candidates.gone(ticket.kids):
                self._exhausted(exchange)
        monotonic = self._clock.monotonic()
        for exchange in list(self._exchanges.values()):
            if exchange.forget_at is not None and monotonic >= exchange.forget_at:
                self._drop(exchange)

    async def close(self) -> None:
        """Cut everything: the process ends."""
        for exchange in list(self._exchanges.values()):
            self.cut(exchange)
            self._drop(exchange)
        await self._tasks.settle()

    # ------------------------------------------------------------------ inside

    def _place(self, exchange: Exchange) -> None:
        """Release at once to the candidate with the most room, if any has room."""
        ticket = exchange.ticket
        assert ticket is not None
        session = self._candidates.readiest(ticket.kids)
        if session is not None:
            self._queue.remove(exchange.rid)
            self._release(exchange, session)
        elif self._candidates.gone(ticket.kids):
            self._exhausted(exchange)

    def _release(self, exchange: Exchange, session: Session) -> None:
        """Give a request to a worker that holds one of its keys.

        A request may be wrapped to two keys of one worker (old and new, while they rotate). The
        worker opens the first wrap it can; its other one is no further candidate.
        """
        ticket, held = exchange.ticket, session.kids(self._clock.wall())
        assert ticket is not None
        session.credits -= 1
        self._held.setdefault(session, {})[exchange.rid] = exchange
        exchange.session, exchange.state, exchange.receipt_seen = session, State.RELEASED, False
        exchange.kid = next((wrap.kid for wrap in exchange.wraps if wrap.kid in held), b"")
        exchange.ticket = dataclasses.replace(ticket, kids=ticket.kids - held)
        exchange.trace.released(session.newest.bh)
        self._tasks.start(
            self._send_job(exchange, session), partial(self._unsent, exchange, session)
        )

    async def _send_job(self, exchange: Exchange, session: Session) -> None:
        try:
            data = await exchange.envelope()
        except OSError:
            # Removed while it was read (the request ended), or the disk failed.
            if exchange.session is session and not exchange.cancelled:
                self.cut(exchange)
                self._not_taken(session)
                return
            data = b""
        if exchange.session is not session:
            return
        if exchange.cancelled:
            self._drop(exchange)
            self._not_taken(session)
        elif session.takes(self._clock.wall()).isdisjoint(wrap.kid for wrap in exchange.wraps):
            # Its key was refused, or the verdict on it ended, while this was read.
            self._take_back(exchange)
            self._retry(exchange, "refused")
            self._not_taken(session)
        else:
            session.send(raw_message(JOB, exchange.rid, data))

    def _unsent(self, exchange: Exchange, session: Session, error: BaseException) -> None:
        """The envelope could not be given to its worker, and no other would fare better."""
        self._report(error)
        if exchange.session is session:
            self.cut(exchange, Refusal(Fault.INTERNAL))
            self._not_taken(session)

    def _not_taken(self, session: Session) -> None:
        """The worker never heard of a request that used up one of its credits."""
        session.credits += 1
        self.pump(session)

    def _bytes(self, exchange: Exchange, data: bytes) -> None:
        if exchange.cancelled:
            return
        if exchange.state is State.RELEASED:
            exchange.state = State.STREAMING
            exchange.trace.first_byte()
            # Never retried from here on: the ciphertext has done its work.
            self._forget(exchange)
        exchange.feed(data)
        if exchange.buffered > self._response_max:
            assert exchange.session is not None
            exchange.session.send(raw_message(CANCEL, exchange.rid))
            self._cut(exchange)

    def _notice(self, exchange: Exchange, session: Session, document: dict[str, Any]) -> None:
        if exchange.state is not State.RELEASED:
            raise MalformedError("notice: expected before the first response byte")
        # A worker that dropped the key asked for signs with the name of one it still has.
        kids = exchange.kids | session.kids(self._clock.wall())
        try:
            code = verify_notice(document, session.sig_pk, exchange.rid, exchange.th, kids)
        except ProtocolFailure as error:
            raise MalformedError(error.message) from error
        self._take_back(exchange)
        if exchange.cancelled:
            self._drop(exchange)
        elif code in RETRY_CODES:
            self._retry(exchange, code)
        else:
            self._refuse(exchange, Refusal(NOTICE_FAULTS[code], notice=document))

    def _done(self, exchange: Exchange, session: Session, document: dict[str, Any]) -> None:
        usage = session.usage(exchange.rid, document)
        exchange.trace.usage(usage.get("in"), usage.get("out"), document["finish"])
        self._take_back(exchange)
        if exchange.cancelled:
            self._drop(exchange)
        elif exchange.state is State.STREAMING:
            exchange.trace.ended("completed")
            exchange.close(complete=True)
            self._drop(exchange)
        else:
            self._retry_unless_acted_on(exchange, "protocol")

    def _take_back(self, exchange: Exchange) -> None:
        if exchange.session is not None:
            self._held.get(exchange.session, {}).pop(exchange.rid, None)
            exchange.session = None

    def _retry_unless_acted_on(self, exchange: Exchange, cause: str) -> None:
        """The worker may have acted on it: only the client can decide to send it again."""
        if exchange.header.retry == "never":
            self._refuse(exchange, Refusal(Fault.NO_WORKER, "the worker was lost"))
        else:
            self._retry(exchange, cause)

    def _retry(self, exchange: Exchange, cause: str) -> None:
        assert exchange.ticket is not None
        if not exchange.ticket.kids:
            self._exhausted(exchange)
            return
        exchange.trace.retried(cause)
        exchange.state = State.QUEUED
        exchange.ticket = self._queue.put(exchange.ticket)
        self._place(exchange)

    def _exhausted(self, exchange: Exchange) -> None:
        self._queue.remove(exchange.rid)
        if not exchange.rewrappable:
            self._refuse(exchange, Refusal(Fault.NO_WORKER, retry_after=5))
            return
        exchange.state = State.REWRAP
        left = min(REWRAP_WAIT_S, exchange.expires - self._clock.wall())
        exchange.forget_at = self._clock.monotonic() + left
        exchange.fail(Refusal(Fault.REWRAP_NEEDED))

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        exchange.trace.ended("refused", refusal.fault.word)
        exchange.fail(refusal)
        self._drop(exchange)

    def _cut(self, exchange: Exchange) -> None:
        exchange.trace.ended("truncated", "truncated")
        exchange.close(complete=False)
        self._take_back(exchange)
        self._drop(exchange)

    def _drop(self, exchange: Exchange) -> None:
        self._take_back(exchange)
        exchange.state = State.ENDED
        exchange.trace.ended("rewrap_needed", "rewrap_needed")
        self._queue.remove(exchange.rid)
        self._exchanges.pop(exchange.rid, None)
        self._forget(exchange)

    def _forget(self, exchange: Exchange) -> None:
        """Remove its ciphertext. A file that cannot be is swept at the next start."""
        self._tasks.start(exchange.entry.remove(), self._report)

    def _report(self, error: BaseException) -> None:
        self._journal.write(Event.INTERNAL, level=logging.ERROR, error=error)
