"""Decode steps recorded once and replayed: a GPU runs a small model faster than Python calls it.

One CUDA graph for each of a few batch sizes; a step of single rows runs in the smallest that fits,
padded with rows that belong to nobody. A graph reads its inputs where they lay when it was
recorded, so they are uploaded to the same place each time (`rows.Staging`, of fixed layout).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.ops.rows import Padding, Rows, Staging, lay_out
from enclave_worker.engine.plan import StepPlan

#: Logits float32 [n, vocab], and int32 [n, 2]: the likeliest token, and whether all are finite.
Outcome = tuple[torch.Tensor, torch.Tensor]
Compute = Callable[[], Outcome]
#: Records what a call does, and returns what does it again.
Capture = Callable[[Compute], Compute]


def graph_sizes(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, then multiples of 8, up to `max_batch`, itself included."""
    sizes = [size for size in (1, 2, 4) if size < max_batch]
    return (*sizes, *range(8, max_batch, 8), max_batch)


def cuda_capture() -> Capture:
    """Capture as CUDA graphs that share their memory: they never run at the same time."""
    pool = torch.cuda.graph_pool_handle()

    def capture(compute: Compute) -> Compute:
        # cuBLAS makes its workspaces and Triton its kernels when first called, on a stream of
        # their own: neither may happen while a graph is being recorded.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outcome = compute()

        def replay() -> Outcome:
            graph.replay()
            return outcome

        return replay

    return capture


class DecodeGraphs:
    """Captured decode steps of one decoder.

    Args:
        compute: from rows to logits; called while capturing, once a size.
        capture: records a call.
        max_batch: most sequences in a step.
        max_len: most tokens of a sequence.
        heads: query heads, and key heads.
        page: of the KV store, that belongs to nobody.
        device: that computes.
    """

    def __init__(
        self,
        compute: Callable[[Rows], Outcome],
        capture: Capture,
        max_batch: int,
        max_len: int,
        heads: tuple[int, int],
        page: int,
        device: torch.device,
    ) -> None:
        """Capture every size, the largest first: its memory then serves the others."""
        self._heads, self._page, self._longest = heads, page, max_len
        # A row's token, position, slots, wanted row and tile, its pages, and the page for padding.
        each = 3 + heads[1] + 4 + -(-max_len // PAGE_SIZE)
        self._staging = Staging(device, max_batch * each + 1)
        self._captured: dict[int, Compute] = {}
        nothing = np.zeros(0, np.int32)
        for size in reversed(graph_sizes(max_batch)):
            rows = self._lay_out(StepPlan(nothing, nothing, (), nothing, ()), size)
            self._captured[size] = capture(partial(compute, rows))

    def size(self, plan: StepPlan) -> int | None:
        """The smallest captured size a step fits in; None where it must be run by itself."""
        rows = len(plan.chunks)
        if rows != len(plan.tokens) or any(chunk.adapter for chunk in plan.chunks):
            return None
        return min((size for size in self._captured if size >= rows), default=None)

    def run(self, plan: StepPlan, size: int) -> Outcome:
        """Replay: valid until the next call."""
        self._lay_out(plan, size)
        values, marks = self._captured[size]()
        return values[: len(plan.wanted)], marks[: len(plan.wanted)]

    def _lay_out(self, plan: StepPlan, size: int) -> Rows:
        """Upload a step to where its size was captured."""
        padding = Padding(size, self._page, self._longest)
        return lay_out(plan, *self._heads, self._staging, padding=padding, by_chunk=False)
