"""Matrix products with the weights laid out once for oneDNN, tested at start.

torch's default path goes to MKL for float32 and re-lays bfloat16 weights at every call, which is
1.3 to 2.5 times slower on AMD than oneDNN with weights laid out in advance. The operators that do
it are not a stable API, so they live in this file only, are compared with `F.linear` before use,
and are replaced by it where they are missing or wrong.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from .reference import linear_int8

# The row count the layout is chosen for; decode batches are of this order, and it is right for the
# others too (measured 1..2048).
_ROWS_HINT = 16
# Shapes of the self-test: one row, an odd batch, a batch as large as the hint allows for.
_TEST_ROWS = (1, 5, 48)


def packing_works(dtype: torch.dtype) -> bool:
    """Whether the packed operators exist here and agree with F.linear in `dtype`."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(96, 64, generator=generator).to(dtype)
    bias = torch.randn(96, generator=generator).to(dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 0.25
    try:
        packed = Linear(weight, bias, packed=True)
        for rows in _TEST_ROWS:
            x = torch.randn(rows, 64, generator=generator).to(dtype)
            if not torch.allclose(packed(x), F.linear(x, weight, bias), atol=tolerance, rtol=1e-2):
                return False
    except (RuntimeError, AttributeError, TypeError):
        return False
    return True


class Linear:
    """x @ weight.T + bias.

    Args:
        weight: [out, in].
        bias: [out] or None.
        packed: lay the weight out for oneDNN (see `packing_works`); the plain copy is then dropped.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, packed: bool) -> None:
        """Lay the weight out."""
        self._bias = bias
        self._packed = packed
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)  # noqa: SLF001
            if packed
            else weight
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] -> [rows, out], in the weights' dtype."""
        if not self._packed:
            return F.linear(x, self._weight, self._bias)
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(  # noqa: SLF001
            x, self._weight, self._bias, "none", [], ""
        )
        return y


class QuantisedLinear:
    """x @ (weight * scale).T + bias over int8 weights: exact, and slow.

    Args:
        weight: int8 [out, in].
        scale: float32 [out].
        bias: float32 [out] or None.
        bits: activations are rounded to, 8 or 16.
    """

    def __init__(
        self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, *, bits: int
    ) -> None:
        """Keep the weight as it is."""
        self._weight, self._scale, self._bias, self._bits = weight, scale, bias, bits

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [rows, in] -> [rows, out]."""
        y = linear_int8(x, self._weight, self._scale, self._bits)
        return y if self._bias is None else y + self._bias
