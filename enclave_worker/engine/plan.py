"""One step laid out for the model: which token sits in which row, and which pages it may read.

Computed once a step and shared by all layers. Rows with a single new token (every decoding
sequence, and the last token of a prompt cut at the budget) come first, then the chunks of prompts.
"""

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

import torch

from .config import PAGE_SIZE
from .sequence import Sequence

# Read the pool in place while at most half of the stretch between the first and the last page is
# foreign: beyond that, copying our pages out moves fewer bytes than reading past the others.
_STRETCH_MAX = 2


@dataclass(frozen=True, slots=True)
class Work:
    """`count` tokens of one sequence, from the first one not yet computed."""

    sequence: Sequence
    count: int


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
class StepPlan:
    """Everything the model needs for one step.

    Attributes:
        tokens: [rows] token ids.
        positions: [rows] position of each in its sequence.
        slots: [rows * kv_heads] where each key head of each row goes in a layer's pages viewed as
            [pages * kv_heads * 16, head_dim].
        singles: the rows with one query a sequence, or None.
        chunks: the others.
        last_rows: rows whose next token is wanted, in the order of `sampled`.
        sampled: the sequences they belong to.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    singles: SingleRows | None
    chunks: tuple[ChunkRows, ...]
    last_rows: torch.Tensor
    sampled: tuple[Sequence, ...]


def plan_step(work: Sequence_[Work], heads: int, kv_heads: int) -> StepPlan:
    """Lay out the work of one step."""
    ordered = sorted(work, key=lambda item: item.count > 1)
    tokens: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    last_rows: list[int] = []
    sampled: list[Sequence] = []
    chunks: list[ChunkRows] = []
    for item in ordered:
        sequence, start = item.sequence, item.sequence.computed
        stop = start + item.count
        if item.count > 1:
            chunks.append(_chunk(sequence.pages, start, item.count, len(tokens), heads // kv_heads))
        tokens.extend(sequence.tokens[start:stop])
        positions.extend(range(start, stop))
        places.extend(
            sequence.pages[p // PAGE_SIZE] * kv_heads * PAGE_SIZE + p % PAGE_SIZE
            for p in range(start, stop)
        )
        if stop == len(sequence.tokens):
            last_rows.append(len(tokens) - 1)
            sampled.append(sequence)
    heads_apart = torch.arange(kv_heads) * PAGE_SIZE
    return StepPlan(
        tokens=torch.tensor(tokens),
        positions=torch.tensor(positions),
        slots=(torch.tensor(places)[:, None] + heads_apart).view(-1),
        singles=_singles([item.sequence for item in ordered if item.count == 1]),
        chunks=tuple(chunks),
        last_rows=torch.tensor(last_rows, dtype=torch.int64),
        sampled=tuple(sampled),
    )


def _singles(sequences: Sequence_[Sequence]) -> SingleRows | None:
    """Lay out the rows with one new token."""
    if not sequences:
        return None
    pages: list[int] = []
    owners: list[int] = []
    last: list[int] = []
    offsets: list[int] = []
    for row, sequence in enumerate(sequences):
        used = sequence.computed // PAGE_SIZE + 1
        pages += sequence.pages[:used]
        owners += [row] * used
        last.append(len(pages) - 1)
        offsets.append(sequence.computed % PAGE_SIZE)
    ids, owner, count = torch.tensor(pages), torch.tensor(owners), len(sequences)
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


def _chunk(pages: list[int], start: int, count: int, first: int, groups: int) -> ChunkRows:
    """Lay out one chunk of a prompt."""
    keys = start + count
    causal = torch.ones(count, keys, dtype=torch.bool).tril_(start)
    used = torch.tensor(pages[: -(-keys // PAGE_SIZE)])
    return ChunkRows(first, count, used, keys, causal.repeat(groups, 1))
