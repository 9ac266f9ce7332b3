"""How fast the evidence log acknowledges durable entries: appends a second, and waiting time.

    .venv/bin/python bench/log.py [--callers 64] [--seconds 3] [--rounds 5] [--folder DIR] [--json]

Every caller waits for its entry to be committed and fsynced before it sends the next one. The
folder decides the result more than the code does: put it on the disk the log will use. Reported are
medians over the rounds. `baseline` is one plain SQLite transaction per entry from one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.events import INFER_RECEIPT, infer_receipt_event
from evidence.sequencer import Log

ORIGIN = "bench.test/log"


def event(number: int) -> dict[str, Any]:
    """A receipt event of realistic size."""
    digest = sha256(number.to_bytes(8, "big")).digest()
    return infer_receipt_event(
        rid=digest[:16],
        th=digest,
        kid=digest,
        wid="worker-1",
        wseq=number,
        model="smollm2-135m-instruct",
        tokens_in=300,
        tokens_out=200,
        status="stop",
        sc=digest,
    )


async def appends(folder: Path, callers: int, seconds: float) -> dict[str, float]:
    """One round: appends a second, p50 and p99 of the wait in milliseconds."""
    log = Log.open(folder / "log.db", ORIGIN, Ed25519PrivateKey.generate())
    waits: list[float] = []
    start = time.perf_counter()
    until = start + seconds

    async def caller(name: int) -> None:
        number = name
        while (begin := time.perf_counter()) < until:
            await log.append(INFER_RECEIPT, event(number))
            waits.append(time.perf_counter() - begin)
            number += callers

    await asyncio.gather(*(caller(name) for name in range(callers)))
    elapsed = time.perf_counter() - start
    log.close()
    waits.sort()
    return {
        "per_second": len(waits) / elapsed,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
    }


def reopening(folder: Path) -> dict[str, float]:
    """Start-up cost: re-reading and re-hashing a log of 20,000 entries."""
    key = Ed25519PrivateKey.generate()
    log = Log.open(folder / "reopen.db", ORIGIN, key)

    async def fill() -> None:
        for first in range(0, 20_000, 1000):
            batch = range(first, first + 1000)
            await asyncio.gather(*(log.append(INFER_RECEIPT, event(n)) for n in batch))

    asyncio.run(fill())
    log.close()
    start = time.perf_counter()
    again = Log.open(folder / "reopen.db", ORIGIN, key)
    elapsed = time.perf_counter() - start
    size = again.size
    again.close()
    return {"entries": size, "seconds": elapsed, "entries_per_second": size / elapsed}


def baseline(folder: Path, seconds: float) -> dict[str, float]:
    """Plain durable inserts, one transaction each: what a caller alone could get from this disk."""
    db = apsw.Connection(str(folder / "plain.db"))
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("CREATE TABLE entry (idx INTEGER PRIMARY KEY, leaf BLOB)")
    leaf, count, start = bytes(821), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        db.execute("INSERT INTO entry(leaf) VALUES (?)", (leaf,))
        count += 1
    elapsed = time.perf_counter() - start
    db.close()
    return {"per_second": count / elapsed, "p50_ms": elapsed / count * 1000}


def median_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Member-wise medians."""
    return {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 8, 64, 256])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()

    result: dict[str, Any] = {
        "setup": {
            "python": platform.python_version(),
            "sqlite": apsw.sqlite_lib_version(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "rounds": options.rounds,
            "seconds": options.seconds,
        },
        "append": {},
    }
    for callers in options.callers:
        rounds = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                rounds.append(asyncio.run(appends(Path(name), callers, options.seconds)))
        result["append"][str(callers)] = median_of(rounds)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result["baseline"] = baseline(Path(name), options.seconds)
        result["reopen"] = reopening(Path(name))

    print(json.dumps(result))
    if not options.json:
        print(f"\n{'callers':>8} {'appends/s':>10} {'p50 ms':>8} {'p99 ms':>8}")
        for callers, row in result["append"].items():
            print(
                f"{callers:>8} {row['per_second']:>10.0f} {row['p50_ms']:>8.2f} "
                f"{row['p99_ms']:>8.2f}"
            )
        plain, reopen = result["baseline"], result["reopen"]
        print(f"{'plain 1':>8} {plain['per_second']:>10.0f} {plain['p50_ms']:>8.2f}")
        print(f"reopen: {reopen['entries']} entries in {reopen['seconds']:.2f} s")


if __name__ == "__main__":
    main()
