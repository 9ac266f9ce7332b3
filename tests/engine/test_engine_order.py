"""First come, first served; and another order can take its place without touching the scheduler."""

from collections import Counter
from collections.abc import Sequence as Sequence_

from simulators.paging import Loop, make_sequence, with_oracle

from enclave_worker.engine.order import Charge, Fifo, Reserve
from enclave_worker.engine.sequence import Sequence

UNITS: dict[Charge, int] = {"decode": 200, "prompt": 100, "cached": 10, "recomputed": 0}


class Recording(Fifo):
    """Counts charges."""

    def __init__(self) -> None:
        super().__init__()
        self.charged: Counter[tuple[str, Charge]] = Counter()
        self.here: list[str] = []

    def join(self, sequence: Sequence) -> None:
        super().join(sequence)
        self.here.append(sequence.id)

    def leave(self, sequence: Sequence) -> None:
        self.here.remove(sequence.id)

    def charge(self, sequence: Sequence, tokens: int, kind: Charge) -> None:
        assert tokens > 0
        self.charged[sequence.id, kind] += tokens


class VirtualTime:
    """Weighted virtual time as the Order's comment has it, in whole units."""

    def __init__(self, slots: int, pages: int) -> None:
        self.slots, self.pages = slots, pages
        self.now = 0
        self.times: dict[str, int] = {}
        self.weights: dict[str, int] = {}
        self.here: Counter[str] = Counter()
        self.arrivals = 0

    def join(self, sequence: Sequence) -> None:
        tenant = sequence.request.tenant
        if not self.here[tenant]:
            self.times[tenant] = max(self.times.get(tenant, 0), self.now)
        self.here[tenant] += 1
        self.weights[tenant] = sequence.request.weight
        self.arrivals += 1
        sequence.arrival = self.arrivals

    def leave(self, sequence: Sequence) -> None:
        self.here[sequence.request.tenant] -= 1

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        return self.times[sequence.request.tenant], sequence.arrival

    def chunk(self, sequence: Sequence) -> int:
        return 64

    def reserve(self, sequence: Sequence, running: Sequence_[Sequence]) -> Reserve:
        tenant = sequence.request.tenant
        mine = [s for s in running if s.request.tenant == tenant]
        weight, total = self.weights[tenant], 1 + sum(self.weights[t] for t in self.here if t)
        need = sum(len(s.pages) for s in mine) + len(sequence.tokens) // 16 + 1
        within = need * total <= self.pages * weight and (
            (len(mine) + 1) * total <= self.slots * weight
        )
        return Reserve() if within else Reserve(2, self.pages // 16)

    def charge(self, sequence: Sequence, tokens: int, kind: Charge) -> None:
        tenant = sequence.request.tenant
        self.now = max(self.now, self.times[tenant])
        self.times[tenant] += UNITS[kind] * tokens * 1000 // self.weights[tenant]


def test_every_token_is_charged_once_as_what_it_was() -> None:
    order = Recording()
    loop = Loop(order=order, pages=8, budget=64)
    a = make_sequence("a", range(60), answer=30)
    b = make_sequence("b", range(100, 133), answer=60, salt=b"s")
    loop.add(a, b)
    loop.finish()
    assert loop.scheduler.preemptions
    for sequence, prompt in ((a, 60), (b, 33)):
        assert order.charged[sequence.id, "prompt"] == prompt
        # The last token is sampled and never computed.
        assert order.charged[sequence.id, "decode"] == sequence.generated - 1
    again = order.charged["b", "recomputed"]
    assert 0 < again == loop.computed - 60 - 29 - 33 - 59
    assert not order.here


def test_cached_tokens_are_charged_as_such_and_nothing_else_for_them() -> None:
    order = Recording()
    loop = Loop(order=order, budget=99)
    for name in "ab":
        loop.add(make_sequence(name, range(40), salt=b"s", answer=2))
        loop.finish()
    assert order.charged["b", "cached"] == 32
    assert order.charged["b", "prompt"] == 8


def test_accepted_guesses_are_charged_and_refused_ones_are_not() -> None:
    order = Recording()
    loop = Loop(order=order, budget=99, drafts=4)
    loop.add(with_oracle(make_sequence("a", range(20), answer=41), 2))
    loop.finish()
    assert order.charged["a", "decode"] == 40


def test_under_virtual_time_prompts_of_two_tenants_are_read_by_weight() -> None:
    loop = Loop(order=VirtualTime(9, 400), pages=400, budget=512, max_batch=9)
    for name in "abcd":
        loop.add(make_sequence(name, range(3000), tenant="one", weight=1))
    loop.add(make_sequence("x", range(3000), tenant="three", weight=3))
    read: Counter[str] = Counter()
    for _ in range(7):
        for name, count in loop.step():
            read["three" if name == "x" else "one"] += count
    assert abs(read["three"] - 3 * read["one"]) <= 4 * 64


def test_under_virtual_time_a_newcomer_is_next_whatever_the_others_have_in_line() -> None:
    loop = Loop(order=VirtualTime(8, 60), pages=60, budget=64, max_batch=8)
    for number in range(30):
        loop.add(make_sequence(str(number), range(number, number + 60), tenant="flood"))
    for _ in range(20):
        loop.step()
    assert len(loop.scheduler.running) == 6  # two slots are left
    loop.add(make_sequence("new", range(20), tenant="modest"))
    assert ("new", 20) in loop.step()


def test_first_come_first_served_gives_all_of_a_prompt_to_the_first() -> None:
    loop = Loop(order=Fifo(), pages=400, budget=512, max_batch=9)
    loop.add(*(make_sequence(name, range(1000), tenant=name) for name in "ab"))
    assert loop.step() == [("a", 512)]
    assert loop.step() == [("a", 488), ("b", 16)]
