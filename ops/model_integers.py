"""Int8 weights, and products with them in the two arithmetic the worker serves them in.

Weights have one symmetric scale an output channel and are rounded by GPTQ (Frantar et al., 2022):
what rounding one column loses, the columns after it make up for, as far as the text that
calibrates needs it. Activations have one scale a row, 8 bits in `w8a8`, 16 in `w8a16`. Sums are
exact integers, so a product is the same number however it is blocked or batched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from enclave_worker.engine.ops.reference import quantise_rows

from .model_forward import Products, Site

Mode = Literal["w8a8", "w8a16"]
BITS: Mapping[Mode, int] = {"w8a8": 8, "w8a16": 16}
_MOST = 127
# Columns rounded before the rest hears of what they lost: a product then, not a sum each.
_BLOCK = 64
# Added to the diagonal, as parts of its mean: channels that were silent while calibrating would
# otherwise make the matrix singular. The first is the paper's, the others for worse cases.
_DAMPINGS = (0.01, 0.1, 1.0, 100.0)


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """One quantised weight.

    Attributes:
        codes: int8 [out, in].
        scale: float32 [out, 1]; the weight is codes * scale.
        bias: float32 [out], or None.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None = None


def channel_scales(weight: torch.Tensor) -> torch.Tensor:
    """Return what one step of int8 stands for in each output channel: [out, in] -> [out, 1]."""
    tiny = torch.finfo(torch.float32).tiny
    return weight.abs().amax(1, keepdim=True).clamp_min(tiny * _MOST) / _MOST


def round_nearest(weight: torch.Tensor) -> Int8Weight:
    """Round each number for itself: float32 [out, in]."""
    scale = channel_scales(weight)
    return Int8Weight(_codes(weight, scale).to(torch.int8), scale)


def round_together(weight: torch.Tensor, inputs: torch.Tensor) -> Int8Weight:
    """Round so that the product with `inputs` loses least.

    Args:
        weight: float32 [out, in].
        inputs: [n, in] of what the product reads.
    """
    factor = _factor(inputs.float())
    scale = channel_scales(weight)
    step = scale[:, 0]
    left = weight.t().contiguous()  # [in, out]: a column of the weight is a row here
    codes = torch.empty(left.shape, dtype=torch.int8)
    for begin in range(0, len(left), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        part, near = left[block], factor[block, block]
        lost = torch.empty_like(part)
        for i in range(len(part)):
            rounded = _codes(part[i], step)
            codes[begin + i] = rounded
            lost[i] = (part[i] - rounded * step) / near[i, i]
            part[i + 1 :].addr_(near[i, i + 1 :], lost[i], alpha=-1)
        rest = slice(begin + _BLOCK, None)
        left[rest].addmm_(factor[block, rest].t(), lost, alpha=-1)
    return Int8Weight(codes.t().contiguous(), scale)


def product(x: torch.Tensor, weight: Int8Weight, mode: Mode) -> torch.Tensor:
    """Multiply as the worker does: float32 [rows, in] -> float32 [rows, out]."""
    whole, scale = quantise_rows(x, BITS[mode])
    transposed = weight.codes.t()
    if mode == "w8a8":
        total = torch._int_mm(whole.to(torch.int8), transposed).float()  # noqa: SLF001 - no other
    else:  # two bytes a number: high * 256 + (low + 128), and what the 128 adds put back after
        high = (whole / 256).floor_()
        low = whole - high * 256 - 128
        upper = torch._int_mm(high.to(torch.int8), transposed)  # noqa: SLF001
        lower = torch._int_mm(low.to(torch.int8), transposed)  # noqa: SLF001
        lower += 128 * weight.codes.sum(1, dtype=torch.int32)
        total = (upper.double() * 256 + lower.double()).float()
    y = total * (scale * weight.scale[:, 0])
    return y if weight.bias is None else y + weight.bias


def integer_products(weights: Mapping[str, Int8Weight], mode: Mode) -> Products:
    """Products of every site, as the worker computes them in `mode`."""

    def products(site: Site, x: torch.Tensor) -> list[torch.Tensor]:
        return [product(x, weights[name], mode) for name in site.names]

    return products


def _codes(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (weight / scale).round_().clamp_(-_MOST, _MOST)


def _factor(inputs: torch.Tensor) -> torch.Tensor:
    """Upper factor of the second moments' inverse, [in, in].

    Its row i says how the columns after i make up for what column i loses.
    """
    gram = inputs.t() @ inputs
    mean = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    for damping in _DAMPINGS:
        damped = gram.clone()
        damped.diagonal().add_(damping * mean)
        lower, bad = torch.linalg.cholesky_ex(damped)
        if not bad:
            inverse = torch.cholesky_inverse(lower)
            factor: torch.Tensor
            factor, bad = torch.linalg.cholesky_ex(inverse, upper=True)
            if not bad:
                return factor
    return torch.eye(len(gram))  # each number for itself
