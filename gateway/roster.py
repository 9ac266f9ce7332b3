"""Who comes and goes: what admission, loss and new keys change in the rest of the gateway."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from attestation.binding import Beacon
from wire.errors import AnchorholdError

from .admission import Admission, NotAdmitted
from .attributes import Attr, digest_text
from .clock import Clock
from .dispatch import Dispatcher
from .journal import Event, Journal
from .ledger import Ledger
from .metrics import Metric
from .registry import Registry
from .session import Epoch, Session
from .telemetry import Telemetry

#: Ends a worker's connection with a cause.
End = Callable[[str], None]


@dataclass(slots=True)
class Roster:
    """The one place that changes the registry, and tells those who must know.

    Args:
        name: how the gateway introduces itself to workers.
        changed: called when the directory no longer says what is so.
        beacon: the log prefix that new bindings should name.
    """

    name: str
    lease_s: int
    hello_deadline_s: float
    admission: Admission
    dispatcher: Dispatcher
    registry: Registry
    ledger: Ledger
    telemetry: Telemetry
    journal: Journal
    clock: Clock
    changed: Callable[[], None]
    beacon: Callable[[], Beacon | None]
    _ends: dict[Session, End] = field(default_factory=dict)

    def __len__(self) -> int:
        """Admitted workers with a connection."""
        return len(self._ends)

    def beacon_json(self) -> dict[str, str | int] | None:
        """The beacon as CHALLENGE and LEASE carry it; None while nothing is published."""
        beacon = self.beacon()
        return None if beacon is None else beacon.to_json()

    def lease_end(self) -> float:
        """When a lease renewed now ends, in monotonic seconds."""
        return self.clock.monotonic() + self.lease_s

    def clash(self, epoch: Epoch, session: Session | None) -> str | None:
        """Why a worker that was accepted cannot be taken all the same; a reason code.

        Args:
            epoch: what was accepted.
            session: whose new keys it is; None for a first HELLO.
        """
        if self.registry.taken(epoch):
            return "kid_in_use"
        if session is None and not self.replace(epoch):
            return "wid_in_use"
        return None

    def replace(self, epoch: Epoch) -> bool:
        """Make room for a worker that reconnects; False when its name is another's.

        The same process may come back before we noticed that it left. Another process must not
        push a live worker out by using its name.
        """
        binding = epoch.appraised.binding
        other = self.registry.sessions.get(binding.wid)
        if other is None:
            return True
        if other.sig_pk != binding.sig_pk and self.clock.monotonic() < other.lease_until:
            return False
        self._ends[other]("replaced")
        self.lost(other, "replaced")
        return True

    def joined(self, session: Session, end: End) -> None:
        """A worker was admitted."""
        self._ends[session] = end
        self.registry.add(session)
        self._admitted(session.newest)

    def new_keys(self, session: Session, epoch: Epoch) -> None:
        """An admitted worker has new keys."""
        self.registry.add_epoch(session, epoch)
        self._admitted(epoch)
        self.dispatcher.pump(session)

    def refused(self, verdict: NotAdmitted) -> None:
        """A worker, or its new keys, did not meet the policy."""
        self.journal.write(
            Event.WORKER_REFUSED,
            {Attr.BINDING: digest_text(verdict.bh), Attr.REASON: verdict.reasons[0]},
            level=logging.WARNING,
        )

    def renew(self, session: Session) -> None:
        """A worker showed that it is alive."""
        session.lease_until = self.lease_end()

    def left(self, session: Session) -> None:
        """A worker said goodbye: it finishes what it has and gets nothing new."""
        session.draining = True
        self.dispatcher.check_waiting()
        self.changed()

    def lost(self, session: Session, cause: str) -> None:
        """A worker's connection ended; harmless when repeated."""
        session.ended = True
        if self._ends.pop(session, None) is None:
            return
        self.registry.remove(session)
        self.telemetry.count(Metric.LEASES_LOST, 1, {Attr.CAUSE: cause})
        self.journal.write(
            Event.WORKER_LOST,
            {Attr.BINDING: digest_text(session.newest.bh), Attr.CAUSE: cause},
            level=logging.WARNING,
        )
        self.dispatcher.lost(session, cause)
        self.changed()

    def broken(self, error: AnchorholdError) -> None:
        """A peer did not follow the link protocol."""
        self.journal.write(Event.LINK_BROKEN, level=logging.WARNING, error=error)

    def failed(self, error: BaseException) -> None:
        """Something of ours failed that nobody awaits."""
        self.journal.write(Event.INTERNAL, level=logging.ERROR, error=error)

    def end_expired(self) -> None:
        """End connections whose lease ran out."""
        now = self.clock.monotonic()
        for session in [item for item in self._ends if now >= item.lease_until]:
            self._end(session, "lease_expired")

    def end_unknown(self) -> None:
        """End workers none of whose keys is known any more: nothing judges them again."""
        for session in list(self._ends):
            if all(self.registry.epoch(epoch.bh) is None for epoch in session.epochs):
                self._end(session, "expired")

    def end_denied(self, denied: Callable[[bytes], bool]) -> None:
        """Forget denied bindings and end the connections of workers that use them."""
        for bh in [bh for bh in self.registry.admitted() if denied(bh)]:
            self.fence(bh, "denied")

    def refuse(self, bh: bytes) -> None:
        """Forget a binding; end the connection of its worker, unless that has newer keys."""
        session = self.registry.holder(bh)
        if session is None or session.newest.bh == bh:
            self.fence(bh)
            return
        session.epochs[:] = [epoch for epoch in session.epochs if epoch.bh != bh]
        self.registry.forget([bh])
        self.dispatcher.check_waiting()
        self.changed()

    def fence(self, bh: bytes, cause: str = "refused") -> None:
        """Forget a binding and end the connection of the worker that uses it."""
        session = self.registry.holder(bh)
        self.registry.forget([bh])
        if session is not None:
            self._end(session, cause)
        self.changed()

    def end_all(self) -> None:
        """The gateway stops."""
        for session in list(self._ends):
            self._end(session, "stopped")

    def _end(self, session: Session, cause: str) -> None:
        self._ends[session](cause)
        self.lost(session, cause)

    def _admitted(self, epoch: Epoch) -> None:
        self.telemetry.knows_models(self.registry.models())
        self.journal.write(
            Event.WORKER_ADMITTED,
            {
                Attr.BINDING: digest_text(epoch.bh),
                Attr.TRUST: epoch.appraised.trust,
                Attr.LOG_INDEX: epoch.verdict.index,
            },
        )
        self.changed()
