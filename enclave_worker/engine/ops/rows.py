"""A step's rows as index tensors, for the attention in plain torch."""

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import torch

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.plan import Chunk, StepPlan

# Read the pool in place while at most half of the stretch between the first and the last page is
# foreign: beyond that, copying our pages out moves fewer bytes than reading past the others.
_STRETCH_MAX = 2


@dataclass(frozen=True, slots=True)
class SingleRows:
    """Rows 0..count-1, one query each.

    Attributes:
        count: rows.
        stretch: [first, last) pages of the pool read in place, or None to copy `pages` out.
        pages: [n] page ids, in the order of the three fields below.
        source: [n] row whose query meets the page.
        target: [n] row that takes the result; `count` for pages that are not this batch's.
        mask: float32 [n, 1, 16], -inf for slots after the row's own position.
    """

    count: int
    stretch: tuple[int, int] | None
    pages: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Rows first..first+count-1: consecutive tokens of one sequence.

    Attributes:
        first: the chunk's first row.
        count: rows.
        pages: page ids that hold the keys read.
        keys: keys read, those of the chunk included.
        mask: bool [groups * count, keys], True where a query may look.
    """

    first: int
    count: int
    pages: torch.Tensor
    keys: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A step for the torch operations.

    Attributes:
        tokens: [rows] token ids.
        positions: [rows] position of each in its sequence.
        slots: [rows * kv_heads] where each key head of each row goes in a layer's pages viewed as
            [pages * kv_heads * 16, head_dim].
        singles: the rows with one query a sequence, or None.
        chunks: the others.
        wanted: [n] rows whose logits are wanted.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    singles: SingleRows | None
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
        singles=_singles([chunk for chunk in plan.chunks if chunk.count == 1]),
        chunks=tuple(_chunk(c, heads // kv_heads) for c in plan.chunks if c.count > 1),
        wanted=torch.from_numpy(plan.wanted).long(),
    )


def _singles(chunks: Sequence_[Chunk]) -> SingleRows | None:
    """Lay out the rows with one new token."""
    if not chunks:
        return None
    pages: list[int] = []
    owners: list[int] = []
    last: list[int] = []
    offsets: list[int] = []
    for row, chunk in enumerate(chunks):
        used = chunk.start // PAGE_SIZE + 1
        pages += chunk.pages[:used]
        owners += [row] * used
        last.append(len(pages) - 1)
        offsets.append(chunk.start % PAGE_SIZE)
    ids, owner, count = torch.tensor(pages), torch.tensor(owners), len(chunks)
    mask = torch.zeros(len(pages), PAGE_SIZE)
    later = torch.arange(PAGE_SIZE) > torch.tensor(offsets)[:, None]
    mask[torch.tensor(last)] = torch.where(later, -torch.inf, 0.0)
    low, high = min(pages), max(pages) + 1
    if high - low > _STRETCH_MAX * len(pages) or len(set(pages)) != len(pages):
        return SingleRows(count, None, ids, owner, owner, mask[:, None])
    where = ids - low
    source = torch.zeros(high - low, dtype=torch.int64).index_copy_(0, where, owner)
    target = torch.full((high - low,), count).index_copy_(0, where, owner)
    spread = torch.zeros(high - low, PAGE_SIZE).index_copy_(0, where, mask)
    return SingleRows(count, (low, high), ids, source, target, spread[:, None])


def _chunk(chunk: Chunk, groups: int) -> ChunkRows:
    """Lay out several consecutive rows."""
    keys = chunk.start + chunk.count
    causal = torch.ones(chunk.count, keys, dtype=torch.bool).tril_(chunk.start)
    used = torch.tensor(chunk.pages[: -(-keys // PAGE_SIZE)])
    return ChunkRows(chunk.first, chunk.count, used, keys, causal.repeat(groups, 1))
