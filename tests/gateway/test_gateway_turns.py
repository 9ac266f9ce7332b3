"""Turns: whoever goes at the very moment of its turn keeps no place, and gives none twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.asker import Asker
from gateway.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable


class Work:
    """Things of one process under way, one at a time, each until it is let go."""

    def __init__(self) -> None:
        self.turns = Turns(2)  # of which one process has one
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.inner: dict[str, asyncio.Task[None] | None] = {}

    def start(self, name: str, last: Callable[[], object] = bool) -> asyncio.Task[None]:
        """Ask for a turn; `last` is what happens as it ends."""
        gate = self.gates[name] = asyncio.Event()

        async def work() -> None:
            self.begun.append(name)
            self.inner[name] = asyncio.current_task()
            await gate.wait()
            last()

        asker = Asker(len(self.gates), 1)
        return asyncio.create_task(self.turns.run(asker, work))


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
