"""One sealed request from admission to the end of its answer, between HTTP and the worker link.

The HTTP side awaits `first()` and iterates `chunks()`; the worker side calls `feed`, `fail`,
`close` and, after a re-wrap, `resume`. Response bytes are passed on unparsed: not ours to read.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum

from tenancy.queue import Ticket
from wire.envelope import parse_envelope
from wire.errors import EnvelopeError
from wire.header import PING, RequestHeader
from wire.limits import CLOCK_SKEW_S, K_MAX, REWRAPS_MAX
from wire.wraps import Wrap, parse_wraps

from .errors import Fault, Refusal
from .request_trace import RequestTrace
from .session import Session
from .spool import Entry


class State(Enum):
    """Where a request stands."""

    QUEUED = "queued"
    RELEASED = "released"  # a worker has it, no response byte yet: may still be retried
    STREAMING = "streaming"  # the first byte is out: never retried
    REWRAP = "rewrap"  # all candidates are lost; the client may send new wraps
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Exchange:
    """State of one request.

    Attributes:
        rid, tenant: who asked; a re-wrap must come from the same tenant.
        header, th: the clear header and its hash.
        wraps: present candidates; `kids` are all there ever were.
        rewrapped: whether `wraps` are not those in the spooled envelope.
        ticket: its place in line; once a worker has it, the candidates that are left.
        kid: the key the worker that has it is expected to open it with; its receipt says which.
        forget_at: monotonic seconds after which nobody is expected to speak of it any more.
    """

    rid: bytes
    tenant: str
    header: RequestHeader
    th: bytes
    wraps: tuple[Wrap, ...]
    entry: Entry
    trace: RequestTrace
    expires: int
    kids: set[bytes] = field(default_factory=set)
    rewraps: int = 0
    rewrapped: bool = False
    state: State = State.QUEUED
    ticket: Ticket | None = None
    session: Session | None = None
    kid: bytes = b""
    forget_at: float | None = None
    receipt_seen: bool = False
    cancelled: bool = False
    complete: bool = False
    buffered: int = 0
    _first: "asyncio.Future[None]" = field(default_factory=asyncio.Future)
    _chunks: list[bytes] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    def __post_init__(self) -> None:
        """Start with the candidates of the envelope."""
        self.kids.update(wrap.kid for wrap in self.wraps)

    @property
    def rewrappable(self) -> bool:
        """Whether new wraps could continue it. A ping is about one key: another proves nothing."""
        room = self.rewraps < REWRAPS_MAX and len(self.kids) < K_MAX
        return room and self.header.op != PING

    def first_ticket(self) -> Ticket:
        """What stands in line for it at first: every candidate of the envelope."""
        return Ticket(
            rid=self.rid,
            tenant=self.tenant,
            kids=frozenset(self.kids),
            size=self.entry.size,
            expires=self.expires,
        )

    def parse_rewrap(self, body: bytes) -> tuple[Wrap, ...]:
        """The wraps in `body`, if they may continue this request.

        Raises:
            Refusal: they are not well formed, or its keys would be more than eight in all.
        """
        try:
            wraps = parse_wraps(body, self.header.suite)
        except EnvelopeError as error:
            raise Refusal(Fault.BAD_ENVELOPE, error.message) from error
        if len(self.kids.union(wrap.kid for wrap in wraps)) > K_MAX:
            raise Refusal(Fault.BAD_ENVELOPE, f"at most {K_MAX} keys for one request")
        return wraps

    async def envelope(self) -> bytes:
        """What a worker is to get: the spooled envelope, with the present wraps.

        Empty when the request ended while it was read.

        Raises:
            OSError: the file was removed meanwhile, or the disk failed.
            EnvelopeError: the disk does not hold what was written.
        """
        data = await self.entry.read()
        return parse_envelope(data).encode(self.wraps) if self.rewrapped and data else data

    async def first(self) -> None:
        """Wait for the first response byte.

        Raises:
            Refusal: there will be none; this is the answer instead.
        """
        await asyncio.shield(self._first)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Response bytes as they come, joined when several wait."""
        while True:
            if self._chunks:
                data = b"".join(self._chunks)
                self._chunks.clear()
                self.buffered = 0
                yield data
            elif self._closed:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def feed(self, data: bytes) -> None:
        """Pass response bytes on; the first ones settle `first()`."""
        if not self._first.done():
            self._first.set_result(None)
        self._chunks.append(data)
        self.buffered += len(data)
        self._wake.set()

    def fail(self, refusal: Refusal) -> None:
        """There is no response: answer with a problem."""
        if not self._first.done():
            self._first.set_exception(refusal)
            # The client may be gone, and then nobody awaits this.
            self._first.exception()

    def close(self, *, complete: bool) -> None:
        """No more bytes will come. Not complete: the stream is cut where it stands."""
        self.complete = complete
        self._closed = True
        self._wake.set()

    def resume(self, wraps: tuple[Wrap, ...]) -> None:
        """Continue with new candidates after a re-wrap; a new `first()` begins."""
        self.wraps = wraps
        self.kids.update(wrap.kid for wrap in wraps)
        self.rewraps += 1
        self.rewrapped = True
        self._first = asyncio.get_running_loop().create_future()


def queue_deadline(expires: int) -> int:
    """When a request stops waiting: its own end, with the tolerance clocks are given elsewhere."""
    return expires + CLOCK_SKEW_S
