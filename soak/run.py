"""Runs orders on an engine, a bounded number at once, and keeps what came out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enclave_worker.engine.errors import EngineBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from enclave_worker.engine.engine import Engine
    from enclave_worker.engine.events import TokenEvent

    from .orders import Order

# Far above the slowest answer under full load; beyond it a sequence is stuck.
ANSWER_TIMEOUT_S = 300.0


@dataclass(slots=True)
class Outcome:
    """What one answer of one order gave.

    Attributes:
        tokens: ids, in order.
        logprobs: as reported, exact.
        text: all of it.
        finish: why it ended; "" while it goes on.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    text: str = ""
    finish: str = ""


class Stuck(Exception):  # noqa: N818 - states a fact
    """An order did not end."""


class Run:
    """One pass over some orders.

    Attributes:
        outcomes: by request id and number of the answer.
    """

    def __init__(self, engine: Engine, *, at_once: int) -> None:
        """Use a started engine, with at most `at_once` orders in it."""
        self._engine = engine
        self._places = threading.Semaphore(at_once)
        self._at_once = at_once
        self._ended = threading.Condition()
        self._open: dict[str, int] = {}
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def all(self, orders: Iterable[Order], tick: Callable[[int], None]) -> None:
        """Run them; `tick` hears how many were begun.

        Raises:
            Stuck: an order did not end in time.
        """
        for number, order in enumerate(orders, 1):
            self._place()
            self._submit(order)
            tick(number)
        for _ in range(self._at_once):
            self._place()

    def _place(self) -> None:
        if not self._places.acquire(timeout=ANSWER_TIMEOUT_S):
            raise Stuck(f"found {sorted(self._open)} not ended after {ANSWER_TIMEOUT_S:g} s")

    def _submit(self, order: Order) -> None:
        request = order.request
        with self._ended:
            self._open[request.id] = request.n
        while True:
            try:
                return self._engine.submit(request, self._listener(order))
            except EngineBusy:  # answers of several orders fill it: wait for one to end
                with self._ended:
                    if not self._ended.wait(ANSWER_TIMEOUT_S):
                        raise Stuck("found the engine busy with nothing that ends") from None

    def _listener(self, order: Order) -> Callable[[TokenEvent], None]:
        request, left = order.request, order.leaves

        def listen(event: TokenEvent) -> None:
            outcome = self.outcomes.setdefault((request.id, event.index), Outcome())
            outcome.tokens += [choice.token for choice in event.choices]
            outcome.logprobs += [choice.logprob for choice in event.choices]
            outcome.text += event.text
            if left is not None and len(outcome.tokens) >= left:
                self._engine.cancel(request.id)
            if event.finish is None:
                return
            outcome.finish = event.finish
            with self._ended:
                self._open[request.id] -= 1
                if not self._open[request.id]:
                    del self._open[request.id]
                    self._places.release()
                self._ended.notify_all()

        return listen


def differences(first: Run, second: Run) -> list[str]:
    """Where two runs of the same orders differ: a cancelled answer's tokens begin the other's."""
    found = []
    for key in sorted(first.outcomes.keys() | second.outcomes.keys()):
        one, two = first.outcomes.get(key), second.outcomes.get(key)
        name = f"{key[0]}, answer {key[1]}"
        if one is None or two is None:
            found.append(f"{name}: found in one run only")
            continue
        cut = "cancelled" in (one.finish, two.finish)
        size = min(len(one.tokens), len(two.tokens)) if cut else None
        if one.tokens[:size] != two.tokens[:size] or one.logprobs[:size] != two.logprobs[:size]:
            found.append(f"{name}: found other tokens or log-probabilities")
        elif not cut and (one.finish, one.text) != (two.finish, two.text):
            found.append(f"{name}: found {one.finish} and {two.finish}, or other text")
    return found
