"""What a run of the engine bench prints: tables of at most 80 columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine_run import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engine_roofline import Roofline, Shape
    from engine_targets import Runs, Verdict

MIB = 1 << 20


def number(value: float | None, width: int, digits: int = 0) -> str:
    """A number, or a dash where there is none; fewer digits rather than no space before it."""
    if value is None or math.isnan(value):
        return "-".rjust(width)
    for written in (f"{value:,.{digits}f}", f"{value:.0f}", f"{value / 1e3:.0f}k"):
        if len(written) < width:
            return written.rjust(width)
    return written


def speed(runs: Runs) -> list[str]:
    """A line for each arm and stream count: medians."""
    lines = [
        "                          tokens a second      TTFT ms       ITL ms  others",
        "engine               n  decode    out prefill   p50   p95   p50   p95  cores",
    ]
    for (arm, streams), figures in sorted(runs.items(), key=lambda x: (x[0][1], -rate(x[1]))):
        f = Figures.median(figures)
        lines.append(
            f"{arm:<18}{streams:>4}{number(f.decode, 8)}{number(f.out, 7)}{number(f.prefill, 8)}"
            f"{number(f.ttft_p50, 6)}{number(f.ttft_p95, 6)}{number(f.itl_p50, 6, 1)}"
            f"{number(f.itl_p95, 6, 1)}{number(f.others, 7, 2)}"
        )
    return lines


def speculation(speculated: Runs, runs: Runs) -> list[str]:
    """Ours with drafted tokens beside itself without, on other prompts of the same text."""
    lines = ["with n-gram speculation     n  decode  over without, ITL p95 ms"]
    for (arm, streams), figures in speculated.items():
        f, plain = Figures.median(figures), runs.get((arm, streams))
        gain = f.decode / rate(plain) if plain else None
        lines.append(
            f"{arm:<24}{streams:>5}{number(f.decode, 8)}{number(gain, 14, 2)}"
            f"{number(f.itl_p95, 12, 1)}"
        )
    return lines


def rate(figures: Sequence[Figures]) -> float:
    """What the lines of one stream count are ordered by."""
    return Figures.median(figures).decode


def memory(
    rss: Mapping[str, float],
    resident: Mapping[str, float],
    arena: Mapping[str, int],
    cold: Mapping[str, float],
    versions: Mapping[str, str],
) -> list[str]:
    """Memory and start of each arm."""
    lines = [
        "                     RSS MiB           KV  RSS less  cold",
        "engine               peak  after    arena     arena start s  version",
    ]
    for arm, peak in rss.items():
        kept = arena.get(arm) or None
        lines.append(
            f"{arm:<18}{number(peak / MIB, 7)}{number(resident[arm] / MIB, 7)}"
            f"{number(kept / MIB if kept else None, 9)}"
            f"{number((peak - kept) / MIB if kept else None, 10)}{number(cold.get(arm), 8, 1)}"
            f"  {versions[arm].split()[-1]}"
        )
    return lines


def bounds(runs: Runs, roof: Roofline, shape: Shape, prompt: int, out: int) -> list[str]:
    """Our modes beside what the roofline allows."""
    lines = [
        f"roofline: {roof.bandwidth / 1e9:.1f} GB/s read, {roof.bfloat16 / 1e9:,.0f} GFLOP/s bf16,"
        f" {roof.int8 / 1e9:,.0f} GOP/s int8",
        "bound = n / max(bytes / bandwidth, sum of operations / peak)",
        "engine               n  decode   bound  share  prefill   bound  share",
    ]
    for (arm, streams), figures in sorted(runs.items(), key=lambda x: (x[0][0], x[0][1])):
        engine, precision = arm.split()
        if engine != "anchorhold":
            continue
        mode = "bfloat16" if precision == "bf16" else precision
        f = Figures.median(figures)
        decode = shape.decode(roof, mode, streams, prompt + out / 2)
        prefill = shape.prefill(roof, mode, prompt)
        lines.append(
            f"{arm:<18}{streams:>4}{number(f.decode, 8)}{number(decode, 8)}"
            f"{f.decode / decode:>7.0%}{number(f.prefill, 9)}{number(prefill, 8)}"
            f"{f.prefill / prefill:>7.0%}"
        )
    return lines


def ratios(runs: Runs, pairs: Sequence[tuple[str, str]], ratio: object) -> list[str]:
    """Ours over each peer, per stream count: decode, all out, prefill, time between tokens."""
    assert callable(ratio)
    lines = ["ours / peer                            n  decode    out  prefill  ITL p50"]
    for mine, theirs in pairs:
        for streams in sorted({n for arm, n in runs if arm == mine}):
            found = [
                ratio(runs, mine, theirs, streams, figure)
                for figure in ("decode", "out", "prefill", "itl_p50")
            ]
            if found[0] is not None:
                title = f"{mine} / {theirs}"
                lines.append(
                    f"{title:<36}{streams:>4}{number(found[0], 8, 2)}{number(found[1], 7, 2)}"
                    f"{number(found[2], 9, 2)}{number(found[3], 9, 2)}"
                )
    return lines


def growth(contexts: Mapping[str, Sequence[tuple[int, Figures]]]) -> list[str]:
    """One stream at each context."""
    lines = ["one stream: engine    context  TTFT ms  prefill tok/s  ITL p50 ms"]
    for arm, rows in contexts.items():
        lines.extend(
            f"{arm:<20}{context:>9,}{number(f.ttft_p50, 9)}{number(f.prefill, 15)}"
            f"{number(f.itl_p50, 12, 1)}"
            for context, f in rows
        )
    return lines


def judged(verdicts: Sequence[Verdict]) -> list[str]:
    """Each figure with target, floor and the word."""
    lines = ["what                                           found   target   floor"]
    for v in verdicts:
        sign = "<=" if v.at_most else ">="
        lines.append(
            f"{v.what:<45}{number(v.found, 7, 2)}  {sign}{v.target:5.2f}  {v.floor:6.2f}  {v.word}"
        )
    return lines


def write(path: Path, parts: Sequence[Sequence[str]]) -> None:
    """All tables into one file."""
    path.write_text("\n\n".join("\n".join(part) for part in parts) + "\n")
