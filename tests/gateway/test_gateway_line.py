"""The line of requests without a credential: how many are worked on, and who is next."""

from __future__ import annotations

import asyncio

from gateway.line import Line


async def come(futures: list[asyncio.Future[bool]]) -> list[bool]:
    """Which of them have their turn."""
    await asyncio.sleep(0)
    return [turn.done() and turn.result() for turn in futures]


async def test_so_many_are_worked_on_and_whoever_waits_longest_is_next() -> None:
    line = Line(2)
    turns = [line.ask() for _ in range(4)]
    assert await come(turns) == [True, True, False, False]
    line.give_back(turns[1])
    assert await come(turns) == [True, True, True, False]
    line.give_back(turns[0])
    assert await come(turns) == [True, True, True, True]
    assert len(line) == 0


async def test_a_turn_that_is_given_back_twice_is_one_turn() -> None:
    line = Line(1)
    first, *others = [line.ask() for _ in range(3)]
    line.give_back(first)
    line.give_back(first)
    assert await come(others) == [True, False]


async def test_a_place_that_is_given_up_takes_nobodys_turn() -> None:
    line = Line(1)
    first, second, third = (line.ask() for _ in range(3))
    line.give_up(second)
    assert second.result() is False
    line.give_back(second)
    assert await come([third]) == [False]
    line.give_back(first)
    assert await come([third]) == [True]
    line.give_up(third)  # too late: it is worked on
    assert third.result() is True


async def test_who_is_cancelled_while_it_waits_keeps_nobody_waiting() -> None:
    line = Line(1)
    first, second, third = (line.ask() for _ in range(3))
    second.cancel()
    line.give_back(first)
    assert await come([third]) == [True]


async def test_where_nobody_waits_a_turn_is_free_again() -> None:
    line = Line(1)
    line.give_back(line.ask())
    assert await come([line.ask()]) == [True]
