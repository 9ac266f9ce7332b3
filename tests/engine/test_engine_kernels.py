"""The prepacked matrix products and the operations agree with their plain definitions."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import linear

from enclave_worker.engine.ops.linear import Linear, QuantisedLinear, packing_works
from enclave_worker.engine.ops.reference import (
    linear_int8,
    qk_norm,
    quantise_rows,
    rms_norm,
    rope,
    silu_mul,
)


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


def test_qk_norm_is_a_norm_of_each_head_with_its_own_weight() -> None:
    x, weight = torch.randn(5, 3, 16), torch.randn(3, 16)
    for head in range(3):
        expected = rms_norm(x[:, head], weight[head], 1e-5, torch.float32)
        assert (qk_norm(x, weight, 1e-5)[:, head] - expected).abs().max() < 1e-6


numbers = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


@example([127.0, 0.5, 1.5, 2.5, -0.5, -1.5], 8)
@example([1e-37, 0.0], 8)
@example([-9e-31, 1e-38], 16)
@given(st.lists(numbers, min_size=1, max_size=40), st.sampled_from([8, 16]))
def test_rows_are_rounded_to_integers_halves_to_even(values: list[float], bits: int) -> None:
    x = torch.tensor([values])
    whole, scale = quantise_rows(x, bits)
    most = 2 ** (bits - 1) - 1
    peak = x.abs().max()
    faint = peak < 1e-30
    assert scale.item() == (0.0 if faint else (peak / most).item())
    up = torch.tensor(0.0) if faint else torch.tensor(float(most)) / peak
    for value, found in zip(x[0], whole[0].tolist(), strict=True):
        exact = Decimal((value * up).item())  # one rounding to float32, as in the kernels
        assert found == int(exact.to_integral_value(ROUND_HALF_EVEN))
        assert abs(found) <= most


@given(st.integers(1, 5), st.integers(1, 70), st.integers(1, 9), st.sampled_from([8, 16]))
def test_int8_products_are_exact_sums(rows: int, k: int, n: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(rows * 1000 + k * 10 + n)
    x = torch.randn(rows, k, generator=generator)
    weight = torch.randint(-127, 128, (n, k), generator=generator, dtype=torch.int8)
    scale = torch.rand(n, generator=generator)
    whole, up = quantise_rows(x, bits)
    found = linear_int8(x, weight, scale, bits)
    for row in range(rows):
        for column in range(n):
            pairs = zip(whole[row].tolist(), weight[column].tolist(), strict=True)
            exact = sum(int(a) * b for a, b in pairs)
            expected = torch.tensor(float(exact)) * (up[row, 0] * scale[column])
            assert found[row, column] == expected
    bias = torch.randn(n, generator=generator)
    assert torch.equal(QuantisedLinear(weight, scale, bias, bits=bits)(x), found + bias)


@pytest.mark.parametrize("bits", [8, 16])
def test_int8_products_do_not_hide_what_is_not_finite(bits: int) -> None:
    weight, scale = torch.ones(2, 4, dtype=torch.int8), torch.ones(2)
    for bad in (torch.nan, torch.inf):
        x = torch.ones(2, 4)
        x[0, 1] = bad
        found = linear_int8(x, weight, scale, bits)
        assert not found[0].isfinite().any()
        assert found[1].isfinite().all()
    assert linear_int8(torch.zeros(1, 4), weight, scale, bits).tolist() == [[0.0, 0.0]]
