"""Who loses pages when there are too few: whoever is beyond its share, never who is within it."""

import pytest
from simulators.paging import Loop, make_sequence

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.sequence import Sequence


def fill(loop: Loop, tenant: str, pages: int, *, weight: int = 1, salt: bytes = b"s") -> None:
    """Leave this many cached pages, one prompt each, oldest first."""
    for number in range(pages):
        name = f"{tenant}{number}"
        prompt = [number * 100 + i for i in range(16)]
        loop.add(make_sequence(name, prompt, tenant=tenant, salt=salt, weight=weight, answer=1))
        loop.finish()


def held(loop: Loop, tenant: str) -> list[int]:
    """Numbers of the prompts of `fill` that are still cached, least recently used first."""
    account = loop.kv._accounts.get(tenant)
    entries = account.idle.values() if account else ()
    return [int.from_bytes(entry.tokens[:4], "little") // 100 for entry in entries]


def ask(loop: Loop, tenant: str, pages: int, *, weight: int = 1) -> Sequence:
    """Put a sequence of so many pages in line and step once."""
    sequence = make_sequence(f"ask {tenant}", range(50_000, 50_000 + 16 * pages), tenant=tenant)
    object.__setattr__(sequence.request, "weight", weight)
    loop.add(sequence)
    loop.scheduler.schedule()
    loop.check()
    return sequence


def test_what_is_beyond_a_share_goes_first_and_the_oldest_of_it() -> None:
    loop = Loop(pages=12, budget=500)  # three tenants and a newcomer: a share is 3 pages
    fill(loop, "flood", 9)
    fill(loop, "modest", 3)
    asked = ask(loop, "third", 4)
    assert len(asked.pages) == 4
    assert held(loop, "flood") == [4, 5, 6, 7, 8]
    assert held(loop, "modest") == [0, 1, 2]


def test_the_one_furthest_beyond_loses_until_both_are_level() -> None:
    loop = Loop(pages=20, budget=500)  # share: 5
    fill(loop, "much", 12)
    fill(loop, "more", 8)
    ask(loop, "third", 6)
    assert (len(held(loop, "much")), len(held(loop, "more"))) == (7, 7)


def test_a_tenant_within_its_share_loses_nothing_to_one_beyond() -> None:
    loop = Loop(pages=12, budget=500)
    fill(loop, "modest", 4)
    fill(loop, "flood", 20)
    assert held(loop, "modest") == [0, 1, 2, 3]
    assert held(loop, "flood") == list(range(12, 20))


def test_a_tenant_evicts_its_own_oldest_where_nobody_is_beyond() -> None:
    loop = Loop(pages=9, budget=500)  # two tenants of weights 3 and 5, and a newcomer: 3 and 5
    fill(loop, "a", 3, weight=3)
    fill(loop, "b", 5, weight=5)
    fill(loop, "a", 1, weight=3)  # the ninth page
    ask(loop, "b", 2, weight=5)
    assert len(held(loop, "a")) == 3  # the fourth was beyond
    assert held(loop, "b") == [1, 2, 3, 4]


def test_running_pages_count_towards_the_share() -> None:
    loop = Loop(pages=12, budget=500)
    fill(loop, "a", 4)
    fill(loop, "b", 4)
    loop.add(make_sequence("r", range(9000, 9048), tenant="b", salt=b"s"))
    loop.step()
    ask(loop, "c", 3)
    assert held(loop, "a") == [0, 1, 2, 3]
    assert held(loop, "b") == [3]


@pytest.mark.parametrize(("weight", "kept"), [(1, 5), (6, 8)])
def test_a_share_grows_with_the_weight(weight: int, kept: int) -> None:
    loop = Loop(pages=12, budget=500)
    fill(loop, "heavy", 8, weight=weight)
    fill(loop, "light", 30)
    assert len(held(loop, "heavy")) == kept


@pytest.mark.parametrize(("newcomer", "kept"), [(1, 4), (4, 2)])
def test_the_newcomer_s_share_is_nobody_s(newcomer: int, kept: int) -> None:
    loop = Loop(pages=12, budget=500, newcomer_weight=newcomer)
    fill(loop, "a", 6)
    fill(loop, "b", 30)
    assert len(held(loop, "a")) >= kept
    assert ask(loop, "new", 3).pages


def test_what_could_not_run_otherwise_even_alone_takes_what_it_needs_and_no_more() -> None:
    loop = Loop(pages=12, budget=500)
    fill(loop, "a", 4)
    fill(loop, "b", 8)
    big = ask(loop, "b", 10)
    assert len(big.pages) == 10
    assert held(loop, "a") == [2, 3]
    assert not held(loop, "b")


def test_what_fits_when_others_have_left_waits_for_them_instead() -> None:
    loop = Loop(pages=12, budget=500)
    fill(loop, "a", 3)
    running = make_sequence("r", range(9000, 9016 * 1 + 64), tenant="b")
    loop.add(running)
    loop.step()
    assert not ask(loop, "c", 6).pages
    assert held(loop, "a") == [0, 1, 2]
    loop.scheduler.remove(running)
    loop.step()
    assert [s.id for s in loop.scheduler.running] == ["ask c"]
    assert held(loop, "a") == [0, 1, 2]


def test_the_last_one_running_grows_to_its_end_beside_others_cached_pages() -> None:
    loop = Loop(pages=6, budget=500)
    fill(loop, "a", 2)
    loop.add(make_sequence("long", range(9000, 9010), tenant="b", answer=70))
    loop.finish()
    assert loop.scheduler.preemptions == 0
    assert held(loop, "a") == [1]


def test_pages_of_a_tenant_without_requests_count_until_they_are_gone() -> None:
    loop = Loop(pages=12)
    fill(loop, "a", 2)
    assert set(loop.kv._accounts) == {"a"}
    loop.kv.flush("a")
    assert not loop.kv._accounts
    fill(loop, "a", 2)
    assert len(ask(loop, "b", 12).pages) == 12
    assert set(loop.kv._accounts) == {"b"}


def test_a_page_that_is_read_is_neither_evicted_nor_scrubbed() -> None:
    loop = Loop(pages=6, budget=500)
    loop.add(make_sequence("a", range(40), salt=b"s", answer=1))
    loop.finish()
    reader = make_sequence("b", range(40), salt=b"s", answer=200)
    loop.add(reader)
    loop.step()
    shared = reader.pages[:2]
    loop.memory.scrubs.clear()
    loop.add(*(make_sequence(f"f{n}", range(n, n + 40), salt=b"s", answer=1) for n in range(1, 9)))
    for _ in range(20):
        loop.step()
    assert reader.pages[:2] == shared
    assert not set(shared) & set(loop.memory.scrubs)


def test_the_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="newcomer_weight: found 0"):
        EngineConfig(newcomer_weight=0)
    with pytest.raises(ValueError, match="prefix_cache: found 1, expected true or false"):
        EngineConfig(prefix_cache=1)  # type: ignore[arg-type]
