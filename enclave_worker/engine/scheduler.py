"""Which sequences run in the next step, and how many tokens of each.

One kind of step: every running sequence has tokens that are not computed yet, one while it is
decoding and more while its prompt is being read. Decoding comes first, so no stream waits for
somebody's long prompt; what is left of the step's budget goes to prompts, in order of arrival.
Requests join and leave between steps. When pages run out, the latest arrival gives its pages back
and is recomputed later.
"""

from collections import deque

from .pages import PagePool, pages_for
from .plan import Work
from .sequence import Sequence


class Scheduler:
    """First come, first served.

    Attributes:
        waiting: sequences without pages, next one first.
        running: sequences with pages, in order of arrival.
        preemptions: how often a sequence gave its pages back.
    """

    def __init__(self, pool: PagePool, *, max_batch: int, step_budget: int) -> None:
        """Schedule over this pool; the sizes are those of EngineConfig."""
        self._pool = pool
        self._max_batch = max_batch
        self._step_budget = step_budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the line."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and free its pages."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._drop_pages(sequence)

    def schedule(self) -> list[Work]:
        """Choose the work of the next step; empty only when idle."""
        work = self._decode()
        budget = self._step_budget - len(work)
        for sequence in self.running:
            if budget and sequence.pending > 1:
                work.append(_prefill(sequence, budget))
                budget -= work[-1].count
        while budget and (admitted := self._admit()) is not None:
            work.append(_prefill(admitted, budget))
            budget -= work[-1].count
        return work

    def _decode(self) -> list[Work]:
        """Give every running sequence with one pending token its row, and a page where needed."""
        work = []
        for sequence in list(self.running):
            if sequence.pending != 1:
                continue
            while sequence in self.running and pages_for(len(sequence.tokens)) > len(
                sequence.pages
            ):
                if self._pool.free:
                    sequence.pages += self._pool.take(1)
                else:
                    self._preempt(self.running[-1])
            if sequence in self.running:
                work.append(Work(sequence, 1))
        return work

    def _admit(self) -> Sequence | None:
        """Start the next waiting sequence if there is room for all its tokens so far.

        One page for each running sequence stays free, or the newcomer would be preempted at once.
        """
        if not self.waiting or len(self.running) >= self._max_batch:
            return None
        sequence = self.waiting[0]
        need = pages_for(len(sequence.tokens))
        if self._pool.free < need + len(self.running):
            return None
        self.waiting.popleft()
        sequence.pages = self._pool.take(need)
        self.running.append(sequence)
        return sequence

    def _preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to the head of the line; its tokens are kept."""
        self.running.remove(sequence)
        self._drop_pages(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _drop_pages(self, sequence: Sequence) -> None:
        """Free a sequence's pages; what was computed is gone."""
        self._pool.give_back(sequence.pages)
        sequence.pages = []
        sequence.computed = 0


def _prefill(sequence: Sequence, budget: int) -> Work:
    """As much of what is not yet computed as the budget allows."""
    count = min(budget, sequence.pending)
    return Work(sequence, count, wanted=int(count == sequence.pending))
