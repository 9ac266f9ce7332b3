"""Turns: each process leaves one for another; whoever goes keeps no place, and gives none twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.asker import Asker
from gateway.turns import Turns
from wire.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


class Work:
    """Things under way, each until it is let go."""

    def __init__(self, places: int = 2) -> None:  # of two, one process has one
        self.turns = Turns(places)
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.inner: dict[str, asyncio.Task[None] | None] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(
        self, name: str, peer: int = 1, last: Callable[[], object] = bool
    ) -> asyncio.Task[None]:
        """Ask for a turn; `last` is what happens as it ends."""
        gate = self.gates[name] = asyncio.Event()

        async def work() -> None:
            self.begun.append(name)
            self.inner[name] = asyncio.current_task()
            await gate.wait()
            last()

        asker = Asker(len(self.gates), peer)
        self.tasks[name] = asyncio.create_task(self.turns.run(asker, work))
        return self.tasks[name]

    async def begin(self, name: str, peer: int = 1) -> None:
        """Ask for a turn, and see what comes of it."""
        self.start(name, peer)
        await settle()

    async def end(self, name: str) -> None:
        self.gates[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_whoever_goes_as_its_turn_comes_gives_the_place_back() -> None:
    work = Work()
    work.start("first")
    waiting = work.start("waiting")
    await settle()
    first = work.inner["first"]
    assert first is not None
    # After the place was handed on, and before who got it can begin.
    first.add_done_callback(lambda _: waiting.cancel())
    work.gates["first"].set()
    await settle()
    assert waiting.cancelled()
    next_one = work.start("next")
    await settle()
    assert work.begun == ["first", "next"]
    work.gates["next"].set()
    await next_one


async def test_a_turn_is_not_given_to_whoever_has_just_gone() -> None:
    work = Work()
    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    # It goes before the place is free, and hears of it after.
    work.start("first", last=lambda: loop.call_soon(tasks[0].cancel))
    tasks.append(work.start("waiting"))
    await settle()
    work.gates["first"].set()
    await settle()
    assert tasks[0].cancelled()
    next_one = work.start("next")
    await settle()
    assert work.begun == ["first", "next"]
    work.gates["next"].set()
    await next_one


async def test_whoever_goes_while_waiting_gives_back_no_place_that_it_never_had() -> None:
    work = Work()
    first = work.start("first")
    waiting = work.start("waiting")
    await settle()
    # It asks, and looks for whose turn it is, before the one that goes hears that it goes.
    next_one = work.start("next")
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert work.begun == ["first"]
    work.gates["first"].set()
    await settle()
    assert work.begun == ["first", "next"]
    work.gates["next"].set()
    await asyncio.gather(first, next_one)


async def test_a_process_that_takes_all_turns_leaves_one_for_another() -> None:
    work = Work(4)
    for number in range(50):
        await work.begin(f"flood {number}", 1)
    assert work.begun == ["flood 0", "flood 1", "flood 2"]
    await work.begin("honest", 2)
    assert work.begun[-1] == "honest"


async def test_the_next_turn_is_for_whoever_has_the_fewest_under_way() -> None:
    work = Work(2)
    await work.begin("first", 1)
    await work.begin("honest", 2)
    for number in range(50):
        await work.begin(f"flood {number}", 1)
    await work.begin("honest again", 2)
    await work.end("honest")
    assert work.begun == ["first", "honest", "honest again"]
    await work.end("honest again")
    assert work.begun == ["first", "honest", "honest again"]  # the last place is another's
    await work.end("first")
    assert work.begun[3:] == ["flood 0"]
    assert work.tasks["honest"].done()


async def test_whoever_goes_while_waiting_takes_no_turn() -> None:
    work = Work(2)
    await work.begin("a", 1)
    await work.begin("b", 1)
    work.tasks["b"].cancel()
    await settle()
    await work.end("a")
    await work.begin("c", 1)
    assert work.begun == ["a", "c"]


async def test_whoever_goes_while_it_runs_keeps_its_place_until_it_has_ended() -> None:
    work = Work(2)
    await work.begin("a", 1)
    work.tasks["a"].cancel()
    await settle()
    assert work.tasks["a"].cancelled()
    await work.begin("b", 1)
    assert work.begun == ["a"]
    await work.end("a")
    assert work.begun == ["a", "b"]


async def test_a_failure_gives_the_place_back_and_is_heard() -> None:
    turns = Turns(2)

    async def fail() -> None:
        raise ConfigError("no")

    for _ in range(5):
        with pytest.raises(ConfigError):
            await turns.run(Asker(1, 1), fail)
