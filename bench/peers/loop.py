"""The loop of a driver: orders in as JSON lines, answers out as JSON lines, one engine a process.

An order is {"prompts": [[token, ...], ...], "out": N, "options": {}}; options are of one engine.
All prompts arrive at once, each gets N tokens, greedy, end of sequence ignored. The answer is
{"began": t, "times": [[t, ...], ...]}: when each token of each prompt came out, by the engine's
clock. That is the machine's monotonic clock, so that the bench can also compare with the moment at
which it started this process; or, on a machine that others use, the CPU time of the engine, which
is a clock with one thread only. Run by the engine's own python: standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Driven(Protocol):
    """An engine under measurement."""

    version: str
    #: Bytes of the KV arena, 0 where the engine does not say.
    arena: int
    #: Its clock, in seconds.
    now: Callable[[], float]

    def run(self, prompts: list[list[int]], out: int, **options: bool) -> dict[str, Any]:
        """Answer all prompts; {"times": ...} and whatever else the bench knows of this engine."""


def options() -> argparse.Namespace:
    """What every driver is told; sets the thread count before anything heavy is imported."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=64, help="most requests at once")
    parser.add_argument("--tokens", type=int, default=18432, help="of KV capacity")
    parser.add_argument("--longest", type=int, default=1024, help="most tokens of a request")
    parser.add_argument("--binary", default="", help="of an engine that is a program")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    given.now = time.perf_counter if given.clock == "wall" else time.process_time
    os.environ.update(
        OMP_NUM_THREADS=str(given.threads),
        MKL_NUM_THREADS=str(given.threads),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
    )
    return given


def serve(engine_of: type, given: argparse.Namespace) -> None:
    """Load the engine, then obey until the orders end."""
    # Libraries print: the answers get the real standard output, everything else goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine: Driven = engine_of(given)
    print(json.dumps({"version": engine.version, "arena": engine.arena}), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        wall, began = time.perf_counter(), engine.now()
        result = engine.run(order["prompts"], order["out"], **order["options"])
        spent = {"began": began, "ended": engine.now(), "wall": time.perf_counter() - wall}
        print(json.dumps(spent | result), file=answers)
    close = getattr(engine, "close", None)
    if close is not None:
        close()
