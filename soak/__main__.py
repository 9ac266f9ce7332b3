"""`python -m soak`: 10,000 mixed requests, twice, in other company the second time."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enclave_worker.engine.config import EngineConfig
from enclave_worker.engine.engine import Engine
from ops.model_cache import NONE, ensure

from .orders import orders
from .run import Run, differences

if TYPE_CHECKING:
    from collections.abc import Callable

    from .orders import Order

# What caches and allocators keep is taken in the first pass; in the second memory must stand still.
GROWTH_MAX_MIB = 64


def main() -> int:
    """Run the soak; 0 when nothing leaked, hung or differed."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--model", type=Path, help="model folder (SmolLM2 in int8)")
    parser.add_argument("--count", type=int, default=10_000, help="requests (10000)")
    parser.add_argument("--dtype", default="w8a8", help="engine dtype (w8a8)")
    parser.add_argument("--pages", type=int, default=600, help="KV pages: few, so memory presses")
    parser.add_argument("--threads", type=int, default=2, help="engine threads (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the requests (1)")
    given = parser.parse_args()
    config = EngineConfig.from_dict(
        {"dtype": given.dtype, "kv_pages": given.pages, "threads": given.threads, "max_len": 1024}
    )
    engine = Engine(given.model or _smollm2(given.dtype), config)
    engine.start()
    faults: list[str] = []
    try:
        engine.warm_up()
        made = list(orders(engine, given.seed, given.count))
        first = _pass(engine, made, 48, faults)
        settled = resident()
        shuffled = [made[i] for i in np.random.default_rng(2).permutation(len(made))]
        second = _pass(engine, shuffled, 17, faults)
        faults += differences(first, second)
        growth = resident() - settled
        print(f"memory grew {growth} MiB in the second pass")
        if growth > GROWTH_MAX_MIB:
            faults.append(f"found {growth} MiB more memory, expected {GROWTH_MAX_MIB} at most")
        print(engine.stats())
        print(dict(Counter(outcome.finish for outcome in first.outcomes.values())))
    finally:
        engine.stop()
    for fault in faults[:20]:
        print(f"FAULT {fault}", file=sys.stderr)
    print(f"{2 * given.count} requests, {len(faults)} faults")
    return 1 if faults else 0


def _smollm2(dtype: str) -> Path:
    """The demo model, imported once for this machine."""
    quantise = "w8a8" if dtype.startswith("w8") else NONE
    folder = Path(tempfile.gettempdir()) / f"anchorhold-soak-{os.getuid()}"
    return ensure("smollm2", folder, quantise=quantise)


def _pass(engine: Engine, made: list[Order], at_once: int, faults: list[str]) -> Run:
    """One run, with what it left behind looked at."""
    begun = time.monotonic()
    run = Run(engine, at_once=at_once)
    run.all(made, _ticker(len(made), begun))
    stats = engine.stats()
    if stats.running or stats.waiting:
        faults.append(f"found {stats.running} running and {stats.waiting} waiting after the end")
    if stats.free_pages + stats.cached_pages != stats.total_pages:
        held = stats.total_pages - stats.free_pages - stats.cached_pages
        faults.append(f"found {held} pages held after the end")
    if stats.step_errors:
        faults.append(f"found {stats.step_errors} steps that failed")
    errors = sum(outcome.finish == "error" for outcome in run.outcomes.values())
    if errors:
        faults.append(f"found {errors} answers that ended with an error")
    print(f"{len(made)} requests in {time.monotonic() - begun:.0f} s")
    return run


def _ticker(count: int, begun: float) -> Callable[[int], None]:
    """Say how far it is at each tenth."""
    step = max(1, count // 10)

    def tick(number: int) -> None:
        if number % step == 0:
            spent = time.monotonic() - begun
            print(f"{number} of {count} begun, {spent:.0f} s, {resident()} MiB", flush=True)

    return tick


def resident() -> int:
    """Mebibytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    sys.exit(main())
