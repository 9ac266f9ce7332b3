"""Who is next: the order in which sequences are admitted, read their prompts, and give way."""

from collections.abc import Sequence as Sequence_
from typing import Literal, NamedTuple, Protocol

from .sequence import Sequence

# decode: a generated token; prompt: one computed; cached: one taken from the prefix cache;
# recomputed: computed again after a preemption, which is no fault of the tenant's.
Charge = Literal["decode", "prompt", "cached", "recomputed"]


class Reserve(NamedTuple):
    """What a sequence has to leave for others.

    Attributes:
        slots: of the batch.
        pages: of the pool.
    """

    slots: int = 0
    pages: int = 0


class Order(Protocol):
    """A scheduling policy; its state is of tenants, the scheduler's of sequences.

    How weighted virtual time (start-time fair queueing, VTC: arXiv 2401.00588) fits, with `v` of
    each tenant and `V` the largest `v` that was ever next:
    - decode is charged with 200 units a token, `v += 200 / weight`, prompt tokens with 100, cached
      ones with 10, recomputed ones go to nobody (`charge`);
    - prompts: `rank` is `(v, arrival)`, and it is asked again after every `chunk` of some hundred
      tokens, which is charged at once: the tenant with the least `v` reads next;
    - admission: `join` lifts a tenant that had nothing here to `v = max(v, V)`. `reserve` is
      nothing for a tenant whose pages and slots, those of `running`, stay within
      `total * weight / (weights of all tenants + newcomer's)`, and 6 % of both for the others.
    """

    def join(self, sequence: Sequence) -> None:
        """Learn of a request."""

    def leave(self, sequence: Sequence) -> None:
        """Forget a request that joined."""

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """Return its place: the least is next, the greatest is preempted. Charges move it."""

    def chunk(self, sequence: Sequence) -> int:
        """Return the most prompt tokens it may compute before ranks are looked at again."""

    def reserve(self, sequence: Sequence, running: Sequence_[Sequence]) -> Reserve:
        """Return what has to be left if it is admitted beside `running`."""

    def charge(self, sequence: Sequence, tokens: int, kind: Charge) -> None:
        """Learn of work, when it is put into a step."""


class Fifo:
    """First come, first served."""

    def __init__(self) -> None:
        """Nobody has come."""
        self._arrivals = 0

    def join(self, sequence: Sequence) -> None:
        """Number a request."""
        self._arrivals += 1
        sequence.arrival = self._arrivals

    def leave(self, sequence: Sequence) -> None:
        """Keep nothing."""

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """By arrival."""
        return 0, sequence.arrival

    def chunk(self, sequence: Sequence) -> int:
        """All that is left of its prompt."""
        return sequence.pending

    def reserve(self, sequence: Sequence, running: Sequence_[Sequence]) -> Reserve:
        """Nothing."""
        return Reserve()

    def charge(self, sequence: Sequence, tokens: int, kind: Charge) -> None:
        """Nothing is counted."""
