"""A step's rows as index tensors, for the attention in plain torch."""

from dataclasses import dataclass

import torch

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.plan import Chunk, StepPlan


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Rows first..first+count-1: consecutive tokens of one sequence.

    Attributes:
        first: the chunk's first row.
        count: rows.
        pages: page ids that hold the keys read.
        keys: keys read, those of the chunk included.
        mask: bool [groups * count, keys], True where a query may look; None: everywhere.
    """

    first: int
    count: int
    pages: torch.Tensor
    keys: int
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Rows:
    """A step for the torch operations.

    Attributes:
        tokens: [rows] token ids.
        positions: [rows] position of each in its sequence.
        slots: [rows * kv_heads] where each key head of each row goes in a layer's pages viewed as
            [pages * kv_heads * 16, head_dim].
        chunks: whose rows they are.
        wanted: [n] rows whose logits are wanted.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    chunks: tuple[ChunkRows, ...]
    wanted: torch.Tensor


def lay_out(plan: StepPlan, heads: int, kv_heads: int) -> Rows:
    """Turn a plan into index tensors."""
    places = [
        chunk.pages[p // PAGE_SIZE] * kv_heads * PAGE_SIZE + p % PAGE_SIZE
        for chunk in plan.chunks
        for p in range(chunk.start, chunk.start + chunk.count)
    ]
    heads_apart = torch.arange(kv_heads) * PAGE_SIZE
    return Rows(
        tokens=torch.from_numpy(plan.tokens).long(),
        positions=torch.from_numpy(plan.positions).long(),
        slots=(torch.tensor(places)[:, None] + heads_apart).view(-1),
        chunks=tuple(_chunk(chunk, heads // kv_heads) for chunk in plan.chunks),
        wanted=torch.from_numpy(plan.wanted).long(),
    )


def _chunk(chunk: Chunk, groups: int) -> ChunkRows:
    """Lay out one sequence's rows."""
    keys, mask = chunk.start + chunk.count, None
    if chunk.count > 1:
        causal = torch.ones(chunk.count, keys, dtype=torch.bool).tril_(chunk.start)
        mask = causal.repeat(groups, 1)
    used = torch.tensor(chunk.pages[: -(-keys // PAGE_SIZE)])
    return ChunkRows(chunk.first, chunk.count, used, keys, mask)
