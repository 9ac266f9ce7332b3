"""What the engine is held to: each ratio with its target and the floor that may not be missed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine_run import Figures

#: (arm, streams) -> the runs, one a repetition, in the order of the repetitions.
Runs = dict[tuple[str, int], list["Figures"]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure beside its limits.

    Attributes:
        what: in words.
        found: the ratio or the seconds; None when this run did not measure it.
        target: to be reached.
        floor: that may not be missed.
        at_most: whether lower is better.
    """

    what: str
    found: float | None
    target: float
    floor: float
    at_most: bool = False

    @property
    def word(self) -> str:
        """pass, floor (between floor and target), FAIL, or not measured."""
        if self.found is None:
            return "not measured"
        if self._reaches(self.target):
            return "pass"
        return "floor" if self._reaches(self.floor) else "FAIL"

    def _reaches(self, limit: float) -> bool:
        """Whether what was found is on the right side."""
        assert self.found is not None
        return self.found <= limit if self.at_most else self.found >= limit


def ratio(runs: Runs, ours: str, theirs: str, streams: int, figure: str) -> float | None:
    """The median over repetitions of ours over theirs, in the same repetition."""
    pairs = zip(runs.get((ours, streams), []), runs.get((theirs, streams), []), strict=False)
    found = [getattr(a, figure) / getattr(b, figure) for a, b in pairs]
    return statistics.median(found) if found else None


def verdicts(
    runs: Runs,
    rss: Mapping[str, float],
    cold: Mapping[str, float],
    prefix: Mapping[str, float],
) -> list[Verdict]:
    """Judge a run.

    Args:
        runs: figures.
        rss: arm -> bytes at its peak.
        cold: arm -> seconds from start to first token.
        prefix: arm -> time to first token of a prefix hit over that of a cold prompt.
    """
    bf16, w8a8, ours = "anchorhold bf16", "anchorhold w8a8", "anchorhold"
    vllm, vllm8 = "vllm bf16", "vllm w8a8"
    found = []
    for streams in (16, 32):
        of = f"{streams} streams, decode"
        share = ratio(runs, bf16, vllm, streams, "decode")
        found.append(Verdict(f"{of}, bf16 over vLLM bf16", share, 1.25, 1.1))
        share = ratio(runs, w8a8, vllm8, streams, "decode")
        found.append(Verdict(f"{of}, W8A8 over vLLM W8A8", share, 1.6, 1.3))
    for mine, theirs, name in ((bf16, vllm, "bf16"), (w8a8, vllm8, "W8A8")):
        share = ratio(runs, mine, theirs, 32, "out")
        found.append(Verdict(f"32 streams, all out, {name} over vLLM {name}", share, 1.35, 1.1))
    share = ratio(runs, w8a8, vllm8, 32, "prefill")
    found.append(Verdict("32 prompts, prefill, W8A8 over vLLM W8A8", share, 1.1, 0.9))
    share = _best_single(runs, lambda arm: arm.startswith("llamacpp"))
    found.append(Verdict("1 stream, decode, best over best llama.cpp", share, 1.05, 0.9))
    for mine, theirs, name in ((bf16, vllm, "bf16"), (w8a8, vllm8, "W8A8")):
        share = rss[mine] / rss[theirs] if mine in rss and theirs in rss else None
        found.append(Verdict(f"peak RSS, {name} over vLLM {name}", share, 0.25, 0.4, at_most=True))
    for values, what, target, floor in (
        (cold, "cold start to first token, slowest mode, s", 4.0, 10.0),
        (prefix, "first token, prefix hit over cold, 1k, worst", 0.1, 0.25),
    ):
        mine_all = [value for arm, value in values.items() if arm.startswith(ours)]
        worst = max(mine_all) if mine_all else None
        found.append(Verdict(what, worst, target, floor, at_most=True))
    return found


def _best_single(runs: Runs, theirs: Callable[[str], bool]) -> float | None:
    """Batch 1: our best mode over their best, by the medians."""

    def best(wanted: Callable[[str], bool]) -> str | None:
        medians = {
            arm: statistics.median(run.decode for run in figures)
            for (arm, streams), figures in runs.items()
            if streams == 1 and wanted(arm)
        }
        return max(medians, key=lambda arm: medians[arm], default=None)

    mine, peer = best(lambda arm: arm.startswith("anchorhold")), best(theirs)
    return ratio(runs, mine, peer, 1, "decode") if mine and peer else None
