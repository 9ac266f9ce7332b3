"""Programs that write a log and die: run as `python crashing_log.py kill|full FOLDER ROUNDS`.

`kill`: forks a writer per round, kills it with SIGKILL at a varying moment, and prints what it had
acknowledged. One interpreter start for all rounds, so twenty crashes take seconds.
`full`: one writer whose files may not grow beyond a limit, like a full disk; prints what happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.checkpoint import peek_checkpoint
from evidence.merkle import leaf_hash
from evidence.sequencer import Log
from wire.errors import UnavailableError

ORIGIN = "log.test/crash"
KEY = Ed25519PrivateKey.from_private_bytes(sha256(b"crash").digest())
CALLERS = 8
FILE_LIMIT = 256 * 1024


def open_log(folder: Path) -> Log:
    return Log.open(folder / "log.db", ORIGIN, KEY, anchor=folder / "anchor")


async def write_forever(folder: Path, say: int) -> None:
    """Append from several callers and report each entry only once it was acknowledged."""
    log = open_log(folder)
    report(say, {"open": log.size, "root": log.root(log.size).hex()})

    async def caller(name: int) -> None:
        count = 0
        while True:
            logged = await log.append("test.event", {"caller": name, "count": count})
            head = peek_checkpoint(logged.checkpoint)
            report(
                say,
                {
                    "index": logged.index,
                    "leaf": leaf_hash(logged.leaf).hex(),
                    "size": head.size,
                    "root": head.root.hex(),
                },
            )
            count += 1

    await asyncio.gather(*(caller(name) for name in range(CALLERS)))


def report(say: int, line: dict[str, object]) -> None:
    os.write(say, json.dumps(line).encode() + b"\n")


def kill(folder: Path, rounds: int) -> None:
    for number in range(rounds):
        hear, say = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(hear)
            try:
                asyncio.run(write_forever(folder, say))
            finally:
                os._exit(1)
        os.close(say)
        with os.fdopen(hear, "rb") as pipe:
            first = pipe.readline()  # it is open and about to write: now it may die at any moment
            time.sleep(sha256(b"%d" % number).digest()[0] / 255 * 0.12)
            os.kill(child, signal.SIGKILL)
            rest = pipe.read()
        os.waitpid(child, 0)
        for line in (first + rest).splitlines():
            print(json.dumps({"round": number, **json.loads(line)}))


async def fill(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    log = open_log(folder)
    acknowledged: list[int] = []
    refused: list[str] = []

    async def caller() -> None:
        while not refused:
            try:
                acknowledged.append((await log.append("test.event", {"pad": "x" * 900})).index)
            except UnavailableError as error:
                refused.append(error.message)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    later = "accepted"
    try:
        await log.append("test.event", {})
    except UnavailableError as error:
        later = error.message
    proof = log.inclusion(0, log.size)
    print(
        json.dumps(
            {
                "acknowledged": sorted(acknowledged),
                "refused": refused,
                "later": later,
                "stopped": log.stopped,
                "size": log.size,
                "proofs": len(proof),
            }
        )
    )
    log.close()


if __name__ == "__main__":
    mode, where, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if mode == "kill":
        kill(where, count)
    else:
        asyncio.run(fill(where))
