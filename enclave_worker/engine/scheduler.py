"""Which sequences run in the next step, and how many tokens of each.

One kind of step: every running sequence has tokens that are not computed yet, one while it is
decoding and more while its prompt is being read. Decoding comes first, so no stream waits for
somebody's long prompt; guesses to verify and then prompts share what is left of the step's budget.
Requests join and leave between steps. Who is next is the order's to say. When pages run out, the
last in order of the tenants beyond their shares gives its pages back and is recomputed later.
"""

from collections.abc import Callable

from .config import PAGE_SIZE
from .order import Order, Reserve
from .pages import KvCache
from .plan import Work
from .sequence import Sequence


class Scheduler:
    """Sequences in line and at work.

    Attributes:
        waiting: sequences without pages.
        running: sequences with pages, in the order of their admission.
        preemptions: how often a sequence gave its pages back.
    """

    def __init__(
        self,
        pages: KvCache,
        order: Order,
        *,
        max_batch: int,
        step_budget: int,
        draft_length: Callable[[int], int],
    ) -> None:
        """Schedule over these pages.

        Args:
            pages: the KV cache.
            order: who is next.
            max_batch: most sequences running at once.
            step_budget: most rows of a step, at least `max_batch`.
            draft_length: most guesses for each of so many decoding sequences.
        """
        self._pages = pages
        self._order = order
        self._max_batch = max_batch
        self._step_budget = step_budget
        self._draft_length = draft_length
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        self._order.join(sequence)
        self._pages.join(sequence)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence, *, faulty: bool = False) -> None:
        """Take a sequence out, wherever it is; it holds no page any more. Twice is harmless.

        `faulty`: what it computed is not to be trusted, so nothing of its tenant's stays cached.
        """
        for line in (self.running, self.waiting):
            if sequence in line:
                line.remove(sequence)
                self._pages.leave(sequence)
                self._order.leave(sequence)
                if faulty:
                    self._pages.flush(sequence.request.tenant)

    def schedule(self) -> list[Work]:
        """Choose the work of the next step; empty only when idle."""
        work = self._decode()
        return work + self._read(self._step_budget - sum(1 + len(item.draft) for item in work))

    def advance(self, sequence: Sequence, accepted: int = 0) -> None:
        """After the step, before its tokens are delivered: `computed` includes accepted guesses."""
        self._pages.advance(sequence)
        if accepted:
            self._order.charge(sequence, accepted, "decode")

    def _decode(self) -> list[Work]:
        """Give every running sequence with one pending token its row, and guesses if it has any."""
        for sequence in sorted(self.running, key=self._order.rank):
            while (
                sequence in self.running
                and sequence.pending == 1
                and not self._pages.grow(sequence, len(sequence.tokens))
            ):
                self._preempt(self._last(sequence))
        decoding = [s for s in self.running if s.pending == 1]
        # Guesses get at most half of what is left, so that prompts go on.
        room, most = (self._step_budget - len(decoding)) // 2, self._draft_length(len(decoding))
        work = []
        for sequence in decoding:
            self._charge(sequence, sequence.computed, 1)
            draft = self._draft(sequence, min(room, most))
            room -= len(draft)
            work.append(Work(sequence, 1, draft, 1 + len(draft)))
        return work

    def _draft(self, sequence: Sequence, most: int) -> tuple[int, ...]:
        """Guess up to `most` tokens; nobody gives up a page for them."""
        length = len(sequence.tokens)
        most = min(most, sequence.limit - length - 1)
        if sequence.drafter is None or most <= 0:
            return ()
        draft = sequence.drafter.draft(most)
        if self._pages.grow(sequence, length + len(draft), evict=False):
            return draft
        return draft[: len(sequence.pages) * PAGE_SIZE - length]

    def _read(self, budget: int) -> list[Work]:
        """Share the budget among prompts; the line moves up where nobody here is before it."""
        counts: dict[Sequence, int] = {}
        reading = [s for s in self.running if s.pending > 1]
        moves = True
        while budget:
            sequence = min(reading, key=self._order.rank, default=None)
            if moves and (not counts or budget >= PAGE_SIZE) and self._line_leads(sequence):
                admitted = self._admit()
                moves = admitted is not None
                reading += [admitted] if admitted else []
                continue
            if sequence is None:
                break
            if sequence not in counts:
                self._match(sequence)
            start = sequence.computed + counts.get(sequence, 0)
            end = min(start + min(budget, self._order.chunk(sequence)), len(sequence.tokens))
            whole = end - end % PAGE_SIZE  # full pages are known to others early
            if end < len(sequence.tokens) and (whole > start or counts):
                end = max(whole, start)
            if end in (start, len(sequence.tokens)):
                reading.remove(sequence)
            if end > start:
                self._charge(sequence, start, end - start)
                counts[sequence] = end - sequence.computed
                budget -= end - start
        return [Work(s, count, wanted=int(count == s.pending)) for s, count in counts.items()]

    def _line_leads(self, sequence: Sequence | None) -> bool:
        """Whether somebody waiting is before this one."""
        ranks = [self._order.rank(waiting) for waiting in self.waiting]
        return bool(ranks) and (sequence is None or min(ranks) < self._order.rank(sequence))

    def _match(self, sequence: Sequence) -> None:
        """Skip what others have computed by now."""
        cached = sequence.cached
        self._pages.match(sequence)
        if sequence.cached > cached:
            self._order.charge(sequence, sequence.cached - cached, "cached")

    def _admit(self) -> Sequence | None:
        """Start the next sequence in line if there is room for all its tokens so far.

        One page for each running sequence stays free, or somebody would be preempted at once. The
        first that finds no room is overtaken only by those who may use what others must leave.
        """
        waits = False
        for sequence in sorted(self.waiting, key=self._order.rank):
            leave = self._order.reserve(sequence, self.running) if self.running else Reserve()
            if waits and any(leave):
                continue
            cached = sequence.cached
            spare = len(self.running) + leave.pages
            if len(self.running) + leave.slots < self._max_batch and self._pages.admit(
                sequence, spare
            ):
                self.waiting.remove(sequence)
                self.running.append(sequence)
                if sequence.cached > cached:
                    self._order.charge(sequence, sequence.cached - cached, "cached")
                return sequence
            if not any(leave):
                return None
            waits = True
        return None

    def _last(self, growing: Sequence) -> Sequence:
        """Whom to preempt so that `growing` gets a page.

        Not the first in order, so that somebody always gets to the end, and of the others the last
        of those beyond their share; what is beyond its share takes nothing from what is within.
        """
        first = min(self.running, key=self._order.rank)
        others = [s for s in self.running if s is not first]
        beyond = [s for s in others if self._pages.beyond_share(s)]
        if not beyond and self._pages.beyond_share(growing):
            return growing
        return max(beyond or others or [growing], key=self._order.rank)

    def _preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to the line; its tokens are kept."""
        self.running.remove(sequence)
        self._pages.release(sequence)
        self.waiting.append(sequence)
        self.preemptions += 1

    def _charge(self, sequence: Sequence, start: int, count: int) -> None:
        """Account for tokens computed from `start` on; those computed before are nobody's fault."""
        again = max(0, min(count, sequence.reached - start))
        if again:
            self._order.charge(sequence, again, "recomputed")
        if count > again:
            prompt = start + again < sequence.prompt_len
            self._order.charge(sequence, count - again, "prompt" if prompt else "decode")
