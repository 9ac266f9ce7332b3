"""Who runs when: decoding first, then prompts in order, under one budget and one pool."""

import torch

from enclave_worker.engine.models.key_values import KeyValues
from enclave_worker.engine.pages import PagePool, pages_for
from enclave_worker.engine.scheduler import Scheduler
from enclave_worker.engine.sequence import GenerationRequest, Sequence


def make(pages: int = 20, max_batch: int = 4, budget: int = 32) -> tuple[Scheduler, PagePool]:
    pool = PagePool(pages, lambda _pages: None)
    return Scheduler(pool, max_batch=max_batch, step_budget=budget), pool


def sequence(name: str, length: int) -> Sequence:
    tokens = list(range(length))
    return Sequence(GenerationRequest(name, tokens), 0, list(tokens), length, 1000)


def advance(scheduler: Scheduler) -> list[tuple[str, int]]:
    """Run one step as the runner would: whoever is up to date gets a token."""
    work = scheduler.schedule()
    for item in work:
        item.sequence.computed += item.count
        if not item.sequence.pending:
            item.sequence.tokens.append(0)
    return [(item.sequence.id, item.count) for item in work]


def test_decoding_comes_first_and_prompts_share_what_is_left() -> None:
    scheduler, _ = make()
    for name, length in (("a", 10), ("b", 50), ("c", 5)):
        scheduler.add(sequence(name, length))
    assert advance(scheduler) == [("a", 10), ("b", 22)]
    assert advance(scheduler) == [("a", 1), ("b", 28), ("c", 3)]
    assert advance(scheduler) == [("a", 1), ("b", 1), ("c", 2)]
    assert advance(scheduler) == [("a", 1), ("b", 1), ("c", 1)]


def test_no_more_than_max_batch_run() -> None:
    scheduler, _ = make(max_batch=2)
    for name in "abc":
        scheduler.add(sequence(name, 3))
    assert advance(scheduler) == [("a", 3), ("b", 3)]
    scheduler.remove(scheduler.running[0])
    assert advance(scheduler) == [("b", 1), ("c", 3)]


def test_first_come_first_served_even_if_a_later_one_would_fit() -> None:
    scheduler, _ = make(pages=6)
    for name, length in (("a", 40), ("big", 60), ("small", 4)):
        scheduler.add(sequence(name, length))
    advance(scheduler)
    assert [s.id for s in scheduler.running] == ["a"]
    assert [s.id for s in scheduler.waiting] == ["big", "small"]


def test_the_latest_arrival_gives_its_pages_back() -> None:
    scheduler, pool = make(pages=4, budget=64)
    scheduler.add(sequence("a", 15))
    scheduler.add(sequence("b", 15))
    advance(scheduler)
    while not scheduler.preemptions:
        assert advance(scheduler)
        assert pool.free + sum(len(s.pages) for s in scheduler.running) == 4
    assert [s.id for s in scheduler.running] == ["a"]
    victim = scheduler.waiting[0]
    assert victim.id == "b"
    assert victim.computed == 0
    assert not victim.pages
    assert victim.generated > 0  # its tokens are kept


def test_a_preempted_sequence_comes_back_before_those_who_never_ran() -> None:
    scheduler, _ = make(pages=4, budget=64)
    for name in ("a", "b"):
        scheduler.add(sequence(name, 15))
    advance(scheduler)
    scheduler.add(sequence("late", 4))
    while not scheduler.preemptions:
        advance(scheduler)
    assert [s.id for s in scheduler.waiting] == ["b", "late"]


def test_removing_frees_pages_in_every_state() -> None:
    scheduler, pool = make(max_batch=1)
    first, second = sequence("a", 40), sequence("b", 5)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.schedule()
    scheduler.remove(second)
    scheduler.remove(first)
    scheduler.remove(first)  # twice is harmless
    assert pool.free == pool.total
    assert scheduler.idle


def test_idle_schedules_nothing() -> None:
    scheduler, _ = make()
    assert scheduler.idle
    assert scheduler.schedule() == []


def test_pages_are_handed_out_lowest_first_and_scrubbed_on_return() -> None:
    store = KeyValues(2, 5, 1, 2, torch.float32)
    pool = PagePool(5, store.scrub)
    first = pool.take(3)
    assert first == [0, 1, 2]
    store.keys[:, first] = 7
    store.values[:, first] = 8
    pool.give_back([1])
    assert [store.is_clean(page) for page in range(3)] == [False, True, False]
    assert pool.take(2) == [1, 3]


def test_pages_for_counts_whole_pages() -> None:
    assert [pages_for(n) for n in (0, 1, 16, 17, 32)] == [0, 1, 1, 2, 2]
