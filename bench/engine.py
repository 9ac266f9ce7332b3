"""The engine beside its peers on CPU: the same model, prompts and threads, in one run.

    scripts/install-peers DIR
    .venv/bin/python bench/engine.py --peers DIR [--streams 1,4,16,32,64] [--reps 3] [--quiet 20]

All requests of a run arrive at once, 128 tokens of distinct real text in and 128 out, greedy, end
of sequence ignored, no prefix in common. Every engine is a process of its own with the same number
of threads and about the same KV capacity; all are loaded before the first run, and all but the one
whose turn it is are stopped (SIGSTOP). In every repetition the engines take turns at each stream
count, beginning with another one each time, so that a busy moment hits all alike; ratios are taken
within a repetition and their median is reported. What the rest of the machine used meanwhile is in
every row. Cold start is from spawning the process to the first token of a first prompt, with the
files in the page cache (and vLLM's compile cache as it was found).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_table
from engine_arm import ArmError, Process, Sizes, available_bytes, machine_busy, wait_quiet
from engine_peers import PEERS, arms, say
from engine_plot import Panel, svg
from engine_roofline import Roofline, Shape
from engine_run import Figures, Text
from engine_targets import Runs, ratio, verdicts

if TYPE_CHECKING:
    from engine_arm import Arm

ROOT = Path(__file__).resolve().parents[1]
#: Bytes that must be free before an engine is started: the hungriest takes less than this.
HEADROOM = 3 << 30
WARM_TOKENS = 4
#: A shared prefix of 63 pages of 16 tokens, and a page of one's own.
PREFIX, TAIL = 1008, 16
CONTEXT_OUT = 32
#: Most streams at which our engine is also measured with n-gram speculation.
SPECULATED = 4
#: vLLM's on CPU.
LARGEST_PAGE = 128
#: Tokens of a request that vLLM is made ready for: it is a tenth slower when made ready for 8,192.
LONGEST = 1024
CLOCK = "cpu: one thread, every time in CPU seconds of the engine: for a machine in use"


class Bench:
    """One whole measurement."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.streams = [int(x) for x in args.streams.split(",")]
        most = max(self.streams)
        self.contexts = [int(x) for x in args.contexts.split(",") if x]
        # In whole pages of the engine with the largest ones, so that none has to wait for pages.
        each = -(-(args.prompt + args.out) // LARGEST_PAGE) * LARGEST_PAGE
        needed = max(most * each, *self.contexts, PREFIX + TAIL)
        self.capacity = -(-needed * 9 // 8 // 256) * 256
        longest = max(LONGEST, args.prompt + args.out)
        self.sizes = Sizes(args.threads, most, self.capacity, longest, args.clock)
        self.text = Text(args.model)
        self.shape = Shape.read(args.model)
        self.logs = args.logs
        self.logs.mkdir(parents=True, exist_ok=True)
        self.live: dict[str, Process] = {}
        self.cold: dict[str, list[float]] = {}
        self.failed: dict[str, str] = {}
        self.runs: Runs = {}
        self.speculated: Runs = {}
        self.growth: dict[str, list[tuple[int, Figures]]] = {}
        self.prefix: dict[str, list[dict[str, float]]] = {}
        self.rss: dict[str, float] = {}
        self.resident: dict[str, float] = {}
        self.roof = Roofline(0, 0, 0)

    def start(self, arm: Arm, times: int) -> None:
        """Start an engine `times` times, each to its first token; the last one stays, stopped."""
        args = self.args
        log = self.logs / f"{arm.name.replace(' ', '-')}.log"
        for left in reversed(range(times)):
            if available_bytes() < HEADROOM:
                self.drop(arm.name, f"found {available_bytes() >> 20} MiB free, expected 3072")
                return
            wait_quiet(self.args.quiet)
            try:
                process = Process(arm, self.sizes, log)
                self.live[arm.name] = process
                answer = process.order(self.text.take(1, self.args.prompt), WARM_TOKENS)
            except ArmError as error:
                self.drop(arm.name, str(error))
                return
            say(f"{arm.name}: loaded in {process.loaded:.1f} s")
            if "times" in answer and args.clock == "wall":
                spent = answer["times"][0][0] - process.spawned
                self.cold.setdefault(arm.name, []).append(spent)
                say(f"{arm.name}: first token after {spent:.1f} s")
            if left:
                process.close()
        try:
            for count in self.streams:
                process.order(self.text.take(count, self.args.prompt), WARM_TOKENS)
        except ArmError as error:
            self.drop(arm.name, str(error))
            return
        process.suspend()

    def drop(self, name: str, reason: str) -> None:
        """Go on without an engine, and say so."""
        self.failed[name] = reason
        process = self.live.pop(name, None)
        if process is not None:
            process.close()
        say(f"dropped: {name}: {reason}")

    def turn(
        self, name: str, prompts: list[list[int]], out: int, **options: bool
    ) -> tuple[dict[str, Any], float]:
        """One engine's turn: its answer, and the cores that others used meanwhile."""
        process = self.live[name]
        wait_quiet(self.args.quiet)
        busy, own = machine_busy(), process.cpu()
        process.resume()
        answer = process.order(prompts, out, **options)
        process.suspend()
        others = (machine_busy() - busy - (process.cpu() - own)) / answer["wall"]
        return answer, max(0.0, others)

    def measure_roof(self) -> None:
        """In a process of its own, so that its arrays are nobody's memory; the best so far."""
        wait_quiet(self.args.quiet)
        script = str(ROOT / "bench/engine_roofline.py")
        command = [sys.executable, script, "--threads", str(self.args.threads)]
        command += ["--clock", self.args.clock]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.args.threads)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        self.roof = self.roof.best(Roofline(**json.loads(done.stdout)))

    def repetition(self, number: int) -> None:
        """Every engine once at every stream count, the first one another each time."""
        self.measure_roof()
        for count in self.streams:
            prompts = self.text.take(count, self.args.prompt)
            names = list(self.live)
            shift = number % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                if count > self.args.slow_limit and name.startswith("transformers"):
                    continue
                try:
                    answer, others = self.turn(name, prompts, self.args.out)
                    figures = Figures.of(answer, self.args.prompt, self.args.out, others)
                except (ArmError, ValueError) as error:
                    self.drop(name, str(error))
                    continue
                self.runs.setdefault((name, count), []).append(figures)
                say(
                    f"rep {number + 1}, {count} streams, {name}: {figures.decode:,.0f} tok/s,"
                    f" others {others:.2f} cores"
                )

    def speculate(self) -> None:
        """Ours with drafted tokens, where few streams make that worth it; no figure is judged."""
        for count in [n for n in self.streams if n <= SPECULATED]:
            prompts = self.text.take(count, self.args.prompt)
            for name in [n for n in self.live if n.startswith("anchorhold")]:
                answer, others = self.turn(name, prompts, self.args.out, speculate=True)
                figures = Figures.of(answer, self.args.prompt, self.args.out, others)
                self.speculated.setdefault((name, count), []).append(figures)

    def grow(self) -> None:
        """One stream at each context, our modes and vLLM in turns."""
        for context in self.contexts:
            [prompt] = self.text.take(1, context - CONTEXT_OUT)
            wanted = ["anchorhold", *(["vllm"] if context <= self.sizes.longest else [])]
            for name in [n for n in self.live if n.startswith(tuple(wanted))]:
                try:
                    answer, others = self.turn(name, [prompt], CONTEXT_OUT)
                    figures = Figures.of(answer, len(prompt), CONTEXT_OUT, others)
                except (ArmError, ValueError) as error:
                    self.drop(name, str(error))
                    continue
                self.growth.setdefault(name, []).append((context, figures))

    def hit(self) -> None:
        """A new prompt of 1,024 tokens, then another with the same first 1,008."""
        for name in [n for n in self.live if n.startswith("anchorhold")]:
            prefix, *tails = self.text.take(1, PREFIX) + self.text.take(2, TAIL)
            first, _ = self.turn(name, [prefix + tails[0]], WARM_TOKENS)
            second, _ = self.turn(name, [prefix + tails[1]], WARM_TOKENS)
            cold, warm = (a["times"][0][0] - a["began"] for a in (first, second))
            self.prefix.setdefault(name, []).append(
                {"cold": cold, "hit": warm, "cached": float(second["cached"])}
            )

    def run(self) -> None:
        """Everything, in order."""
        for arm in arms(self.args):
            self.start(arm, self.args.cold if arm.engine == "anchorhold" else 1)
        for number in range(self.args.reps):
            self.repetition(number)
            self.hit()
            self.speculate()
        for name, process in self.live.items():
            if name.startswith("llamacpp-bench"):
                continue  # a process for each run: none of them lives now
            self.rss[name] = process.rss("VmHWM")
            self.resident[name] = process.rss("VmRSS")
        self.grow()

    def report(self) -> list[list[str]]:
        """All tables."""
        args = self.args
        hits = {
            name: statistics.median(row["hit"] / row["cold"] for row in rows)
            for name, rows in self.prefix.items()
        }
        cold = {name: statistics.median(found) for name, found in self.cold.items()}
        others = [f.others for runs in self.runs.values() for f in runs]
        head = [
            f"{platform.machine()}, {os.cpu_count()} cores; {args.threads} threads, {args.clock}"
            f" clock; {args.prompt} in / {args.out} out, {args.reps} repetitions",
            f"KV capacity {self.capacity:,} tokens each; medians; cores used by others: median "
            f"{statistics.median(others):.2f}, most {max(others):.2f}",
        ]
        head += [f"not measured: {reason}"[:80] for reason in self.failed.values()]
        prefix = ["prefix of 1,008 tokens  TTFT cold ms    hit ms   cached"]
        prefix += [
            f"{name:<22}{statistics.median(r['cold'] for r in rows) * 1e3:14,.0f}"
            f"{statistics.median(r['hit'] for r in rows) * 1e3:10,.0f}"
            f"{min(r['cached'] for r in rows):9,.0f}"
            for name, rows in self.prefix.items()
        ]
        names = [name for name, _ in self.runs]
        pairs = [
            (mine, theirs)
            for mine, rivals in (
                ("anchorhold bf16", ("vllm bf16", "openvino bf16", "llamacpp bf16",
                                     "llamacpp-bench bf16", "transformers bf16")),
                ("anchorhold w8a8", ("vllm w8a8", "openvino int8")),
                ("anchorhold w8a16", ("openvino int8", "llamacpp q8_0", "llamacpp-bench q8_0")),
            )
            for theirs in rivals
            if mine in names and theirs in names
        ]  # fmt: skip
        # llama.cpp keeps 16-bit keys and values for all its slots together, zeroed at the start.
        kept = self.capacity * self.shape.kv_bytes
        arena = {
            name: kept if name.startswith("llamacpp ") else process.arena
            for name, process in self.live.items()
        }
        versions = {name: process.version for name, process in self.live.items()}
        judged = verdicts(self.runs, self.rss, cold, hits)
        return [
            head,
            engine_table.speed(self.runs),
            engine_table.speculation(self.speculated, self.runs),
            engine_table.ratios(self.runs, pairs, ratio),
            engine_table.memory(self.rss, self.resident, arena, cold, versions),
            prefix,
            engine_table.growth(self.growth),
            engine_table.bounds(self.runs, self.roof, self.shape, args.prompt, args.out),
            engine_table.judged(judged),
        ]

    def picture(self) -> str:
        """Growth with batch and with context."""
        args = self.args
        batch: dict[str, list[tuple[float, float]]] = {}
        allowed: dict[str, list[tuple[float, float]]] = {}
        for (name, count), runs in self.runs.items():
            batch.setdefault(name, []).append((count, Figures.median(runs).decode))
            if name.startswith("anchorhold"):
                mode = name.split()[1].replace("bf16", "bfloat16")
                bound = self.shape.decode(self.roof, mode, count, args.prompt + args.out / 2)
                allowed.setdefault(name, []).append((count, bound))
        context = {n: [(float(c), f.itl_p50) for c, f in rows] for n, rows in self.growth.items()}
        return svg(
            [
                Panel("decode, tokens a second", "streams", batch, allowed),
                Panel("one stream: ms between tokens", "context, tokens", context, {}),
            ]
        )

    def close(self) -> None:
        """End every engine."""
        for process in self.live.values():
            process.close()


def record(bench: Bench) -> dict[str, Any]:
    """Everything measured, for --json."""
    return {
        "setup": {k: str(v) for k, v in vars(bench.args).items()} | {"capacity": bench.capacity},
        "roofline": asdict(bench.roof),
        "runs": [
            {"arm": arm, "streams": count, "repetitions": [asdict(f) for f in figures]}
            for (arm, count), figures in bench.runs.items()
        ],
        "speculated": [
            {"arm": arm, "streams": count, "repetitions": [asdict(f) for f in figures]}
            for (arm, count), figures in bench.speculated.items()
        ],
        "growth": {
            arm: [{"context": context, **asdict(f)} for context, f in rows]
            for arm, rows in bench.growth.items()
        },
        "prefix": bench.prefix,
        "peak_rss": bench.rss,
        "rss_after_runs": bench.resident,
        "arena": {name: process.arena for name, process in bench.live.items()},
        "cold_start": bench.cold,
        "versions": {name: process.version for name, process in bench.live.items()},
        "failed": bench.failed,
    }


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the engine beside its peers on CPU.")
    parser.add_argument("--peers", type=Path, help="folder that scripts/install-peers filled")
    parser.add_argument("--engines", default=",".join(PEERS), help="which peers")
    parser.add_argument("--modes", default="bfloat16,w8a8,w8a16", help="of our engine")
    parser.add_argument("--model", type=Path, help="bf16 folder (default: the peers')")
    parser.add_argument("--model-w8a8", type=Path, help="quantised folder (default: the peers')")
    parser.add_argument("--streams", default="1,4,16,32,64")
    parser.add_argument("--contexts", default="64,256,1024,4096,8192", help="'' leaves them out")
    parser.add_argument("--prompt", type=int, default=128, help="tokens in")
    parser.add_argument("--out", type=int, default=128, help="tokens out")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=CLOCK)
    parser.add_argument("--cold", type=int, default=3, help="starts of our engine")
    parser.add_argument("--quiet", type=float, default=0, help="wait this long for a quiet moment")
    parser.add_argument("--slow-limit", type=int, default=32, help="most streams of transformers")
    parser.add_argument("--logs", type=Path, help="of the engines (default: in the peers' folder)")
    parser.add_argument("--json", type=Path, help="write everything measured")
    parser.add_argument("--svg", type=Path, help="write the growth diagrams")
    args = parser.parse_args()
    if args.clock == "cpu":
        args.threads = 1
    if args.peers is None and (args.model is None or args.logs is None):
        parser.error("without --peers, --model and --logs are needed")
    if args.peers is not None:
        args.model = args.model or args.peers / "models/bfloat16"
        args.model_w8a8 = args.model_w8a8 or args.peers / "models/w8a8"
        args.logs = args.logs or args.peers / "logs"
    args.model_w8a8 = args.model_w8a8 or args.model
    return args


def main() -> int:
    """Measure, print, and end 1 when a floor was missed."""
    bench = Bench(options())
    try:
        bench.run()
        parts = bench.report()
        print("\n\n".join("\n".join(part) for part in parts))
        if bench.args.json is not None:
            bench.args.json.write_text(json.dumps(record(bench), indent=1) + "\n")
        if bench.args.svg is not None:
            bench.args.svg.write_text(bench.picture())
    finally:
        bench.close()
    return 1 if any(line.endswith(" FAIL") for line in parts[-1]) else 0


if __name__ == "__main__":
    sys.exit(main())
