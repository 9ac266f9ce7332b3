"""Which connected workers could open a request now: what its keys lead to."""

from collections.abc import Iterable

from .clock import Clock
from .errors import Fault, Refusal
from .registry import Registry
from .session import Session


class Candidates:
    """The registry as a waiting request sees it.

    Args:
        registry: workers and keys.
        clock: time.
        settle_until: monotonic seconds; before it, missing workers are awaited, not given up.
    """

    def __init__(self, registry: Registry, clock: Clock, settle_until: float) -> None:
        """Look at a registry that others change."""
        self._registry = registry
        self._clock = clock
        self._settle_until = settle_until

    @property
    def settling(self) -> bool:
        """Whether workers may still be coming back after a start."""
        return self._clock.monotonic() < self._settle_until

    def check(self, kids: set[bytes]) -> None:
        """Whether a request for these keys may wait here.

        Raises:
            Refusal: a key is one that no admitted worker has named.
        """
        unknown = sum(not self._registry.knows(kid) for kid in kids)
        if unknown and not self.settling:
            raise Refusal(Fault.KID_UNKNOWN, f"{unknown} of {len(kids)} keys are not known here")

    def gone(self, kids: Iterable[bytes]) -> bool:
        """Whether no worker that holds one of these keys is here, or may still come back."""
        now = self._clock.wall()
        return not self.settling and not any(self._registry.live(kid, now) for kid in kids)

    def readiest(self, kids: Iterable[bytes]) -> Session | None:
        """The worker with the most room among those that hold one of these keys; None: no room."""
        now, monotonic = self._clock.wall(), self._clock.monotonic()
        found = (self._registry.live(kid, now) for kid in kids)
        ready = [one for one in found if one is not None and one.can_take(monotonic)]
        return max(ready, key=lambda session: session.credits, default=None)
