"""The engine's step loop over a memory that knows whose token lies in each slot; no model."""

from collections.abc import Callable
from collections.abc import Sequence as Sequence_

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.order import Fifo, Order
from enclave_worker.engine.pages import KvCache, PagePool
from enclave_worker.engine.plan import Work
from enclave_worker.engine.sampling.state import SamplerState
from enclave_worker.engine.scheduler import Scheduler
from enclave_worker.engine.sequence import Drafter, GenerationRequest, Sequence

Slot = tuple[object, int, int]


def make_sequence(
    name: str,
    tokens: Sequence_[int],
    *,
    tenant: str = "t",
    salt: bytes = b"",
    adapter: str = "",
    weight: int = 1,
    answer: int = 1000,
) -> Sequence:
    """A sequence that wants `answer` tokens."""
    request = GenerationRequest(
        name, list(tokens), tenant=tenant, weight=weight, cache_salt=salt, adapter=adapter
    )
    sampler = SamplerState(request.params, 0, list(tokens))
    return Sequence(request, sampler, list(tokens), len(tokens), len(tokens) + answer)


def owner(sequence: Sequence) -> object:
    """Whoever may read what this sequence writes."""
    r = sequence.request
    return r.tenant, r.adapter, r.cache_salt or r.id


class Memory:
    """Slots of pages; each remembers who wrote which token for which position."""

    def __init__(self, pages: int) -> None:
        self.slots: list[list[Slot | None]] = [[None] * PAGE_SIZE for _ in range(pages)]
        self.scrubs: list[int] = []

    def scrub(self, pages: Sequence_[int]) -> None:
        """Forget what pages hold."""
        self.scrubs += pages
        for page in pages:
            self.slots[page] = [None] * PAGE_SIZE

    def clean(self, page: int) -> bool:
        """Whether nothing is in a page."""
        return not any(self.slots[page])

    def write(self, sequence: Sequence, start: int, tokens: Sequence_[int]) -> None:
        """Store keys and values, so to speak."""
        for position, token in enumerate(tokens, start):
            page = sequence.pages[position // PAGE_SIZE]
            self.slots[page][position % PAGE_SIZE] = owner(sequence), position, token

    def read(self, sequence: Sequence, length: int) -> None:
        """Fail unless the sequence finds its own tokens in its pages."""
        for position in range(length):
            page = sequence.pages[position // PAGE_SIZE]
            found = self.slots[page][position % PAGE_SIZE]
            assert found == (owner(sequence), position, sequence.tokens[position])


def next_token(tokens: Sequence_[int]) -> int:
    """What the absent model says."""
    return (tokens[-1] * 7 + len(tokens)) % 5


class Loop:
    """A scheduler that is stepped as the engine steps it, checked after every step."""

    def __init__(
        self,
        *,
        pages: int = 20,
        max_batch: int = 4,
        budget: int = 32,
        order: Order | None = None,
        drafts: int = 0,
        newcomer_weight: int = 1,
        caching: bool = True,
    ) -> None:
        self.memory = Memory(pages)
        self.pool = PagePool(pages, self.memory.scrub)
        self.kv = KvCache(self.pool, b"secret", newcomer_weight=newcomer_weight, caching=caching)
        self.budget = budget
        self.scheduler = Scheduler(
            self.kv,
            order or Fifo(),
            max_batch=max_batch,
            step_budget=budget,
            draft_length=lambda _decoding: drafts,
        )
        self.finished: list[str] = []
        self.computed = 0

    def add(self, *sequences: Sequence) -> None:
        """Put sequences in line."""
        for sequence in sequences:
            self.scheduler.add(sequence)

    def step(self) -> list[tuple[str, int]]:
        """Run one step; returns (id, rows) of all who had a part in it."""
        work = self.scheduler.schedule()
        assert bool(work) != self.scheduler.idle
        assert sum(item.count + len(item.draft) for item in work) <= self.budget
        assert len({item.sequence for item in work}) == len(work)
        for item in work:
            self._compute(item, work)
        for item in work:
            self._deliver(item.sequence)
        self.check()
        return [(item.sequence.id, item.count + len(item.draft)) for item in work]

    def run(self, until: Callable[[], bool], most: int = 10_000) -> None:
        """Step until something is so."""
        for _ in range(most):
            if until():
                return
            self.step()
        raise AssertionError(f"found no end within {most} steps")

    def finish(self) -> None:
        """Step until idle."""
        self.run(lambda: self.scheduler.idle)

    def check(self) -> None:
        """Fail on books that do not balance, and on a free page that holds something."""
        self.kv.check()
        taken = self.pool.taken
        assert all(self.memory.clean(p) for p in range(self.pool.total) if p not in taken)

    def _compute(self, item: Work, work: list[Work]) -> None:
        sequence, start = item.sequence, item.sequence.computed
        assert item.wanted == (start + item.count == len(sequence.tokens)) * (1 + len(item.draft))
        self.memory.read(sequence, start)
        rows = [*sequence.tokens[start : start + item.count], *item.draft]
        first = start // PAGE_SIZE
        others = {p for o in work if o is not item for p in o.sequence.pages}
        assert others.isdisjoint(sequence.pages[first:])  # what is written has one owner
        self.memory.write(sequence, start, rows)
        sequence.computed += item.count
        self.computed += len(rows)
        accepted = 0
        tokens = list(sequence.tokens)
        for guess in item.draft:
            if guess != next_token(tokens):
                break
            tokens.append(guess)
            accepted += 1
        sequence.computed += accepted
        self.scheduler.advance(sequence, accepted)

    def _deliver(self, sequence: Sequence) -> None:
        """Append what was accepted and the next token, as far as the answer goes."""
        while sequence.computed >= len(sequence.tokens) and len(sequence.tokens) < sequence.limit:
            sequence.tokens.append(next_token(sequence.tokens))
        if len(sequence.tokens) == sequence.limit:
            self.finished.append(sequence.id)
            self.scheduler.remove(sequence)


class Oracle:
    """Guesses what the absent model will say, wrong from the `good`-th token on."""

    def __init__(self, sequence: Sequence, good: int) -> None:
        self.sequence, self.good, self.asked = sequence, good, []

    def draft(self, most: int) -> tuple[int, ...]:
        """Guess `most` tokens."""
        self.asked.append(most)
        tokens = list(self.sequence.tokens)
        for index in range(most):
            tokens.append(next_token(tokens) if index < self.good else 99)
        return tuple(tokens[-most:])

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn nothing."""


def with_oracle(sequence: Sequence, good: int) -> Sequence:
    """Give a sequence an oracle."""
    drafter: Drafter = Oracle(sequence, good)
    sequence.drafter = drafter
    return sequence
