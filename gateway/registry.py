"""Which workers are here and which keys are known. State only; the link server changes it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .session import Epoch, Session

#: Kept bindings are bounded by their expiry; this bounds a worker that makes epochs without end. An
#: honest one has two, the old and the new; each is judged again after every change.
EPOCHS_PER_SESSION_MAX = 4
#: Kept bindings of workers that are gone; this bounds one that comes and goes with new ones. Beyond
#: it the oldest are unknown, and every sweep judges what is known.
GONE_MAX = 1024


@dataclass(slots=True)
class Registry:
    """Sessions by worker name, and everything admitted that has not expired.

    A key stays known after its worker is lost: a request sealed to it in good faith should be
    answered with `rewrap_needed`, which costs the client 1 KB, not with `kid_unknown`.
    """

    sessions: dict[str, Session] = field(default_factory=dict)
    gone_max: int = GONE_MAX
    _epochs: dict[bytes, Epoch] = field(default_factory=dict)
    _by_kid: dict[bytes, bytes] = field(default_factory=dict)
    _holder: dict[bytes, Session] = field(default_factory=dict)

    def add(self, session: Session) -> None:
        """A worker was admitted."""
        self.sessions[session.wid] = session
        for epoch in session.epochs:
            self._learn(session, epoch)

    def add_epoch(self, session: Session, epoch: Epoch) -> None:
        """A worker has new keys."""
        session.epochs.append(epoch)
        self._learn(session, epoch)
        cut_off = {old.bh for old in session.epochs[:-EPOCHS_PER_SESSION_MAX]}
        del session.epochs[:-EPOCHS_PER_SESSION_MAX]
        self.forget(cut_off - {kept.bh for kept in session.epochs})

    def renew(self, epoch: Epoch) -> None:
        """A known binding was judged again and accepted: the new verdict counts."""
        if epoch.bh not in self._epochs:
            return
        self._epochs[epoch.bh] = epoch
        session = self.holder(epoch.bh)
        if session is not None:
            session.epochs[:] = [epoch if old.bh == epoch.bh else old for old in session.epochs]

    def remove(self, session: Session) -> None:
        """A worker is gone; its keys stay known until they expire, while there is room."""
        if self.sessions.get(session.wid) is session:
            del self.sessions[session.wid]
            here = self._here()
            gone = [bh for bh in self._epochs if bh not in here]
            self.forget(gone[: max(0, len(gone) - self.gone_max)])
        for kid in [kid for kid, holder in self._holder.items() if holder is session]:
            del self._holder[kid]

    def knows(self, kid: bytes) -> bool:
        """Whether an admitted, unexpired and not denied binding lists this key."""
        return kid in self._by_kid

    def taken(self, epoch: Epoch) -> bool:
        """Whether another worker start's known binding lists one of these keys.

        Both hold it, as admission has seen, so one of them is a copy: it would be given the other's
        requests, and take them with it when it leaves. A gone worker's keys are kept from others as
        long as they are known.
        """
        owner = epoch.appraised.binding.sig_pk
        known = [self._epochs[self._by_kid[kid]] for kid in epoch.kids if kid in self._by_kid]
        return any(other.appraised.binding.sig_pk != owner for other in known)

    def live(self, kid: bytes, now: int) -> Session | None:
        """The connected worker that holds `kid` and takes requests."""
        session = self._holder.get(kid)
        bh = self._by_kid.get(kid)
        if session is None or bh is None or session.draining:
            return None
        return session if now < self._epochs[bh].released_until else None

    def holder(self, bh: bytes) -> Session | None:
        """The worker that is here and has a known binding.

        By the name that the binding gives it, which one worker here has at most. Not by looking at
        all of them: a fleet is renewed or refused at once, one by one, when a list changes.
        """
        epoch = self._epochs.get(bh)
        session = None if epoch is None else self.sessions.get(epoch.appraised.binding.wid)
        if session is None or all(held.bh != bh for held in session.epochs):
            return None
        return session

    def epoch(self, bh: bytes) -> Epoch | None:
        """What was admitted under a binding hash."""
        return self._epochs.get(bh)

    def offered(self, now: int) -> Iterator[Epoch]:
        """What the directory lists: the newest keys of each worker that takes requests."""
        for session in self.sessions.values():
            newest = session.newest
            known = newest.bh in self._epochs
            if known and not session.draining and now < newest.offered_until:
                yield newest

    def models(self) -> frozenset[str]:
        """Model names in known attested bindings of connected workers."""
        newest = [session.newest for session in self.sessions.values()]
        bindings = [epoch.appraised.binding for epoch in newest if epoch.bh in self._epochs]
        return frozenset(model.name for binding in bindings for model in binding.models)

    def admitted(self) -> list[bytes]:
        """Hashes of all bindings that are known, in the order in which to judge them again.

        The newest of each worker that is here, whose refusal ends it, then its older ones, then
        those of workers that are gone: one with many bindings keeps no other in service.
        """
        epochs = [session.epochs for session in self.sessions.values()]
        newest = [kept[-1].bh for kept in epochs]
        older = [epoch.bh for kept in epochs for epoch in kept[:-1]]
        return [bh for bh in dict.fromkeys((*newest, *older, *self._epochs)) if bh in self._epochs]

    def forget(self, bhs: Iterable[bytes]) -> None:
        """Drop bindings: denied or expired."""
        for bh in bhs:
            epoch = self._epochs.pop(bh, None)
            for kid in epoch.kids if epoch is not None else ():
                # A later binding may list the same key: then it is that one's.
                if self._by_kid.get(kid) == bh:
                    del self._by_kid[kid]
                    self._holder.pop(kid, None)

    def expired(self, now: int) -> list[bytes]:
        """Bindings whose keys nobody should ask for any more."""
        return [bh for bh, epoch in self._epochs.items() if now >= epoch.held_until]

    def _here(self) -> set[bytes]:
        return {epoch.bh for session in self.sessions.values() for epoch in session.epochs}

    def _learn(self, session: Session, epoch: Epoch) -> None:
        self._epochs[epoch.bh] = epoch
        for kid in epoch.kids:
            self._by_kid[kid] = epoch.bh
            self._holder[kid] = session
