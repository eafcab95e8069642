"""Operands, plans and the dense reference that tests of the engine share."""

import torch
from torch.nn import functional

from t3nsor import Plan, linear_with_branch, random_matrix, tt_matmul

PLANS = [
    Plan("chain", (1, 1, 1)),
    Plan("chain", (1, 1, 1), True),
    Plan("chain", (1, 2), True),
    Plan("full", (2, 1)),
    Plan("paired", (1, 2)),
    Plan("paired", (2, 1), True),
    Plan("hybrid", (1, 2)),
    Plan("hybrid", (2, 1), True),
]


def small(dtype=torch.float64, shape=((3, 2, 2), (2, 4, 3))):
    """A trainable train of three cores of rank 2."""
    return random_matrix(shape, 2, trainable=True, dtype=dtype, generator=torch.Generator().manual_seed(0))


def inputs(tt, leading, beside, biased):
    """x, weight and bias, which need gradients; weight is None unless `beside`, bias unless `biased`."""
    in_features, out_features = tt.shape
    x = torch.randn(*leading, in_features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(out_features, in_features, dtype=torch.float64, requires_grad=True) if beside else None
    bias = torch.randn(out_features, dtype=torch.float64, requires_grad=True) if biased else None
    return x, weight, bias


def contract(x, weight, bias, tt, strategy, **options):
    if weight is None:
        return tt_matmul(x, tt, strategy, bias=bias, **options)
    return linear_with_branch(x, weight, tt, scale=0.7, bias=bias, strategy=strategy, **options)


def reference(x, weight, bias, tt):
    """The same with the dense matrix."""
    dense = tt.full().T if weight is None else weight + 0.7 * tt.full().T
    return functional.linear(x, dense, bias)
