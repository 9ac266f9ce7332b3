"""`python -m mutation --module FILE ...`: how many of a module's mutants the tests kill.

--tests names test files (default: tests/attestation/test_*.py); --sample N --seed S takes a fixed
part of the mutants; --line N only those of a line, --part those of function bodies or those that
run on import, --again those that the output of an earlier run or mutation/RESULTS.md lists.
--slowest S leaves out tests that take longer without a fault, --budget S stops asking after S
seconds of them, --patience S is what a mutant may take beyond three times that. --minutes N ends
early, and takes the mutants in drawn order, so that those done are a fair sample.

--short is the form that runs with the tests: a fixed sample of modules whose tests are quick.

Ends 1 if fewer than --require per cent are killed, 2 if the harness does not pass its own test.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import math
import os
import re
import sys
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .operators import Mutant, mutants
from .runner import HarnessError, Task, quiet, work
from .selection import CACHE, Selection, select

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_PRELOADED: Final = ("cryptography.x509", "hypothesis", "dcap_qvl", "jwt", "cbor2", "httpx2")
_SHORT: Final = (
    "--module", "attestation/verify/cose.py", "attestation/verify/intel_tcb.py",
    "attestation/verify/corim_profile.py", "attestation/rules/corim.py",
    "--tests", "tests/attestation/test_intel_statements_alone.py",
    "tests/attestation/test_device_signers.py", "tests/attestation/test_kind_limits.py",
    "tests/attestation/test_corim_rule.py",
    "--part", "body", "--sample", "80", "--seed", "1", "--require", "90",
)  # fmt: skip


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__)
    parser.add_argument("--module", nargs="+", metavar="FILE")
    parser.add_argument("--tests", nargs="+", metavar="FILE")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sample", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--line", type=int, nargs="+")
    parser.add_argument("--part", choices=("body", "import"))
    parser.add_argument("--budget", type=float, default=20.0, metavar="S")
    parser.add_argument("--again", type=Path, metavar="FILE")
    parser.add_argument("--slowest", type=float, default=60.0, metavar="S")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="N")
    parser.add_argument("--patience", type=float, default=10.0, metavar="S")
    parser.add_argument("--require", type=float, default=0.0, metavar="PER_CENT")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--short", action="store_true")
    asked = parser.parse_args()
    if asked.short:
        asked = parser.parse_args([*_SHORT, *sys.argv[1:]])
    if not asked.module:
        parser.error("expected --module or --short")
    os.environ.update(OMP_NUM_THREADS="1", CI="true")  # CI: hypothesis draws the same examples
    sys.dont_write_bytecode = True
    CACHE.parent.mkdir(exist_ok=True)
    files = asked.tests or [str(p) for p in sorted(Path("tests/attestation").glob("test_*.py"))]
    package = asked.module[0].partition("/")[0]
    # In a process of its own: this one must not import what is mutated.
    measure = get_context("fork").Process(target=_measure, args=(package, files))
    measure.start()
    measure.join()
    selection = select(package, files)
    chosen = [(file, m) for file in asked.module for m in mutants(Path(file).read_text())]
    chosen = [(file, m) for file, m in chosen if not asked.line or m.line in asked.line]
    if asked.part:
        chosen = [(file, m) for file, m in chosen if m.function == (asked.part == "body")]
    if asked.again:
        left = _listed(asked.again.read_text())
        chosen = [(file, m) for file, m in chosen if _name(file, m) in left]
    if asked.sample:
        keyed = sorted(chosen, key=lambda pair: _draw(asked.seed, *pair))[: asked.sample]
        chosen = [pair for pair in chosen if pair in keyed]
    if asked.minutes:
        chosen.sort(key=lambda pair: _draw(asked.seed, *pair))
    selection.drop_slower(asked.slowest)
    tasks = [
        _task(file, mutant, selection, asked.budget, asked.patience) for file, mutant in chosen
    ]
    try:
        verdicts = _verdicts(tasks, asked.jobs, asked.minutes or math.inf)
    except HarnessError as refusal:
        sys.stderr.write(f"mutation: {refusal}; no verdicts\n")
        return 2
    return _report(list(zip(tasks, verdicts, strict=True)), asked.json, asked.require)


def _measure(package: str, files: list[str]) -> None:
    quiet()
    select(package, files)


def _draw(seed: int, file: str, mutant: Mutant) -> bytes:
    text = f"{seed} {_name(file, mutant)}"
    return hashlib.sha256(text.encode()).digest()


def _task(file: str, mutant: Mutant, selection: Selection, budget: float, patience: float) -> Task:
    """A fault in a function: whoever runs its lines. On import: whoever runs the module."""
    tests = selection.of(file, mutant.line, mutant.last)
    if not mutant.function:
        tests = selection.whole(file)
    asked: list[str] = []
    spent = 0.0
    for test in tests:
        spent += selection.seconds[test]
        if spent > budget and asked:
            break
        asked.append(test)
    return Task(file, mutant, asked, 3 * min(spent, budget) + patience)


def _verdicts(tasks: list[Task], jobs: int, minutes: float) -> list[str]:
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    found = {number: "not covered" for number, task in enumerate(tasks) if not task.tests}
    numbered = [(number, task) for number, task in enumerate(tasks) if task.tests]
    deadline = time.monotonic() + 60 * minutes
    links = []
    for job in range(jobs):
        reader, writer = get_context("fork").Pipe(duplex=False)
        worker = get_context("fork").Process(
            target=_worker, args=(numbered[job::jobs], deadline, writer)
        )
        worker.start()
        writer.close()
        links.append((reader, worker))
    for reader, worker in links:
        with contextlib.suppress(EOFError):
            while True:
                number, verdict = reader.recv()
                found[number] = verdict
                if verdict not in ("killed", "not run"):
                    sys.stderr.write(f"{len(found)}/{len(tasks)} {_text(tasks[number], verdict)}\n")
        worker.join()
        if worker.exitcode:
            raise HarnessError("without a fault the tests do not pass (see .mutation/log)")
    return [found[number] for number in range(len(tasks))]


def _worker(tasks: list[tuple[int, Task]], deadline: float, writer: Connection) -> None:
    try:
        work(tasks, deadline, writer.send)
    except HarnessError as refusal:
        sys.stderr.write(f"mutation: {refusal}\n")
        sys.exit(2)


def _report(verdicts: list[tuple[Task, str]], as_json: bool, require: float) -> int:
    modules: dict[str, Counter[str]] = {}
    left = []
    for task, verdict in verdicts:
        modules.setdefault(task.module, Counter())[verdict] += 1
        if task.mutant and verdict not in ("killed", "timeout"):
            left.append(_text(task, verdict))
    total = sum(modules.values(), Counter[str]())
    if as_json:
        sys.stdout.write(json.dumps({"modules": modules, "left": left}, indent=1) + "\n")
    else:
        lines = [f"{file}: {_line(counts)}" for file, counts in modules.items()]
        sys.stdout.write("\n".join([*left, *lines, f"all: {_line(total)}"]) + "\n")
    return 1 if _per_cent(total) < require else 0


def _text(task: Task, verdict: str) -> str:
    assert task.mutant is not None
    place = f"line {task.mutant.line}, {len(task.tests)} tests"
    return f"{verdict}: {_name(task.module, task.mutant)} [{place}]"


def _name(module: str, mutant: Mutant) -> str:
    """Without its line, so that it means the same after an edit elsewhere in the module."""
    return f"{module}: {mutant.where or 'module'}: {mutant.operator}: {mutant.change}"


def _listed(report: str) -> set[str]:
    """The mutants that an earlier run's output, or the page of results, names."""
    verdict, rest = r"^(survived|not covered|not run|broken): ", r" (\[line \d+.*\]|\(\d+ times\))$"
    return {re.sub(rest, "", re.sub(verdict, "", line)) for line in report.splitlines()}


def _per_cent(counts: Counter[str]) -> float:
    """A mutant that cannot be imported is no mutant: it is in neither number."""
    judged = counts.total() - counts["broken"] - counts["not run"]
    return 100 * (counts["killed"] + counts["timeout"]) / judged if judged else 100.0


def _line(counts: Counter[str]) -> str:
    parts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
    return f"{counts.total()} mutants, {_per_cent(counts):.1f} % killed ({parts})"


if __name__ == "__main__":
    sys.exit(main())
