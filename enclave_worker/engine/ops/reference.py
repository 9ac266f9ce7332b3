"""The four operations of a decoder layer that are not matrix products, in plain torch.

These are the reference. A faster backend replaces a function here, takes the same arguments, and is
chosen at start only after it agreed with the reference.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from .rows import ChunkRows, Rows, SingleRows


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
    """Root-mean-square normalisation: float32 [rows, hidden] -> `dtype` [rows, hidden]."""
    return F.rms_norm(x, weight.shape, weight, eps).to(dtype)


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
        q: [rows, heads, head_dim], single rows first, then the chunks in order.
        k_pages: [pages, kv_heads, 16, head_dim] of this layer, the new keys already stored.
        v_pages: the same for values.
        rows: which of them read which pages.
        scale: of the scores.

    Returns:
        [rows, heads, head_dim] in q's dtype.
    """
    parts = []
    if rows.singles is not None:
        parts.append(_attend_singles(q, k_pages, v_pages, rows.singles, scale))
    parts.extend(_attend_chunk(q, k_pages, v_pages, chunk, scale) for chunk in rows.chunks)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend_singles(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, rows: SingleRows, scale: float
) -> torch.Tensor:
    """One query a sequence: scores page by page, then one softmax across each row's pages.

    Pages are read in place where the batch fills a stretch of the pool (a copy would cost more
    than the arithmetic). A page in the stretch that belongs to nobody here adds to a row that is
    thrown away: never to a neighbour with weight zero, for 0 * NaN is NaN.
    """
    count, (_, heads, dim) = rows.count, q.shape
    kv_heads, page = k_pages.shape[1], k_pages.shape[2]
    if rows.stretch is not None:
        k, v = k_pages[slice(*rows.stretch)], v_pages[slice(*rows.stretch)]
    else:
        k, v = k_pages.index_select(0, rows.pages), v_pages.index_select(0, rows.pages)
    n = k.shape[0]
    per_page = q[:count].reshape(count, -1).index_select(0, rows.source)
    scores = torch.bmm(
        per_page.view(n * kv_heads, heads // kv_heads, dim),
        k.view(n * kv_heads, page, dim).transpose(1, 2),
    )
    s = scores.view(n, heads, page).float().mul_(scale).add_(rows.mask)
    # Row `count` collects what belongs to nobody.
    peak = s.new_full((count + 1, heads), -torch.inf)
    peak.scatter_reduce_(0, rows.target[:, None].expand(n, heads), s.amax(-1), "amax")
    e = s.sub_(peak.index_select(0, rows.target)[:, :, None]).exp_()
    mass = s.new_zeros(count + 1, heads).index_add_(0, rows.target, e.sum(-1))
    values = torch.bmm(
        e.view(n * kv_heads, heads // kv_heads, page).to(v.dtype), v.view(n * kv_heads, page, dim)
    )
    total = s.new_zeros(count + 1, heads * dim)
    total.index_add_(0, rows.target, values.view(n, heads * dim).float())
    return (total[:count].view(count, heads, dim) / mass[:count, :, None]).to(q.dtype)


def _attend_chunk(
    q: torch.Tensor, k_pages: torch.Tensor, v_pages: torch.Tensor, chunk: ChunkRows, scale: float
) -> torch.Tensor:
    """Several queries of one sequence: its pages gathered once, then torch's fused attention.

    The heads that share a key head are laid after one another as if they were more queries, which
    spares the copies that broadcasting the keys would make.
    """
    _, heads, dim = q.shape
    kv_heads, n = k_pages.shape[1], chunk.count
    k = k_pages.index_select(0, chunk.pages).transpose(0, 1).reshape(kv_heads, -1, dim)
    v = v_pages.index_select(0, chunk.pages).transpose(0, 1).reshape(kv_heads, -1, dim)
    rows = q[chunk.first : chunk.first + n].transpose(0, 1).reshape(1, kv_heads, -1, dim)
    out = F.scaled_dot_product_attention(
        rows, k[None, :, : chunk.keys], v[None, :, : chunk.keys], attn_mask=chunk.mask, scale=scale
    )
    return out.view(heads, n, dim).transpose(0, 1)
