"""The command: each target in a process of its own, with bounded memory.

    ANCHORHOLD_VECTORS=DIR python -m fuzz [--target NAME]... [--count 100000] [--seed 1]
                                          [--jobs 1] [--json] [--found DIR] [--list]

Targets named "bound …" have a count of their own: what stands one below, at, one above, and ten
times above a bound of a parser.

Exit codes: 0 nothing found · 1 findings · 2 wrong usage. A target whose process dies, of memory or
otherwise, is a finding.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz.attack import Outcome, attack, keep

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNT: Final = 100_000
ADDRESS_SPACE: Final = 2 * 1024**3  # the interpreter, its libraries and their threads take a half
HANG_S: Final = 900  # some thousand inputs take seconds: an input that never ends is a finding
_WORKER: Final = "FUZZ_WORKER"


def main(argv: Sequence[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--target", action="append", default=[], help="a part of its name, or =NAME"
    )
    parser.add_argument("--count", type=int, default=COUNT, help="inputs a target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--json", action="store_true", help="one JSON object a target")
    parser.add_argument("--found", type=Path, default=Path(".state/fuzz"), help="kept findings")
    parser.add_argument("--list", action="store_true", help="names of targets, and nothing else")
    options = parser.parse_args(argv)
    # Imported late: making the simulated vendors costs seconds.
    from fuzz.bounds import BOUNDS
    from fuzz.targets import TARGETS

    wanted = [name for name in (*TARGETS, *BOUNDS) if _chosen(name, options.target)]
    if not wanted or options.count < 0 or options.jobs < 1:
        parser.error("no such target" if not wanted else "expected --count from 0, --jobs from 1")
    if options.list:
        sys.stdout.writelines(f"{name}\n" for name in wanted)
        return 0
    if os.environ.get(_WORKER):
        return _worker(wanted[0], options)
    return _all(wanted, options)


def _chosen(name: str, asked: Sequence[str]) -> bool:
    exact = [one[1:] for one in asked if one.startswith("=")]
    parts = [one for one in asked if not one.startswith("=")]
    return not asked or name in exact or any(part in name for part in parts)


def _worker(name: str, options: Any) -> int:
    from fuzz.bounds import BOUNDS
    from fuzz.targets import TARGETS

    bound = BOUNDS.get(name)  # whose inputs stand where they do: nothing is changed in them
    target, count = (TARGETS[name], options.count) if bound is None else (bound.target(), 0)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    warnings.simplefilter("error")  # a warning is how a library says that input steers it
    began = time.monotonic()
    faulthandler.dump_traceback_later(HANG_S, exit=True)

    def progress(outcome: Outcome) -> None:
        faulthandler.dump_traceback_later(HANG_S, exit=True)  # counted from here again
        seconds = time.monotonic() - began
        rate = outcome.count / seconds
        sys.stderr.write(
            f"  {name}: {outcome.count} of {count}, {rate:.0f}/s, "
            f"{len(outcome.findings)} findings\n"
        )

    gc.collect()
    gc.freeze()  # what lives through the whole run need not be looked at again for each input
    outcome = attack(target, count, options.seed, progress)
    for finding in outcome.findings.values():
        keep(options.found, name, finding)
    sys.stdout.write(json.dumps(outcome.to_json()) + "\n")
    return 0


def _all(wanted: Sequence[str], options: Any) -> int:
    waiting, failed = list(wanted), False
    running: dict[subprocess.Popen[str], str] = {}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            name = waiting.pop(0)
            running[_start(name, options)] = name
        for process in [one for one in running if one.poll() is not None]:
            name = running.pop(process)
            out = process.stdout.read() if process.stdout else ""
            row = _row(name, process.returncode, out)
            failed = failed or bool(row["findings"])
            _say(row, as_json=options.json)
        time.sleep(0.05)
    return int(failed)


def _start(name: str, options: Any) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "fuzz", "--target", f"={name}", "--count", str(options.count),
        "--seed", str(options.seed), "--found", str(options.found),
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, _WORKER: "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def _row(name: str, code: int, out: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(out)
    except ValueError:
        what = f"its process ended with {code}"
        row = Outcome(name).to_json() | {"findings": [{"what": what, "times": 1, "trace": ""}]}
    return row


def _say(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(row) + "\n")
    else:
        sys.stdout.write(
            f"{row['target']}: {row['count']} inputs, {row['refused']} refused, "
            f"{row['genuine']} accepted, worst {row['worst_ms']} ms, mean {row['mean_us']} us, "
            f"peak {row['peak_kib']} KiB, {len(row['findings'])} findings\n"
        )
        for found in row["findings"]:
            sys.stdout.write(f"    {found['times']} x {found['what']}\n{found['trace']}\n")
    sys.stdout.flush()
