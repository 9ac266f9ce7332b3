"""The operations of a decoder layer, in plain torch.

These are the reference. A faster backend replaces a function here, takes the same arguments, and is
chosen at start only after it agreed with the reference.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from .rows import ChunkRows, Rows

# Rows of activations whose largest value is below are rounded to zeros, as in the native kernels.
_FAINT = 1e-30


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
    """Root-mean-square normalisation: float32 [rows, hidden] -> `dtype` [rows, hidden]."""
    return F.rms_norm(x, weight.shape, weight, eps).to(dtype)


def qk_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise each head by itself: [rows, heads, head_dim], weight float32 [heads, head_dim]."""
    return (F.rms_norm(x.float(), x.shape[-1:], None, eps) * weight).to(x.dtype)


def quantise_rows(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round rows to symmetric integers, halves to even.

    Args:
        x: float32 [rows, k].
        bits: 8 or 16.

    Returns:
        Integers of at most 127 or 32767 as float32 [rows, k], and their scale [rows, 1].
    """
    most = 2.0 ** (bits - 1) - 1
    peak = x.abs().amax(-1, keepdim=True)
    # Divided as one tensor by another: torch multiplies by the reciprocal for a plain number.
    # What is fainter is nothing: its inverse would be infinite. What is not finite stays it.
    heard = ~(peak < _FAINT)
    up = torch.where(heard, torch.tensor(most) / peak, 0.0)
    return (x * up).round(), torch.where(heard, peak / most, 0.0)


def linear_int8(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bits: int
) -> torch.Tensor:
    """x @ (weight * scale).T with x rounded to integers: an exact sum, scaled at the end.

    Args:
        x: float32 [rows, k].
        weight: int8 [n, k].
        scale: float32 [n].
        bits: of x, 8 or 16.
    """
    whole, up = quantise_rows(x, bits)
    # Sums stay far below 2^53, so float64 holds each exactly, in whatever order it is added.
    return (whole.double() @ weight.double().T).float() * (up * scale)


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate [rows, heads, head_dim] by the position of each row.

    Args:
        x: queries and keys together.
        cos: [rows, 1, head_dim], both halves alike.
        sin: [rows, 1, head_dim], the first half negated, which makes the rotation a plain roll.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up: [rows, 2 * intermediate] -> [rows, intermediate]."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def paged_attention(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, rows: Rows, scale: float
) -> torch.Tensor:
    """Causal attention of every row over the pages of its own sequence.

    Args:
        q: [rows, heads, head_dim].
        k_pages: [pages, kv_heads, 16, head_dim] of this layer, the new keys already stored; read
            in q's dtype.
        v_pages: the same for values.
        rows: which of them read which pages.
        scale: of the scores.

    Returns:
        [rows, heads, head_dim] in q's dtype.
    """
    return torch.cat([_attend(q, k_pages, v_pages, chunk, scale) for chunk in rows.chunks])


def _attend(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, chunk: ChunkRows, scale: float
) -> torch.Tensor:
    """Queries of one sequence: its pages gathered once, then torch's fused attention.

    The heads that share a key head are laid after one another as if they were more queries, which
    spares the copies that broadcasting the keys would make.
    """
    _, heads, dim = q.shape
    kv_heads, n = k_pages.shape[1], chunk.count
    k, v = (
        pages.index_select(0, chunk.pages).transpose(0, 1).reshape(kv_heads, -1, dim).to(q.dtype)
        for pages in (k_pages, v_pages)
    )
    rows = q[chunk.first : chunk.first + n].transpose(0, 1).reshape(1, kv_heads, -1, dim)
    out = F.scaled_dot_product_attention(
        rows, k[None, :, : chunk.keys], v[None, :, : chunk.keys], attn_mask=chunk.mask, scale=scale
    )
    return out.view(heads, n, dim).transpose(0, 1)
