"""Candidates are drawn uniformly, from all, without repetition."""

from __future__ import annotations

from collections import Counter
from hashlib import shake_256

from hypothesis import given
from hypothesis import strategies as st

from client.sampling import below, shuffled


def counter_rng(seed: int) -> object:
    state = [seed]

    def rng(n: int) -> bytes:
        state[0] += 1
        return shake_256(state[0].to_bytes(16, "big")).digest(n)

    return rng


@given(st.lists(st.integers(), max_size=40), st.integers(0, 2**64))
def test_an_order_is_a_permutation(items: list[int], seed: int) -> None:
    assert Counter(shuffled(items, counter_rng(seed))) == Counter(items)  # type: ignore[arg-type]


@given(st.integers(1, 10**6), st.integers(0, 2**64))
def test_a_draw_stays_below_its_limit(limit: int, seed: int) -> None:
    assert 0 <= below(limit, counter_rng(seed)) < limit  # type: ignore[arg-type]


def test_values_past_the_last_whole_multiple_are_drawn_again() -> None:
    values = [b"\xff" * 8, (5).to_bytes(8, "big")]
    assert below(3, lambda _: values.pop(0)) == 5 % 3
    assert values == []


def test_every_position_is_equally_likely() -> None:
    rng = counter_rng(7)
    firsts = Counter(shuffled(range(6), rng)[0] for _ in range(6000))  # type: ignore[arg-type]
    assert set(firsts) == set(range(6))
    assert all(850 < count < 1150 for count in firsts.values())
