"""Every compiled kernel against its torch reference, on small fixed inputs, before it is used.

A library can be whole and measured and still be wrong here: another compiler, a processor with a
fault, an instruction that is emulated. What disagrees is not used.
"""

import ctypes
from collections.abc import Callable, Iterator

import numpy as np
import torch

from enclave_worker.engine.config import PAGE_SIZE
from enclave_worker.engine.errors import KernelError
from enclave_worker.engine.plan import Chunk, StepPlan

from .abi import Form
from .library import Library
from .packing import Arena
from .reference import linear_int8, paged_attention, rms_norm, rope, silu_mul
from .rows import lay_out

_EPS = 1e-5
# Rows, outputs and inputs of the products: several tiles, and no panel or lane group full.
_ROWS, _N, _K = 19, 100, 70
# Heads, key heads and dimension: the one that has its own kernel, and one that has not.
_HEADS = ((6, 2, 64), (3, 1, 24))
# Positions of the queries: pages before them, and edges of pages among them.
_START, _QUERIES = 37, 20
# float32 sums in another order; attention also rounds weights and queries to bfloat16.
_CLOSE, _CLOSE_ATTENTION = 1e-4, 2e-2

Draw = Callable[..., torch.Tensor]
# What was computed, what torch computes, and how far they may be apart.
Outcome = tuple[str, torch.Tensor, torch.Tensor, float]


def check(library: Library) -> None:
    """Compare; raises KernelError naming the first kernel that disagrees."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    for part in (_rows(library, draw), _products(library, draw), _attention(library, draw)):
        for name, found, expected, tolerance in part:
            if not torch.allclose(found, expected, atol=tolerance, rtol=tolerance):
                apart = float((found - expected).abs().max())
                raise KernelError(
                    f"native {library.name} kernel {name}: found it {apart:.2g} away from torch, "
                    f"expected at most {tolerance:g}"
                )


def _rows(library: Library, draw: Draw) -> Iterator[Outcome]:
    """Norm, gate, rotation."""
    x, weight, out = draw(_ROWS, _K) * 3, draw(_K), torch.empty(_ROWS, _K)
    library.call["ah_rms_norm"](*_at(x, weight), _EPS, _ROWS, _K, *_at(out))
    yield "rms_norm", out, rms_norm(x, weight, _EPS, torch.float32), _CLOSE
    x, out = draw(_ROWS, 2 * _K) * 9, torch.empty(_ROWS, _K)
    library.call["ah_silu_mul"](*_at(x), _ROWS, _K, *_at(out))
    yield "silu_mul", out, silu_mul(x), _CLOSE
    for heads, _, dim in _HEADS:
        x, angle, out = draw(heads, dim), draw(dim // 2) * 9, torch.empty(heads, dim)
        cos, sin = angle.cos(), angle.sin()
        library.call["ah_rotate"](*_at(x, cos, sin), heads, dim, *_at(out))
        expected = rope(x, torch.cat((cos, cos)), torch.cat((-sin, sin)))
        yield "rotate", out, expected, _CLOSE


def _products(library: Library, draw: Draw) -> Iterator[Outcome]:
    """The three forms of a product, the likeliest column, and one row by itself."""
    arena, x, bias = Arena(library, 1 << 20), draw(_ROWS, _K), draw(_N)
    weight = draw(_N, _K).bfloat16()
    scale = weight.abs().amax(1).float() / 127
    whole = (weight.float() / scale[:, None]).round().to(torch.int8)
    exact = x.bfloat16().double() @ weight.double().T + bias
    for name, linear, expected in (
        ("bf16", arena.pack(Form.BF16, weight, None, bias), exact.float()),
        ("w8a8", arena.pack(Form.W8A8, whole, scale, bias), linear_int8(x, whole, scale, 8) + bias),
        (
            "w8a16",
            arena.pack(Form.W8A16, whole, scale, bias),
            linear_int8(x, whole, scale, 16) + bias,
        ),
    ):
        out, one = torch.empty(_ROWS, _N), torch.empty(1, _N)
        best, finite = torch.empty(_ROWS, dtype=torch.int32), torch.empty(_ROWS, dtype=torch.uint8)
        where = ctypes.addressof(linear)
        library.call["ah_linear"](where, *_at(x), _ROWS, *_at(out, best, finite))
        yield f"linear {name}", out, expected, _CLOSE
        yield f"best of {name}", best.float(), out.argmax(1).float(), 0.0
        yield f"finite of {name}", finite.float(), torch.ones(_ROWS), 0.0
        library.call["ah_linear"](where, *_at(x[-1:]), 1, *_at(one, best, finite))
        yield f"linear {name} of one row", one, out[-1:], 0.0


def _attention(library: Library, draw: Draw) -> Iterator[Outcome]:
    """Keys and values stored slot by slot, then queries over their pages."""
    length = _START + _QUERIES
    pages = list(range(-(-length // PAGE_SIZE)))[::-1]
    for heads, kv_heads, dim in _HEADS:
        keys, values = draw(2, len(pages), kv_heads, PAGE_SIZE, dim).bfloat16()
        store = torch.zeros(len(pages), kv_heads, 2, dim * PAGE_SIZE, dtype=torch.bfloat16)
        for page, head, slot in torch.cartesian_prod(
            *map(torch.arange, (len(pages), kv_heads, PAGE_SIZE))
        ).tolist():
            key, value = keys[page, head, slot].float(), values[page, head, slot].float()
            library.call["ah_store"](*_at(key, value), dim, slot, *_at(store[page, head]))
        query = (draw(_QUERIES, heads, dim) * dim**-0.5).bfloat16()
        table, out = torch.tensor(pages, dtype=torch.int32), torch.empty(_QUERIES, heads, dim)
        library.call["ah_attention"](
            *_at(query), _QUERIES, _START, heads, kv_heads, dim, *_at(store, table, out)
        )
        nothing = np.zeros(0, np.int32)
        plan = StepPlan(nothing, nothing, (Chunk(0, _QUERIES, _START, pages),), nothing, ())
        expected = paged_attention(query.float(), keys, values, lay_out(plan, heads, kv_heads), 1.0)
        yield f"attention of {dim}", out, expected, _CLOSE_ATTENTION


def _at(*tensors: torch.Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
