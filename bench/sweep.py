"""What judging a fleet again costs a gateway: every binding, its collateral in the cache included.

    .venv/bin/python bench/sweep.py [--workers 60] [--seconds 3] [--json]

Workers on simulated hardware are admitted by a real gateway over its socket, their vendors answer
on loopback, and the cache is on disk. For each kind: how long a binding takes in the first sweep,
where all is read; how many a second later sweeps judge, where nothing changed; and the same for the
bare memory of verdicts, which is the limit: the least that any sweep must do.

Then sealed requests go through the gateway in turns: alone, beside 1,000 remembered verdicts a
second (the first step of a sweep), and beside sweeps with all their steps that judge 1,000 bindings
a second: a fleet of 60,000, judged once a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulators.deployment import Deployment, Fleet, Up, seal
from simulators.gpu_tee import SnpGpuTee
from simulators.hardware_tee import HardwareTee, NitroTee, SnpTee, TdxTee
from simulators.vendor_services import VendorServices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

KINDS: tuple[type[HardwareTee], ...] = (SnpTee, TdxTee, SnpGpuTee, NitroTee)
#: Bindings a second.
RATE = 1000


#: It sweeps when told to, and one process may ask for as many unknown chips as it has workers.
SETTINGS: dict[str, Any] = {"reappraise_s": 600, "collateral_unknown_per_minute": 6000}


@asynccontextmanager
async def fleet_of(kind: type[HardwareTee], workers: int) -> AsyncIterator[tuple[Up, Fleet]]:
    """A gateway that has admitted so many workers of a kind."""
    with tempfile.TemporaryDirectory() as folder, VendorServices() as served:
        services = Path(folder) / "services.toml"
        services.write_text(toml(served))
        deployment = Deployment(kind, **SETTINGS, collateral_services_file=services)
        try:
            async with deployment.up() as up:
                fleet = Fleet(deployment)
                for number in range(workers):
                    worker = fleet.make(f"w{number}")
                    assert isinstance(worker.tee, HardwareTee)
                    worker.tee.serve(served)
                    await worker.admitted()
                await fleet.workers[0].pull(4096)
                yield up, fleet
                await asyncio.gather(*(worker.drop() for worker in fleet.workers))
        finally:
            deployment.remove()


def toml(served: VendorServices) -> str:
    """The operator's file that names the simulated vendors."""
    services = served.services()
    names = ("intel_pcs", "intel_root_crl", "amd_kds", "nvidia_rim", "nvidia_ocsp")
    return "\n".join(f'{name} = "{getattr(services, name)}"' for name in names)


async def rate(once: Callable[[], Awaitable[object]], each: int, seconds: float) -> float:
    """How many a second, of a call that does `each`; median of the calls."""
    spent = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent) < 3:
        begin = time.perf_counter()
        await once()
        spent.append(time.perf_counter() - begin)
    return each / statistics.median(spent)


async def sweeps(kind: type[HardwareTee], workers: int, seconds: float) -> dict[str, Any]:
    """First and later sweeps over one kind, and the limit."""
    async with fleet_of(kind, workers) as (up, _):
        again = up.gateway.reappraisal
        begin = time.perf_counter()
        fenced = await again.sweep()
        first = time.perf_counter() - begin
        later = await rate(again.sweep, workers, seconds)
        epochs = [up.gateway.registry.epoch(bh) for bh in up.gateway.registry.admitted()]
        now = up.gateway.clock.wall()

        async def bare() -> None:
            for epoch in epochs:
                assert epoch is not None
                await again.appraiser.judge(epoch.presented, now, epoch.collateral)

        limit = await rate(bare, workers, seconds)
        if fenced or len(epochs) != workers:
            raise SystemExit(f"{kind.__name__}: {fenced} fenced, {len(epochs)} admitted")
        return {
            "kind": kind.__name__.removesuffix("Tee"),
            "first_ms": first / workers * 1000,
            "per_s": later,
            "limit_per_s": limit,
            "ratio": limit / later,
        }


async def latency(rounds: int, requests: int, workers: int) -> dict[str, Any]:
    """Median and 99th percentile, in ms, of sealed requests in turns: alone, verdicts, sweeps."""
    async with fleet_of(SnpTee, workers) as (up, fleet):
        again, worker = up.gateway.reappraisal, fleet.workers[0]
        await again.sweep()
        arms: dict[str, Callable[[], Awaitable[int]] | None] = {
            "alone": None,
            "verdicts": again.check,
            "sweeps": again.sweep,
        }
        spent: dict[str, list[float]] = {name: [] for name in arms}
        judged = dict.fromkeys(arms, 0)

        async def judge(name: str, once: Callable[[], Awaitable[int]]) -> None:
            while True:
                begin = time.perf_counter()
                await once()
                judged[name] += workers
                await asyncio.sleep(max(0, workers / RATE - (time.perf_counter() - begin)))

        async def answer() -> None:
            while True:
                await worker.answer(await worker.job(within_s=60))

        answering = asyncio.create_task(answer())
        for _ in range(rounds):
            for name, once in arms.items():
                judging = None if once is None else asyncio.create_task(judge(name, once))
                for _ in range(requests):
                    sealed = seal([worker])
                    begin = time.perf_counter()
                    (await up.post(sealed)).raise_for_status()
                    spent[name].append(time.perf_counter() - begin)
                if judging is not None:
                    judging.cancel()
                    await asyncio.gather(judging, return_exceptions=True)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
    return {
        name: {
            "per_s": judged[name] / sum(times),
            "p50_ms": statistics.median(times) * 1000,
            "p99_ms": statistics.quantiles(times, n=100)[98] * 1000,
            "error_ms": statistics.stdev(times) * 1000 / len(times) ** 0.5,
        }
        for name, times in spent.items()
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=60, help="admitted, of each kind")
    parser.add_argument("--seconds", type=float, default=3.0, help="of later sweeps, a kind")
    parser.add_argument("--rounds", type=int, default=20, help="turns with and without sweeps")
    parser.add_argument("--requests", type=int, default=25, help="sealed requests a turn")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    logging.disable()  # workers that come and go are not news here
    kinds = [asyncio.run(sweeps(kind, given.workers, given.seconds)) for kind in KINDS]
    found = {
        "kinds": kinds,
        "latency": asyncio.run(latency(given.rounds, given.requests, given.workers)),
    }
    if given.json:
        print(json.dumps(found))
        return
    print("kind     first sweep    later sweeps    memory alone   ratio")
    for row in kinds:
        print(
            f"{row['kind']:8} {row['first_ms']:6.2f} ms {row['per_s']:12,.0f}/s"
            f" {row['limit_per_s']:13,.0f}/s {row['ratio']:7.1f}"
        )
    print("request  p50 ms   p99 ms   standard error   judged a second")
    for name, row in found["latency"].items():
        print(
            f"{name:8} {row['p50_ms']:6.2f} {row['p99_ms']:8.2f} {row['error_ms']:16.2f}"
            f" {row['per_s']:17,.0f}"
        )


if __name__ == "__main__":
    main()
