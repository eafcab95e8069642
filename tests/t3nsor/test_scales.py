"""Decompositions and arithmetic where squares of the entries leave the range of the dtype."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3nsor import TensorTrain, TTLayerNorm, from_matrix, padded, to_tr_tensor, to_tt_matrix, to_tt_tensor

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 5e-3}
EXPONENTS = {torch.float64: (-300, 300), torch.float32: (-36, 36), torch.bfloat16: (-36, 36), torch.float16: (-2, 4)}


def normal(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Computed on values of ordinary size."""
    peak = expected.double().abs().max()
    found, expected = found.double() / peak, expected.double() / peak
    return ((found - expected).norm() / expected.norm()).item()


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(list(TOLERANCE)),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-2, 0.3, 0.7]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_error_bound_is_honoured_at_every_scale(dtype, place, epsilon, ring, seed):
    low, high = EXPONENTS[dtype]
    dense = normal(4, 6, 3, seed=seed)
    dense = (dense / dense.abs().max() * 10.0 ** (low + place * (high - low))).to(dtype)
    found = (to_tr_tensor if ring else to_tt_tensor)(dense, epsilon=epsilon)
    assert relative_error(found.full(), dense) <= epsilon + TOLERANCE[dtype]
    assert relative_error(found.round(eps=epsilon).full(), found.full()) <= epsilon + 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("decompose", [to_tt_tensor, to_tr_tensor])
@pytest.mark.parametrize(("dtype", "power"), [(torch.float32, -80), (torch.float32, 100), (torch.float64, -700)])
def test_scaling_by_a_power_of_two_changes_no_bit_of_the_product(decompose, dtype, power):
    dense = normal(4, 6, 3).to(dtype)
    ordinary, extreme = decompose(dense, epsilon=0.1), decompose(dense * 2.0**power, epsilon=0.1)
    assert extreme.ranks == ordinary.ranks
    assert torch.equal(extreme.full(), ordinary.full() * 2.0**power)
    peaks = [core.abs().max().log2().item() for core in extreme.cores]
    assert max(peaks) - min(peaks) < 3, "the norm is spread"


@pytest.mark.parametrize("decompose", [to_tt_tensor, to_tr_tensor])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_zero_single_and_subnormal_entries(decompose, dtype):
    smallest = torch.finfo(dtype).smallest_normal
    for dense in (
        torch.zeros(3, 4, 2, dtype=dtype),
        torch.full((1, 1), torch.finfo(dtype).max, dtype=dtype),
        torch.full((1,), smallest / 4, dtype=dtype),
        torch.full((3, 4), smallest / 8, dtype=dtype),
    ):
        assert torch.allclose(decompose(dense).full(), dense, rtol=TOLERANCE[dtype], atol=0)


def test_entries_of_very_different_sizes():
    dense = torch.logspace(-30, 30, 24)[torch.randperm(24, generator=torch.Generator().manual_seed(0))].reshape(2, 4, 3)
    assert relative_error(to_tt_tensor(dense).full(), dense) < 1e-5


def test_half_precision_holds_a_norm_beyond_its_range():
    matrix = torch.full((64, 64), 40_000.0, dtype=torch.float16)
    shape = (8, 8), (8, 8)
    for found in (
        to_tt_matrix(matrix, shape),
        from_matrix(matrix.float(), shape, dtype=torch.float16),
        padded(from_matrix(matrix, shape), 3),
    ):
        assert found.dtype == torch.float16
        assert relative_error(found.full(), matrix) < 1e-3
        assert max(core.abs().max() for core in found.cores) < 1000
    assert to_tt_tensor(normal(4, 4), dtype=torch.float32).dtype == torch.float32
    norm = TTLayerNorm(64, rank=8, preinit=torch.full((64,), 40_000.0, dtype=torch.float16))
    assert norm.preinit_error < 1e-3
    assert TTLayerNorm(8, rank=None, preinit=torch.full((8,), 1e-30)).preinit_error < 1e-5
    assert TTLayerNorm(8, rank=None, preinit=torch.zeros(8)).preinit_error == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e19, 1e30])
@pytest.mark.parametrize("decompose", [to_tt_tensor, to_tr_tensor])
def test_gradients_do_not_depend_on_the_scale(decompose, scale):
    weight = normal(3, 4, 3, seed=1)

    def gradient(dense):
        dense.requires_grad_()
        (decompose(dense, 2).full() * weight).sum().backward()
        return dense.grad

    ordinary, extreme = gradient(normal(3, 4, 3).float()), gradient(normal(3, 4, 3).float() * scale)
    assert torch.allclose(extreme, ordinary, atol=1e-3)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norm_at_extreme_scales(scale, closed):
    dense = (normal(3, 4, 2).float() * scale).requires_grad_()
    chain = (to_tr_tensor if closed else to_tt_tensor)(dense)
    expected = (dense / scale).norm()
    assert chain.norm().item() == pytest.approx(expected.item() * scale, rel=1e-4)
    chain.norm().backward()
    assert torch.allclose(dense.grad, dense / scale / expected, atol=1e-4)


def test_dot_and_products_whose_factors_leave_the_range():
    large, small = (to_tt_tensor(normal(3, 4, 2, seed=k).float() * 10.0**k) for k in (30, -30))
    expected = (large.full().double() * small.full().double()).sum().item()
    assert large.dot(small).item() == pytest.approx(expected, rel=1e-4)
    cores = [torch.full((1, 2, 1), 1e30), torch.full((1, 2, 1), 1e-30)]
    chain = TensorTrain(cores)
    assert chain.dot(chain).item() == pytest.approx(4, rel=1e-5)
    assert torch.allclose((chain * chain).full(), torch.ones(2, 2))
    assert torch.allclose((large * small).full(), large.full() * small.full(), rtol=1e-3, atol=1e-4)


def test_a_scalar_that_the_first_core_cannot_hold_is_spread():
    dense = torch.full((4, 4), 30.0, dtype=torch.float16)
    chain = TensorTrain([torch.full((1, 4, 1), 300.0).half(), torch.full((1, 4, 1), 0.1).half()])
    for factor in (1000, 1000.0, torch.tensor(1000.0), torch.tensor(1000)):
        assert torch.allclose((chain * factor).full(), dense * 1000, rtol=1e-2)
    tiny = to_tt_tensor(normal(4, 4).float() * 1e-30)
    assert torch.allclose((tiny * 1e30 * 1e30).full(), normal(4, 4).float() * 1e30, rtol=1e-3)
    assert torch.allclose((tiny * 1e60).full(), normal(4, 4).float() * 1e30, rtol=1e-3)
    assert not (chain * 0).full().any()
    assert math.isnan((chain * math.nan).full().sum())
