"""The machine's roofline, and what it allows a decoder.

    .venv/bin/python bench/engine_roofline.py [--threads 2]

Run as a script it measures: the bandwidth of reading 256 MiB, far more than any cache holds, and
the rates of matrix products of 2048 x 2048 x 2048 in bf16 and in int8. The best of many short
repeats, since others may share the machine: what the silicon can do.

The bound of a decode step of b streams at context c is the larger of two times:

    bytes(b) / bandwidth       bytes = linear weights + LM head + b * c * (KV bytes of a token)
    sum of operations / peak   2 * b * weights at the peak of their precision,
                               4 * b * c * heads * head_dim * layers at the bf16 peak

(Williams et al., "Roofline", CACM 2009.) In w8a8 the linears count at the int8 peak and the LM head
at bf16; in w8a16 an activation is two bytes, so each linear counts twice.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bytes a second and operations a second."""

    bandwidth: float
    bfloat16: float
    int8: float

    def best(self, other: Roofline) -> Roofline:
        """The higher of two measurements, each."""
        return Roofline(
            max(self.bandwidth, other.bandwidth),
            max(self.bfloat16, other.bfloat16),
            max(self.int8, other.int8),
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """What a decoder's cost depends on: weights of the linears and the head, KV row, attention."""

    linear: int
    head: int
    kv_bytes: int
    attention: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """From a model folder's config.json; raises OSError, KeyError."""
        config = json.loads((folder / "config.json").read_text())
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        dim = config.get("head_dim") or hidden // heads
        linear = 2 * hidden * heads * dim + 2 * hidden * kv_heads * dim
        linear += 3 * hidden * config["intermediate_size"]
        return cls(
            linear=linear * layers,
            head=hidden * config["vocab_size"],
            kv_bytes=2 * 2 * kv_heads * dim * layers,
            attention=4 * heads * dim * layers,
        )

    def decode(self, roof: Roofline, precision: str, streams: int, context: float) -> float:
        """Most tokens a second of `streams` sequences of `context` tokens."""
        width = 2 if precision == "bfloat16" else 1
        moved = self.linear * width + self.head * 2 + streams * context * self.kv_bytes
        busy = self._linears(roof, precision, streams)
        busy += streams * (2 * self.head + context * self.attention) / roof.bfloat16
        return streams / max(moved / roof.bandwidth, busy)

    def prefill(self, roof: Roofline, precision: str, prompt: int) -> float:
        """Most prompt tokens a second; attention is causal, the head is for one row a prompt."""
        busy = self._linears(roof, precision, prompt)
        busy += (2 * self.head + prompt * prompt / 2 * self.attention) / roof.bfloat16
        return prompt / busy

    def _linears(self, roof: Roofline, precision: str, rows: int) -> float:
        """Seconds of the linears' arithmetic."""
        once = 2 * rows * self.linear
        if precision == "bfloat16":
            return once / roof.bfloat16
        return once * (2 if precision == "w8a16" else 1) / roof.int8


def measure(threads: int, clock: str) -> Roofline:
    """Measure this machine with torch; `clock` is wall, or cpu with one thread."""
    import torch

    now = time.perf_counter if clock == "wall" else time.process_time

    def fastest(work: Callable[[], object]) -> float:
        """Seconds of the fastest call."""
        work()
        spent: list[float] = []
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(spent) < 5:
            begin = now()
            work()
            spent.append(now() - begin)
        return min(spent)

    torch.set_num_threads(threads)
    read = torch.ones(64 << 20)
    # Two ways to read everything once: which of them is faster depends on the machine.
    bandwidth = read.numel() * 4 / min(fastest(read.sum), fastest(read.amax))
    del read
    operations = 2 * 2048**3
    left, right = torch.randn(2, 2048, 2048).to(torch.bfloat16)
    bfloat16 = operations / fastest(lambda: torch.nn.functional.linear(left, right))
    codes = torch.randint(-127, 127, (2, 2048, 2048), dtype=torch.int8)
    int8 = operations / fastest(lambda: torch._int_mm(codes[0], codes[1]))  # noqa: SLF001
    return Roofline(bandwidth, bfloat16, int8)


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    roof = measure(args.threads, args.clock)
    found = {"bandwidth": roof.bandwidth, "bfloat16": roof.bfloat16, "int8": roof.int8}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
