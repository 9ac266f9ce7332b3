"""Who runs when: decoding first, then guesses, then prompts, under one budget and one pool."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.paging import Loop, Oracle, make_sequence, next_token, with_oracle

from enclave_worker.engine.order import Fifo, Reserve
from enclave_worker.engine.sequence import Sequence


def sequence(name: str, length: int, **more: object) -> Sequence:
    """A prompt of `length` tokens nobody else has."""
    start = sum(map(ord, name)) * 1000
    return make_sequence(name, range(start, start + length), **more)  # type: ignore[arg-type]


def test_decoding_comes_first_and_prompts_share_what_is_left_in_whole_pages() -> None:
    loop = Loop()
    loop.add(sequence("a", 10), sequence("b", 60), sequence("c", 5))
    assert loop.step() == [("a", 10), ("b", 16)]
    assert loop.step() == [("a", 1), ("b", 16)]
    assert loop.step() == [("a", 1), ("b", 28)]
    assert loop.step() == [("a", 1), ("b", 1), ("c", 5)]
    assert loop.step() == [("a", 1), ("b", 1), ("c", 1)]


def test_a_prompt_goes_on_even_where_the_budget_leaves_less_than_a_page() -> None:
    loop = Loop(budget=4)
    for name in "abc":
        loop.add(sequence(name, 1))
        loop.step()
    long = sequence("long", 20)
    loop.add(long)
    for _ in range(20):
        assert loop.step() == [("a", 1), ("b", 1), ("c", 1), ("long", 1)]
    assert long.generated == 1


def test_no_more_than_max_batch_run() -> None:
    loop = Loop(max_batch=2)
    for name in "abc":
        loop.add(sequence(name, 3))
    assert loop.step() == [("a", 3), ("b", 3)]
    loop.scheduler.remove(loop.scheduler.running[0])
    assert loop.step() == [("b", 1), ("c", 3)]


def test_first_come_first_served_even_if_a_later_one_would_fit() -> None:
    loop = Loop(pages=6)
    loop.add(sequence("a", 40), sequence("big", 60), sequence("small", 4))
    loop.step()
    loop.step()
    assert [s.id for s in loop.scheduler.running] == ["a"]
    assert [s.id for s in loop.scheduler.waiting] == ["big", "small"]


def test_the_latest_arrival_gives_its_pages_back_and_keeps_its_tokens() -> None:
    loop = Loop(pages=4, budget=64)
    loop.add(sequence("a", 15), sequence("b", 15))
    loop.run(lambda: loop.scheduler.preemptions == 1)
    assert [s.id for s in loop.scheduler.running] == ["a"]
    (victim,) = loop.scheduler.waiting
    assert victim.id == "b"
    assert not victim.computed
    assert not victim.pages
    assert victim.generated > 0


def test_a_preempted_sequence_comes_back_before_those_who_never_ran() -> None:
    loop = Loop(pages=5, budget=64)
    loop.add(sequence("a", 15, answer=30), sequence("b", 15, answer=40), sequence("c", 70))
    loop.run(lambda: loop.scheduler.preemptions == 1)
    loop.run(lambda: "a" in loop.finished)
    loop.step()
    assert [s.id for s in loop.scheduler.running] == ["b"]


def test_a_preempted_sequence_is_computed_again_from_what_the_cache_still_holds() -> None:
    loop = Loop(pages=8, budget=64)
    first = sequence("a", 60, answer=30)
    loop.add(first, sequence("b", 33, answer=60, salt=b"s"))
    loop.run(lambda: loop.scheduler.preemptions == 1)
    victim = loop.scheduler.waiting[0]
    assert victim.id == "b"
    loop.scheduler.remove(first)
    before = victim.reached
    loop.step()
    assert victim.computed > 33
    assert victim.cached == 0  # nothing that it had not computed itself
    assert victim.reached >= before
    loop.finish()


def test_removing_frees_pages_in_every_state() -> None:
    loop = Loop(max_batch=1)
    first, second = sequence("a", 40), sequence("b", 5)
    loop.add(first, second)
    loop.scheduler.schedule()
    loop.scheduler.remove(second)
    loop.scheduler.remove(first)
    loop.scheduler.remove(first)  # twice is harmless
    assert loop.pool.free == loop.pool.total
    assert loop.scheduler.idle
    loop.check()


def test_what_a_faulty_sequence_computed_is_not_offered_to_the_next() -> None:
    loop = Loop(budget=99)
    loop.add(sequence("a", 40, salt=b"s", answer=2), sequence("b", 40, tenant="u", salt=b"s"))
    loop.run(lambda: bool(loop.finished))
    again = sequence("a", 40, salt=b"s")
    loop.add(again)
    loop.step()
    assert again.cached == 32
    loop.scheduler.remove(again, faulty=True)
    loop.scheduler.remove(loop.scheduler.running[0])
    once_more = sequence("a", 40, salt=b"s")
    loop.add(once_more, sequence("b", 40, tenant="u", salt=b"s"))
    loop.step()
    assert once_more.cached == 0
    assert loop.scheduler.running[1].cached == 32  # another tenant's is left alone


def test_idle_schedules_nothing() -> None:
    loop = Loop()
    assert loop.scheduler.idle
    assert loop.step() == []


# ------------------------------------------------------------------ guesses


def test_guesses_are_verified_beside_the_token_and_never_change_the_answer() -> None:
    answers = []
    for good in (0, 2, 9):
        loop = Loop(drafts=4)
        guessed = with_oracle(sequence("a", 20, answer=40), good)
        loop.add(guessed)
        loop.step()
        assert loop.step() == [("a", 5)]
        loop.finish()
        answers.append(guessed.tokens)
    assert answers[0] == answers[1] == answers[2]


def test_guesses_leave_half_of_the_budget_to_prompts() -> None:
    loop = Loop(budget=36, drafts=30)
    loop.add(with_oracle(sequence("a", 20), 0))
    loop.step()
    loop.add(sequence("long", 200))
    assert loop.step() == [("a", 1 + 17), ("long", 16)]


def test_guesses_take_no_page_from_anybody() -> None:
    loop = Loop(pages=3, budget=64, drafts=8)
    done = sequence("done", 16, salt=b"s", answer=1)
    loop.add(done)
    loop.finish()
    assert loop.kv.cached == 1
    loop.add(with_oracle(sequence("a", 30), 8))
    loop.step()
    assert loop.step() == [("a", 2)]  # the page ends there, the third one stays cached
    assert loop.kv.cached == 1
    assert loop.kv.evictions == 0


def test_guesses_take_a_page_that_is_free() -> None:
    loop = Loop(pages=3, budget=64, drafts=8)
    loop.add(with_oracle(sequence("a", 30), 8))
    loop.step()
    assert loop.step() == [("a", 9)]


def test_nothing_is_guessed_beyond_the_end_of_the_answer() -> None:
    loop = Loop(drafts=8, budget=64)
    guessed = with_oracle(sequence("a", 20, answer=4), 8)
    loop.add(guessed)
    loop.step()
    assert loop.step() == [("a", 3)]
    assert loop.finished == ["a"]
    assert isinstance(guessed.drafter, Oracle)
    assert guessed.drafter.asked == [2]


# ------------------------------------------------------------------ shares


def test_a_tenant_within_its_share_is_not_preempted_for_one_beyond() -> None:
    loop = Loop(pages=14, budget=200, max_batch=8)
    loop.add(*(sequence(name, 30, tenant="flood") for name in "abcd"))
    victim = sequence("victim", 30, tenant="modest", answer=30)
    loop.add(victim)
    loop.step()
    while victim.id not in loop.finished:
        assert victim in loop.scheduler.running
        loop.step()
    assert loop.scheduler.preemptions


def test_who_is_preempted_for_whom() -> None:
    loop = Loop(pages=18, budget=400, max_batch=8)  # three tenants and a newcomer: a share is 4
    large = sequence("large", 70, tenant="large")
    modest, other = (sequence(name, 20, tenant=name) for name in ("modest", "other"))
    loop.add(large, modest, other)
    loop.step()
    last = loop.scheduler._last
    assert last(large) is large  # beyond its share, it takes nothing from those within
    assert last(modest) is other  # the first in order goes on, so that somebody gets to the end
    loop.scheduler.remove(other)
    late = sequence("late", 16, tenant="large")
    loop.add(late)
    loop.step()
    assert last(large) is last(modest) is last(late) is late


def test_the_first_in_order_gets_to_its_end_though_it_is_beyond_its_share() -> None:
    loop = Loop(pages=12, budget=64)
    long = sequence("long", 100, tenant="large", answer=60)  # 10 of 12 pages
    loop.add(long)
    loop.step()
    for number in range(40):
        loop.add(sequence(f"s{number}", 30, tenant=f"small{number}", answer=20))
    loop.finish()
    assert len(loop.finished) == 41


# ------------------------------------------------------------------ what the order may ask


class Reserved(Fifo):
    """Leaves a slot and some pages to everybody but one tenant."""

    def __init__(self, slots: int, pages: int) -> None:
        super().__init__()
        self.left = Reserve(slots, pages)

    def reserve(self, sequence: Sequence, running: object) -> Reserve:
        """Nothing for the tenant that is within its share."""
        return Reserve() if sequence.request.tenant == "modest" else self.left


def test_a_reserved_slot_is_left_to_the_tenant_that_may_have_it() -> None:
    loop = Loop(order=Reserved(1, 0), budget=64, max_batch=3)
    loop.add(*(sequence(name, 10, tenant="flood") for name in "abc"))
    loop.add(sequence("m", 10, tenant="modest"))
    loop.step()
    assert [s.id for s in loop.scheduler.running] == ["a", "b", "m"]


def test_reserved_pages_are_left_to_the_tenant_that_may_have_them() -> None:
    loop = Loop(order=Reserved(0, 4), pages=10, budget=99, max_batch=9)
    loop.add(*(sequence(name, 30, tenant="flood") for name in "abc"))
    loop.add(sequence("m", 30, tenant="modest"))
    loop.step()
    assert [s.id for s in loop.scheduler.running] == ["a", "b", "m"]


def test_whom_the_reserve_keeps_out_is_not_overtaken_by_its_like() -> None:
    loop = Loop(order=Reserved(0, 4), pages=12, budget=400)
    for name, length, tenant in (("a", 30, "f"), ("big", 96, "f"), ("small", 5, "f")):
        loop.add(sequence(name, length, tenant=tenant))
    loop.add(sequence("m", 5, tenant="modest"))
    loop.step()
    assert [s.id for s in loop.scheduler.running] == ["a", "m"]


def test_a_reserve_keeps_nobody_out_of_an_empty_engine() -> None:
    loop = Loop(order=Reserved(9, 99))
    loop.add(sequence("a", 10, answer=2), sequence("b", 10, answer=2))
    loop.finish()
    assert loop.finished == ["a", "b"]


# ------------------------------------------------------------------ anything at all


@dataclass(frozen=True)
class Arrival:
    """A request and when it comes."""

    tenant: str
    weight: int
    salt: bytes
    family: int
    length: int
    answer: int
    after: int
    good: int
    cancelled: int


arrivals = st.builds(
    Arrival,
    tenant=st.sampled_from("abc"),
    weight=st.integers(1, 4),
    salt=st.sampled_from([b"", b"x", b"y"]),
    family=st.integers(0, 2),
    length=st.integers(1, 70),
    answer=st.integers(1, 50),
    after=st.integers(0, 6),
    good=st.integers(-1, 3),
    cancelled=st.integers(0, 60),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(arrivals, min_size=1, max_size=14),
    st.integers(8, 20),
    st.integers(1, 5),
    st.integers(5, 70),
    st.integers(0, 4),
)
def test_everybody_gets_to_the_end_with_its_own_tokens(
    plans: list[Arrival], pages: int, max_batch: int, budget: int, drafts: int
) -> None:
    loop = Loop(pages=pages, max_batch=max_batch, budget=budget, drafts=drafts)
    held, gone = [], set()
    for number, plan in enumerate(plans):
        for _ in range(plan.after):
            if not loop.scheduler.idle:
                loop.step()
        prompt = [plan.family * 10 + i % 7 for i in range(plan.length)]
        made = make_sequence(
            str(number),
            prompt,
            tenant=plan.tenant,
            salt=plan.salt,
            weight=plan.weight,
            answer=plan.answer,
        )
        held.append(made if plan.good < 0 else with_oracle(made, plan.good))
        loop.add(made)
        if plan.cancelled < len(held):
            gone.add(held[plan.cancelled].id)
            loop.scheduler.remove(held[plan.cancelled])
            loop.check()
    loop.finish()
    for made in held:
        if made.id in loop.finished:
            tokens = made.tokens[: made.prompt_len]
            while len(tokens) < made.limit:
                tokens.append(next_token(tokens))
            assert made.tokens == tokens
            assert made.cached < made.prompt_len
    assert {made.id for made in held} == gone | set(loop.finished)
    assert loop.pool.free + loop.kv.cached == loop.pool.total
    loop.kv.flush()
    assert loop.pool.free == loop.pool.total
    loop.check()
