"""Attention over pages on a GPU: one Triton kernel for decoding and for chunks of prompts.

A program takes a tile of 64 rows (the heads that share a key head, times consecutive queries of one
sequence) through one split of its keys, 64 at a time, with a running softmax (Milakov and
Gimelshein, 2018; FlashAttention-2, Dao, 2023). A split is so many keys, not a share of them
(Flash-Decoding, with its number of splits fixed instead, would add up differently in another
batch), so the bits of a row depend on its query and its keys only: not on the batch, nor on how a
prompt was cut.

Imported only where a GPU computes, and by tests, which run it through Triton's interpreter.
"""

import math
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.plan import Chunk, StepPlan

from .reference import paged_attention
from .rows import TILE_ROWS, Rows, Staging, lay_out

# Keys of one program: fewer fill a GPU sooner when few sequences decode, more cost less to add up.
SPLIT = 512
_BLOCK = 64
# The self-test: heads, key heads, dimension; the rows of each sequence, and what lies before them.
_SHAPES = ((16, 8, 128), (9, 3, 64), (4, 1, 80))
_ROWS = ((1, 0), (1, 15), (1, 700), (37, 0), (20, 500))
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@triton.jit  # type: ignore[untyped-decorator]
def _attend(
    q: Any,
    k: Any,
    v: Any,
    tiles: Any,
    pages: Any,
    sums: Any,
    scales: Any,
    q_stride: Any,
    splits: Any,
    log2_scale: Any,
    KV_HEADS: tl.constexpr,  # noqa: N803 - compile-time constants are written so in Triton
    GROUP: tl.constexpr,  # noqa: N803
    DIM: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    SPLIT: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    PAGE: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
) -> None:
    """One tile, key head and split: unscaled sums [rows, heads, splits, dim], maximum and total."""
    tile, kv, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = tl.load(tiles + tile * 4)
    count = tl.load(tiles + tile * 4 + 1)
    start = tl.load(tiles + tile * 4 + 2)
    table = pages + tl.load(tiles + tile * 4 + 3)
    begin, end = split * SPLIT, tl.minimum(split * SPLIT + SPLIT, start + count)
    if begin < end:
        m, d = tl.arange(0, ROWS), tl.arange(0, WIDTH)
        query, head = m // GROUP, kv * GROUP + m % GROUP
        row, position, live = first + query, start + query, query < count
        inside = d[None, :] < DIM
        here = q + row[:, None] * q_stride + head[:, None] * DIM + d[None, :]
        x = tl.load(here, mask=live[:, None] & inside, other=0.0)
        if WIDE:
            x = x.to(tl.float32)
        peak = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, WIDTH], tl.float32)
        for block in range(begin, end, BLOCK):
            key = block + tl.arange(0, BLOCK)
            page = tl.load(table + key // PAGE, mask=key < end, other=0)
            there = ((page * KV_HEADS + kv) * PAGE + key % PAGE)[:, None] * DIM + d[None, :]
            real = (key < end)[:, None] & inside
            keys = tl.load(k + there, mask=real, other=0.0)
            values = tl.load(v + there, mask=real, other=0.0)
            if WIDE:
                keys = keys.to(tl.float32)
            score = tl.dot(x, tl.trans(keys), input_precision="ieee") * log2_scale
            score = tl.where(key[None, :] <= position[:, None], score, float("-inf"))
            higher = tl.maximum(peak, tl.max(score, 1))
            # A row that may not look at this split yet has no maximum to subtract.
            shift = tl.where(higher == float("-inf"), 0.0, higher)
            weight = tl.exp2(score - shift[:, None])
            fade = tl.exp2(peak - shift)
            total = total * fade + tl.sum(weight, 1)
            weight = weight.to(values.dtype)
            if WIDE:
                weight, values = weight.to(tl.float32), values.to(tl.float32)
            acc = acc * fade[:, None] + tl.dot(weight, values, input_precision="ieee")
            peak = higher
        out = (row * (KV_HEADS * GROUP) + head) * splits + split
        tl.store(sums + out[:, None] * DIM + d[None, :], acc, mask=live[:, None] & inside)
        tl.store(scales + out * 2, peak, mask=live)
        tl.store(scales + out * 2 + 1, total, mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def _combine(
    sums: Any,
    scales: Any,
    tiles: Any,
    out: Any,
    splits: Any,
    KV_HEADS: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
    DIM: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    SPLIT: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
) -> None:
    """Add up the splits of one tile and key head, first to last."""
    tile, kv = tl.program_id(0), tl.program_id(1)
    first, count = tl.load(tiles + tile * 4), tl.load(tiles + tile * 4 + 1)
    start = tl.load(tiles + tile * 4 + 2)
    m, d = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    query, live = m // GROUP, m // GROUP < count
    at = (query + first) * (KV_HEADS * GROUP) + kv * GROUP + m % GROUP
    real = live[:, None] & (d < DIM)[None, :]
    peak = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    for split in range((start + count - 1) // SPLIT + 1):
        here = at * splits + split
        next_peak = tl.load(scales + here * 2, mask=live, other=-1e30)
        higher = tl.maximum(peak, next_peak)
        fade, part = tl.exp2(peak - higher), tl.exp2(next_peak - higher)
        total = total * fade + tl.load(scales + here * 2 + 1, mask=live, other=0.0) * part
        more = tl.load(sums + here[:, None] * DIM + d[None, :], mask=real, other=0.0)
        acc = acc * fade[:, None] + more * part[:, None]
        peak = higher
    total = tl.where(live, total, 1.0)
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + at[:, None] * DIM + d[None, :], result, mask=real)


def triton_attention(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, rows: Rows, scale: float
) -> torch.Tensor:
    """Causal attention of every row over its own pages; as `reference.paged_attention`.

    Queries and pages have one dtype, float32 or bfloat16; sums are float32. What the kernels read
    of `rows` is tensors on the device, and how many programs run depends on their shapes and on
    `rows.longest` only, so a captured step may be replayed with other contents.
    """
    count, heads, dim = q.shape
    kv_heads, splits = k_pages.shape[1], -(-rows.longest // SPLIT)
    sums = q.new_empty((count, heads, splits, dim), dtype=torch.float32)
    scales = q.new_empty((count, heads, splits, 2), dtype=torch.float32)
    out = q.new_empty((count, heads, dim))
    sizes = {
        "KV_HEADS": kv_heads,
        "GROUP": heads // kv_heads,
        "DIM": dim,
        "WIDTH": max(triton.next_power_of_2(dim), 16),
        "SPLIT": SPLIT,
        "ROWS": TILE_ROWS,
    }
    tiles, scale = rows.tiles, scale * math.log2(math.e)  # powers of two: what the hardware has
    strides = (q.stride(0), splits, scale)
    # The interpreter's numpy has no product of bfloat16 numbers.
    more = {"BLOCK": _BLOCK, "PAGE": PAGE_SIZE, "WIDE": not q.is_cuda}
    where = (tiles.shape[0], kv_heads, splits)
    _attend[where](q, k_pages, v_pages, tiles, rows.pages, sums, scales, *strides, **sizes, **more)
    _combine[where[:2]](sums, scales, tiles, out, splits, **sizes)
    return out


def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel compiles here and computes what the reference does."""
    generator = torch.Generator().manual_seed(7)
    try:
        for heads, kv_heads, dim in _SHAPES:
            plan, pages = _sample()
            laid = lay_out(plan, heads, kv_heads, Staging(device, 4096))
            shape = (pages, kv_heads, PAGE_SIZE, dim)
            k, v = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
            q = torch.randn(len(plan.tokens), heads, dim, generator=generator).to(device, dtype)
            found = triton_attention(q, k, v, laid, dim**-0.5).float()
            expected = paged_attention(q, k, v, laid, dim**-0.5).float()
            if not torch.allclose(found, expected, atol=_CLOSE[dtype], rtol=_CLOSE[dtype]):
                return False
    except (RuntimeError, triton.TritonError):
        return False
    return True


def _sample() -> tuple[StepPlan, int]:
    """A step of sequences at edges of pages, blocks and splits; and how many pages it has."""
    chunks: list[Chunk] = []
    positions: list[int] = []
    free = 0
    for count, start in _ROWS:
        taken = range(free, free := free - (-(start + count) // PAGE_SIZE))
        chunks.append(Chunk(len(positions), count, start, taken[::-1]))
        positions += range(start, start + count)
    at = np.array(positions, np.int32)
    return StepPlan(np.zeros_like(at), at, tuple(chunks), np.zeros(0, np.int32), ()), free
