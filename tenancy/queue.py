"""The queue of sealed requests waiting for a worker that can open them: first come, first served.

A ticket is metadata only. The queue is pure: no clock, no I/O, no locks (one event loop uses it).
Caps are checked per tenant first, so the global cap is never one tenant's weapon against another.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Requests one tenant may have waiting: more is a burst its own client should pace.
TENANT_REQUESTS_MAX = 256
#: Ciphertext bytes one tenant may have waiting.
TENANT_BYTES_MAX = 64 * 1024 * 1024
#: Requests waiting in all: bounds the gateway's memory and the time of a scan.
GLOBAL_REQUESTS_MAX = 4096
# Below this, rebuilding a heap costs more than the entries it would free.
SPARE_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Ticket:
    """One waiting request.

    Attributes:
        rid: request id, 16 bytes, unique among waiting tickets.
        tenant: who pays.
        kids: key ids (32 bytes each) that can still open it.
        size: ciphertext bytes held for it.
        expires: Unix seconds after which nobody wants the answer.
        order: place in line; given by the queue, kept when the ticket returns to it.
    """

    rid: bytes
    tenant: str
    kids: frozenset[bytes]
    size: int
    expires: int
    order: int = -1


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of a queue; defaults as in the constants above."""

    tenant_requests: int = TENANT_REQUESTS_MAX
    tenant_bytes: int = TENANT_BYTES_MAX
    global_requests: int = GLOBAL_REQUESTS_MAX


class QueueFullError(Exception):
    """A cap was reached. `tenant_cap` tells the tenant's own cap from the global one."""

    def __init__(self, *, tenant_cap: bool) -> None:
        """Name the cap without its numbers: they would tell about other tenants' load."""
        super().__init__("the tenant's queue is full" if tenant_cap else "the queue is full")
        self.tenant_cap = tenant_cap


@dataclass(slots=True)
class _Load:
    requests: int = 0
    size: int = 0


@dataclass(slots=True)
class Queue:
    """First-come order with an index by key id: finding the next ticket for a worker is O(log n).

    Each key id has a heap of (order, rid). Entries of removed tickets are skipped lazily; a heap is
    rebuilt when most of it is such entries and dropped when it runs empty.
    """

    caps: Caps = field(default_factory=Caps)
    _tickets: dict[bytes, Ticket] = field(default_factory=dict)
    _by_kid: dict[bytes, list[tuple[int, bytes]]] = field(default_factory=dict)
    _load: dict[str, _Load] = field(default_factory=dict)
    _next: int = 0

    def __len__(self) -> int:
        """Waiting tickets."""
        return len(self._tickets)

    def __contains__(self, rid: object) -> bool:
        """Whether a ticket of this rid waits."""
        return rid in self._tickets

    def put(self, ticket: Ticket) -> Ticket:
        """Add a ticket: at the end, or at its old place when it was in line before.

        A ticket that returns (its worker was lost) is not refused by the caps: it was counted
        when it first came, and refusing it now would punish the tenant for the worker's failure.

        Returns:
            The ticket with its place in line.

        Raises:
            QueueFullError: a cap is reached.
            ValueError: the rid is waiting already, or the ticket names no key.
        """
        if ticket.rid in self._tickets or not ticket.kids:
            msg = "a ticket needs a fresh rid and at least one kid"
            raise ValueError(msg)
        load = self._load.get(ticket.tenant, _Load())
        if ticket.order < 0:
            if (
                load.requests >= self.caps.tenant_requests
                or load.size + ticket.size > self.caps.tenant_bytes
            ):
                raise QueueFullError(tenant_cap=True)
            if len(self._tickets) >= self.caps.global_requests:
                raise QueueFullError(tenant_cap=False)
            ticket = Ticket(
                ticket.rid, ticket.tenant, ticket.kids, ticket.size, ticket.expires, self._next
            )
            self._next += 1
        load.requests += 1
        load.size += ticket.size
        self._load[ticket.tenant] = load
        self._tickets[ticket.rid] = ticket
        for kid in ticket.kids:
            heapq.heappush(self._by_kid.setdefault(kid, []), (ticket.order, ticket.rid))
        return ticket

    def pop_for(self, kids: Iterable[bytes], now: int) -> Ticket | None:
        """Take the earliest unexpired ticket that one of `kids` can open.

        Expired tickets are passed over, not removed: their owner removes them and answers.

        Args:
            kids: key ids the asking worker holds.
            now: Unix seconds.
        """
        best: Ticket | None = None
        for kid in kids:
            found = self._head(kid, now)
            if found is not None and (best is None or found.order < best.order):
                best = found
        if best is not None:
            self.remove(best.rid)
        return best

    def remove(self, rid: bytes) -> Ticket | None:
        """Take the ticket of `rid` out, wherever it stands."""
        ticket = self._tickets.pop(rid, None)
        if ticket is None:
            return None
        load = self._load[ticket.tenant]
        load.requests -= 1
        load.size -= ticket.size
        if not load.requests:
            del self._load[ticket.tenant]
        for kid in ticket.kids:
            self._trim(kid)
        return ticket

    def waiting(self) -> tuple[Ticket, ...]:
        """All waiting tickets, in no particular order."""
        return tuple(self._tickets.values())

    def _live(self, kid: bytes, entry: tuple[int, bytes]) -> Ticket | None:
        """The ticket of a heap entry, unless it left or came back without this kid."""
        ticket = self._tickets.get(entry[1])
        alive = ticket is not None and ticket.order == entry[0] and kid in ticket.kids
        return ticket if alive else None

    def _trim(self, kid: bytes) -> None:
        heap = self._by_kid.get(kid)
        # One ticket that waits at the head would otherwise keep every entry behind it for ever.
        if heap is not None and len(heap) > 2 * len(self._tickets) + SPARE_ENTRIES:
            heap[:] = [entry for entry in heap if self._live(kid, entry) is not None]
            heapq.heapify(heap)
        while heap and self._live(kid, heap[0]) is None:
            heapq.heappop(heap)
        if heap is not None and not heap:
            del self._by_kid[kid]

    def _head(self, kid: bytes, now: int) -> Ticket | None:
        """The earliest unexpired ticket for one kid; expired heads are looked past."""
        self._trim(kid)
        heap = self._by_kid.get(kid, [])
        if not heap:
            return None
        first = self._live(kid, heap[0])
        if first is not None and now < first.expires:
            return first
        alive = (self._live(kid, entry) for entry in heap)
        fitting = [ticket for ticket in alive if ticket is not None and now < ticket.expires]
        return min(fitting, key=lambda ticket: ticket.order, default=None)
