"""The queue against a plain list that does the same slowly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenancy.queue import Caps, Queue, QueueFullError, Ticket

NOW = 1000


def ticket(number: int, *kids: int, tenant: str = "t", size: int = 10, life: int = 100) -> Ticket:
    return Ticket(
        number.to_bytes(16, "big"),
        tenant,
        frozenset(kid.to_bytes(32, "big") for kid in kids),
        size,
        NOW + life,
    )


def kid(number: int) -> bytes:
    return number.to_bytes(32, "big")


def numbers(queue: Queue, kids: list[int]) -> list[int]:
    """Pop everything for a worker and say in which order it came."""
    found = []
    while (item := queue.pop_for([kid(n) for n in kids], NOW)) is not None:
        found.append(int.from_bytes(item.rid, "big"))
    return found


def test_tickets_leave_in_the_order_they_came() -> None:
    queue = Queue()
    for number in (3, 1, 2):
        queue.put(ticket(number, 1))
    assert numbers(queue, [1]) == [3, 1, 2]


def test_a_worker_gets_only_what_it_can_open() -> None:
    queue = Queue()
    queue.put(ticket(1, 1))
    queue.put(ticket(2, 2))
    queue.put(ticket(3, 1, 2))
    assert numbers(queue, [2]) == [2, 3]
    assert numbers(queue, [9]) == []
    assert numbers(queue, [1]) == [1]


def test_a_ticket_that_waits_long_keeps_no_memory_of_those_that_left() -> None:
    queue = Queue()
    queue.put(ticket(0, 1))
    for number in range(1, 1000):
        queue.put(ticket(number, 1, 2))
        assert numbers(queue, [2]) == [number]
    assert len(queue._by_kid[kid(1)]) < 100
    assert numbers(queue, [1]) == [0]
    assert not queue._by_kid


def test_a_ticket_that_returns_keeps_its_place() -> None:
    queue = Queue()
    queue.put(ticket(1, 1, 2))
    queue.put(ticket(2, 2))
    first = queue.pop_for([kid(1)], NOW)
    assert first is not None
    queue.put(replace(first, kids=frozenset({kid(2)})))
    assert numbers(queue, [2]) == [1, 2]


def test_a_ticket_that_returns_without_a_key_is_not_found_under_it() -> None:
    queue = Queue()
    first = queue.put(ticket(1, 1, 2))
    queue.put(ticket(2, 1))
    queue.remove(first.rid)
    queue.put(replace(first, kids=frozenset({kid(2)})))
    assert numbers(queue, [1]) == [2]
    assert numbers(queue, [2]) == [1]


def test_an_expired_ticket_is_passed_over_and_left_for_its_owner() -> None:
    queue = Queue()
    queue.put(ticket(1, 1, life=0))
    queue.put(ticket(2, 1))
    assert numbers(queue, [1]) == [2]
    assert len(queue) == 1
    assert ticket(1, 1).rid in queue


def test_a_tenants_caps_do_not_touch_other_tenants() -> None:
    queue = Queue(Caps(tenant_requests=2, tenant_bytes=25, global_requests=10))
    queue.put(ticket(1, 1))
    queue.put(ticket(2, 1))
    with pytest.raises(QueueFullError) as refused:
        queue.put(ticket(3, 1))
    assert refused.value.tenant_cap
    queue.put(ticket(4, 1, tenant="u", size=20))
    with pytest.raises(QueueFullError) as refused:
        queue.put(ticket(5, 1, tenant="u", size=6))
    assert refused.value.tenant_cap
    queue.put(ticket(6, 1, tenant="u", size=5))


def test_the_global_cap_is_told_apart() -> None:
    queue = Queue(Caps(global_requests=1))
    queue.put(ticket(1, 1))
    with pytest.raises(QueueFullError) as refused:
        queue.put(ticket(2, 1, tenant="u"))
    assert not refused.value.tenant_cap
    assert "4096" not in str(refused.value)


def test_a_ticket_that_returns_is_not_refused_by_a_cap() -> None:
    queue = Queue(Caps(tenant_requests=1))
    first = queue.put(ticket(1, 1))
    queue.remove(first.rid)
    queue.put(ticket(2, 1))
    queue.put(first)
    assert len(queue) == 2


@pytest.mark.parametrize("bad", ["twice", "no key"])
def test_a_ticket_that_makes_no_sense_is_the_callers_mistake(bad: str) -> None:
    queue = Queue()
    queue.put(ticket(1, 1))
    with pytest.raises(ValueError, match="fresh rid"):
        queue.put(ticket(1, 1) if bad == "twice" else ticket(2))


class QueueMachine(RuleBasedStateMachine):
    """Every operation on the queue and on a list; both must agree after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(Caps(tenant_requests=6, tenant_bytes=100, global_requests=12))
        self.line: list[Ticket] = []
        self.out: list[Ticket] = []
        self.count = 0

    @rule(
        kids=st.sets(st.integers(1, 4), min_size=1),
        tenant=st.sampled_from("abc"),
        size=st.integers(1, 40),
        life=st.sampled_from([0, 100]),
    )
    def put(self, kids: set[int], tenant: str, size: int, life: int) -> None:
        self.count += 1
        new = ticket(self.count, *kids, tenant=tenant, size=size, life=life)
        mine = [item for item in self.line if item.tenant == tenant]
        full = (
            len(mine) >= 6 or sum(item.size for item in mine) + size > 100 or len(self.line) >= 12
        )
        if full:
            with pytest.raises(QueueFullError):
                self.queue.put(new)
        else:
            self.line.append(self.queue.put(new))

    @rule(kids=st.sets(st.integers(1, 4)))
    def pop(self, kids: set[int]) -> None:
        wanted = {kid(number) for number in kids}
        fitting = [t for t in self.line if t.kids & wanted and t.expires > NOW]
        expected = min(fitting, key=lambda item: item.order, default=None)
        assert self.queue.pop_for(wanted, NOW) == expected
        if expected is not None:
            self.line.remove(expected)
            self.out.append(expected)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.out))
        self.out.remove(item)
        fewer = data.draw(st.sets(st.sampled_from(sorted(item.kids)), min_size=1))
        item = replace(item, kids=frozenset(fewer))
        self.queue.put(item)
        self.line.append(item)

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.line))
        assert self.queue.remove(item.rid) == item
        assert self.queue.remove(item.rid) is None
        self.line.remove(item)

    @invariant()
    def same(self) -> None:
        assert len(self.queue) == len(self.line)
        assert set(self.queue.waiting()) == set(self.line)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
