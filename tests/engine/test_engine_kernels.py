"""The prepacked matrix products and the four operations agree with their plain definitions."""

import pytest
import torch
from torch.nn.functional import linear

from enclave_worker.engine.ops.linear import Linear, packing_works
from enclave_worker.engine.ops.reference import rms_norm, rope, silu_mul


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 31, 64, 257])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_products_equal_plain_ones(dtype: torch.dtype, rows: int, biased: bool) -> None:
    if not packing_works(dtype):
        pytest.skip("this processor or torch build has no packed products")
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(96, 80, generator=generator).to(dtype)
    bias = torch.randn(96, generator=generator).to(dtype) if biased else None
    x = torch.randn(rows, 80, generator=generator).to(dtype)
    packed, plain = (Linear(weight, bias, packed=p)(x) for p in (True, False))
    exact = linear(x.double(), weight.double(), None if bias is None else bias.double())
    tolerance = 1e-4 if dtype == torch.float32 else 0.15
    assert (packed - exact).abs().max() < tolerance
    assert (plain - exact).abs().max() < tolerance


def test_rms_norm_is_its_definition() -> None:
    x, weight = torch.randn(5, 48), torch.randn(48)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    assert (rms_norm(x, weight, 1e-5, torch.float32) - expected).abs().max() < 1e-5


def test_rope_turns_pairs_by_their_angle() -> None:
    x, angle = torch.randn(7, 3, 8), torch.randn(7, 4)
    cos, sin = angle.cos(), angle.sin()
    turned = rope(x, torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None])
    z = torch.complex(x[..., :4], x[..., 4:]) * torch.complex(cos, sin)[:, None]
    assert (turned - torch.cat((z.real, z.imag), -1)).abs().max() < 1e-5


def test_silu_mul_is_its_definition() -> None:
    x = torch.randn(4, 20)
    gate, up = x[:, :10], x[:, 10:]
    assert (silu_mul(x) - gate * gate.sigmoid() * up).abs().max() < 1e-5
