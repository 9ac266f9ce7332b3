"""HTTP connections: how many there may be, and which gives way where no place is free.

Whoever may connect can hold connections. All a stranger needs to hold one is to open it, so what
strangers hold is what gives way, the oldest first: to sit still gains nothing, and whoever comes to
ask has as long as it takes that many others to come.
"""

from collections.abc import Callable

#: Of all places, how many strangers have before tenants' connections that rest give way to them:
#: a tenant that comes is a stranger until its request is here.
_SHARE = 4
#: Bytes of answers that strangers have not taken, of all together: a document about a node of
#: sixteen GPUs has two MiB, and anybody may ask for it on every connection.
UNSENT_MAX = 64 * 1024 * 1024


class Seats:
    """The places for HTTP connections, in the order in which they give way.

    Attributes:
        cut: how many had to give way, or found no place.
    """

    def __init__(self, most: int) -> None:
        """Offer `most` places."""
        self._most = most
        self._strangers: dict[Seat, None] = {}
        self._resting: dict[Seat, None] = {}
        self._asking: set[Seat] = set()
        self._owing: set[Seat] = set()
        self.cut = 0

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._strangers) + len(self._resting) + len(self._asking)

    def take(self, end: Callable[[], None]) -> "Seat | None":
        """A place for a new connection that `end` would close at once.

        None where every place is a tenant's that waits for its answer: those give way to nobody.
        """
        if len(self) >= self._most:
            self.cut += 1
            oldest = self._oldest()
            if oldest is None:
                return None
            oldest.leave()
            oldest.end()
        seat = Seat(self, end)
        self._strangers[seat] = None
        return seat

    def _oldest(self) -> "Seat | None":
        """Of whoever has to give way, the one that came, or rests, longest."""
        found = next(iter(self._strangers), None)
        if len(self._strangers) > self._most // _SHARE:
            return found
        return next((seat for seat in self._resting if not seat.unsent()), found)

    def _owe(self, seat: "Seat") -> None:
        """A stranger does not take its answer as fast as it is made."""
        self._owing.add(seat)
        sizes = {owing: owing.unsent() for owing in self._owing}
        self._owing = {owing for owing, size in sizes.items() if size}
        left = sum(sizes.values())
        for most in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if left <= UNSENT_MAX:
                return
            left -= sizes[most]
            self.cut += 1
            most.leave()
            most.end()

    def _move(self, seat: "Seat", *, asking: bool) -> None:
        self._forget(seat)
        if asking:
            self._asking.add(seat)
        else:
            self._resting[seat] = None

    def _forget(self, seat: "Seat") -> None:
        self._strangers.pop(seat, None)
        self._resting.pop(seat, None)
        self._asking.discard(seat)
        self._owing.discard(seat)


class Seat:
    """One connection's place.

    Attributes:
        end: closes the connection at once.
        unsent: bytes of an answer that the connection has not taken yet.
        known: whether a valid credential came over it.
    """

    __slots__ = ("_left", "_seats", "end", "known", "unsent")

    def __init__(self, seats: Seats, end: Callable[[], None]) -> None:
        """A stranger's, until it `ask`s."""
        self._seats = seats
        self._left = False
        self.end = end
        self.unsent: Callable[[], int] = int
        self.known = False

    def ask(self) -> None:
        """A request with a valid credential is here."""
        self.known = True
        if not self._left:
            self._seats._move(self, asking=True)  # noqa: SLF001 its own

    def owe(self) -> None:
        """More of an answer waits than the connection takes; tenants' have a bound of their own."""
        if not self.known and not self._left:
            self._seats._owe(self)  # noqa: SLF001 its own

    def rest(self) -> None:
        """What it asked is answered; a stranger stays where it is, however much it asks."""
        if self.known and not self._left:
            self._seats._move(self, asking=False)  # noqa: SLF001 its own

    def leave(self) -> None:
        """The connection ended; harmless when repeated."""
        self._left = True
        self._seats._forget(self)  # noqa: SLF001 its own
