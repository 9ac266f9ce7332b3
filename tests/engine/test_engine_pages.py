"""The pool and who holds what: nothing is held twice, and nothing is left for the next holder."""

from collections.abc import Callable

import pytest
import torch
from simulators.paging import Loop, make_sequence

from enclave_worker.engine.models.key_values import KeyValues
from enclave_worker.engine.pages import KvCache, PagePool, pages_for


def make(pages: int = 8) -> tuple[KvCache, PagePool]:
    """A cache over a pool that scrubs nothing."""
    pool = PagePool(pages, lambda _pages: None)
    return KvCache(pool, b"secret"), pool


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


@pytest.mark.parametrize("pages", [[1], [0, 0], [0, 7]])
def test_no_page_is_given_back_twice(pages: list[int]) -> None:
    scrubbed: list[int] = []
    pool = PagePool(8, scrubbed.extend)
    pool.take(1)
    with pytest.raises(RuntimeError, match="found a page that is free"):
        pool.give_back(pages)
    assert pool.free == 7
    assert not scrubbed


def test_no_more_pages_are_handed_out_than_there_are() -> None:
    with pytest.raises(RuntimeError, match="found 8 free, expected 9"):
        make()[1].take(9)


def test_pages_for_counts_whole_pages() -> None:
    assert [pages_for(n) for n in (0, 1, 16, 17, 32)] == [0, 1, 1, 2, 2]


def test_a_sequence_gets_pages_for_all_its_tokens_or_none() -> None:
    kv, pool = make()
    fits, too_long = make_sequence("a", range(100)), make_sequence("b", range(17))
    assert kv.admit(fits)
    assert fits.pages == [0, 1, 2, 3, 4, 5, 6]
    assert not kv.admit(too_long)
    assert not too_long.pages
    assert pool.free == 1


def test_admission_leaves_the_spare_pages_that_were_asked_for() -> None:
    kv, _ = make()
    assert not kv.admit(make_sequence("a", range(100)), spare=2)
    assert kv.admit(make_sequence("a", range(100)), spare=1)


def test_growing_takes_what_is_missing() -> None:
    kv, pool = make()
    sequence = make_sequence("a", range(16))
    kv.admit(sequence)
    assert kv.grow(sequence, 16)
    assert sequence.pages == [0]
    assert kv.grow(sequence, 49)
    assert sequence.pages == [0, 1, 2, 3]
    assert not kv.grow(sequence, 129)
    assert kv.grow(sequence, 2)
    assert (len(sequence.pages), pool.free) == (4, 4)


def test_releasing_twice_is_harmless() -> None:
    kv, pool = make()
    sequence = make_sequence("a", range(40))
    kv.admit(sequence)
    kv.release(sequence)
    kv.release(sequence)
    assert pool.free == 8
    kv.check()


def test_without_caching_pages_are_free_when_their_sequence_leaves() -> None:
    loop = Loop(caching=False)
    for _ in range(2):
        loop.add(make_sequence("a", range(40), salt=b"s", answer=3))
        loop.finish()
    assert loop.kv.hits == loop.kv.cached == 0
    assert loop.pool.free == loop.pool.total


def plant_reader(loop: Loop) -> None:
    loop.scheduler.running[0].chain[0].readers += 1


def plant_shared_page(loop: Loop) -> None:
    first, second = loop.scheduler.running
    second.pages[-1] = first.pages[-1]


def plant_lost_page(loop: Loop) -> None:
    loop.scheduler.running[0].pages.pop()


def plant_page_from_nowhere(loop: Loop) -> None:
    loop.pool.take(1)


def plant_free_page(loop: Loop) -> None:
    loop.pool.give_back([loop.scheduler.running[0].pages[-1]])


def plant_other_page(loop: Loop) -> None:
    pages = loop.scheduler.running[0].pages
    pages[0], pages[-1] = pages[-1], pages[0]


def plant_other_parent(loop: Loop) -> None:
    loop.scheduler.running[0].chain[1].parent = None


def plant_other_scope(loop: Loop) -> None:
    entry = loop.scheduler.running[0].chain[0]
    entry.scope = entry.scope._replace(tenant="other")


def plant_wrong_account(loop: Loop) -> None:
    loop.kv._accounts["t"].held -= 1


def plant_forgotten_entry(loop: Loop) -> None:
    loop.kv._index.drop(next(iter(loop.kv._accounts["done"].idle.values())))


def plant_reader_of_idle(loop: Loop) -> None:
    next(iter(loop.kv._accounts["done"].idle.values())).readers = 1


def plant_parent_first(loop: Loop) -> None:
    idle = loop.kv._accounts["done"].idle
    idle.move_to_end(next(iter(idle)))


@pytest.mark.parametrize(
    "plant",
    [
        plant_reader,
        plant_shared_page,
        plant_lost_page,
        plant_page_from_nowhere,
        plant_free_page,
        plant_other_page,
        plant_other_parent,
        plant_other_scope,
        plant_wrong_account,
        plant_forgotten_entry,
        plant_reader_of_idle,
        plant_parent_first,
    ],
)
def test_the_check_notices(plant: Callable[[Loop], None]) -> None:
    loop = Loop(pages=30, budget=200)
    loop.add(make_sequence("done", range(40), tenant="done", salt=b"s", answer=1))
    loop.finish()
    loop.add(make_sequence("a", range(40), salt=b"s"), make_sequence("b", range(9, 49)))
    loop.step()
    loop.kv.check()
    plant(loop)
    with pytest.raises(RuntimeError, match="kv cache"):
        loop.kv.check()
