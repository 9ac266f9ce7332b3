"""A step's rows as index tensors on the device that computes, packed into one upload.

Crossing to a GPU costs the same for a few bytes as for many, most of all a confidential one, so
everything a step needs goes there in one copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.plan import Chunk, StepPlan

# Rows of a tile of the GPU's attention. The same in every step: another number adds up differently.
TILE_ROWS = 64
CPU = torch.device("cpu")


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
    """A step for the torch operations: int64 views of what was uploaded, until the next upload.

    Attributes:
        tokens: [rows] token ids.
        positions: [rows] position of each in its sequence.
        slots: [rows * kv_heads] where each key head of each row goes in a layer's pages viewed as
            [pages * kv_heads * 16, head_dim].
        wanted: [n] rows whose logits are wanted.
        tiles: [tiles, 4] rows that attend together: first row, how many, position of the first,
            and where its sequence's pages begin in `pages`.
        pages: page ids of all sequences, one after another.
        longest: most keys any row reads, or more.
        chunks: whose rows they are; empty where the tiles are read instead.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    wanted: torch.Tensor
    tiles: torch.Tensor
    pages: torch.Tensor
    longest: int
    chunks: tuple[ChunkRows, ...]


class Staging:
    """Pinned host memory and its copy on the device, which stays where it is while it has room.

    Args:
        device: that computes.
        room: numbers it holds; more are made room for elsewhere.
    """

    def __init__(self, device: torch.device, room: int) -> None:
        """Reserve both."""
        self.device = device
        self._host = torch.zeros(room, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._copy = torch.zeros(room, dtype=torch.int64, device=device)

    def upload(self, parts: Sequence[npt.NDArray[np.int64]]) -> tuple[torch.Tensor, ...]:
        """One copy of all parts, in order; returns them on the device."""
        sizes = [part.size for part in parts]
        total = sum(sizes)
        if total > len(self._host):
            self.__init__(self.device, 2 * total)  # type: ignore[misc]
        np.concatenate(parts, out=self._host.numpy()[:total])
        # Blocking: the next step may not write over what is still being copied.
        self._copy[:total].copy_(self._host[:total])
        ends = np.cumsum(sizes).tolist()
        return tuple(self._copy[end - n : end] for n, end in zip(sizes, ends, strict=True))


@dataclass(frozen=True, slots=True)
class Padding:
    """How a step of single rows is made as large as a captured one.

    Attributes:
        rows: as many as were captured.
        page: that belongs to nobody; rows that pad read and write there.
        longest: keys that may be read.
    """

    rows: int
    page: int
    longest: int


def lay_out(
    plan: StepPlan,
    heads: int,
    kv_heads: int,
    staging: Staging | None = None,
    *,
    padding: Padding | None = None,
    by_chunk: bool = True,
) -> Rows:
    """Turn a plan into index tensors, on the CPU without `staging`.

    The pages come last, so that steps of as many single rows differ in nothing before them.
    """
    places: list[int] = []
    tiles: list[tuple[int, int, int, int]] = []
    pages: list[int] = []
    bases: list[int] = []
    at_once = TILE_ROWS * kv_heads // heads or 1
    for chunk in plan.chunks:
        keys, base = chunk.start + chunk.count, len(pages)
        pages.extend(chunk.pages[: -(-keys // PAGE_SIZE)])
        bases.append(base)
        places.extend(_place(pages[base + p // PAGE_SIZE], p) for p in range(chunk.start, keys))
        for skip in range(0, chunk.count, at_once):
            count = min(at_once, chunk.count - skip)
            tiles.append((chunk.first + skip, count, chunk.start + skip, base))
    longest = max((chunk.start + chunk.count for chunk in plan.chunks), default=1)
    short = wanted = 0
    if padding is not None:
        short, wanted = padding.rows - len(places), padding.rows - len(plan.wanted)
        tiles.extend((len(places) + i, 1, 0, len(pages)) for i in range(short))
        places.extend([_place(padding.page, 0)] * short)
        pages.append(padding.page)
        longest = padding.longest
    where = np.array(places, np.int64)[:, None]
    slots = (where - where % PAGE_SIZE) * kv_heads + where % PAGE_SIZE
    parts = (
        np.pad(plan.tokens.astype(np.int64), (0, short)),
        np.pad(plan.positions.astype(np.int64), (0, short)),
        (slots + np.arange(kv_heads) * PAGE_SIZE).reshape(-1),
        np.pad(plan.wanted.astype(np.int64), (0, wanted)),
        np.array(tiles, np.int64).reshape(-1),
        np.array(pages, np.int64),
    )
    staging = staging or Staging(CPU, sum(part.size for part in parts))
    tokens, positions, index, last, tile, table = staging.upload(parts)
    chunks = tuple(
        _chunk(chunk, table[base:], heads // kv_heads)
        for chunk, base in zip(
            plan.chunks if by_chunk else (), bases if by_chunk else (), strict=True
        )
    )
    return Rows(tokens, positions, index, last, tile.view(-1, 4), table, longest, chunks)


def _place(page: int, position: int) -> int:
    """Where a position lies, were there one key head."""
    return page * PAGE_SIZE + position % PAGE_SIZE


def _chunk(chunk: Chunk, pages: torch.Tensor, groups: int) -> ChunkRows:
    """Lay out one sequence's rows."""
    keys, mask = chunk.start + chunk.count, None
    if chunk.count > 1:
        causal = torch.ones(chunk.count, keys, dtype=torch.bool, device=pages.device)
        mask = causal.tril_(chunk.start).repeat(groups, 1)
    return ChunkRows(chunk.first, chunk.count, pages[: -(-keys // PAGE_SIZE)], keys, mask)
