"""Layers whose weights are tensor trains."""

import torch
from torch import nn

from t3nsor.errors import ShapeError
from t3nsor.initializers import glorot_initializer
from t3nsor.ops import STRATEGIES, tt_matmul
from t3nsor.shapes import auto_shape, check_matrix_shape
from t3nsor.tensor_train import TensorTrain


class TTLinear(nn.Module):
    """y = x W + b with W a TT-matrix (Novikov et al. 2015, https://arxiv.org/abs/1509.06569).

    in_features, out_features: sizes of the last dimension of x and of y.
    d: number of cores, used when `shape` is None. shape: ((n_1, .., n_d), (m_1, .., m_d)) whose products are
    in_features and out_features. rank: one inner rank or the list of d - 1 inner ranks.
    init: "glorot", or "zero": random cores but the last, which is zero, so that W = 0 and can be trained away from it.
    strategy: how to contract, see `tt_matmul`.
    State-dict keys: `cores.0` .. `cores.{d-1}`, each (r_{k-1}, n_k, m_k, r_k), and `bias` (out_features,).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank=8,
        d: int = 3,
        shape=None,
        bias: bool = True,
        init: str = "glorot",
        strategy: str = "auto",
        device=None,
        dtype=None,
    ):
        super().__init__()
        if init not in ("glorot", "zero"):
            raise ShapeError(f"TTLinear: init is {init!r}; allowed: glorot, zero")
        if strategy not in STRATEGIES:
            raise ShapeError(f"TTLinear: strategy is {strategy!r}; allowed: {', '.join(STRATEGIES)}")
        if shape is None:
            shape = auto_shape(in_features, d), auto_shape(out_features, d)
        shape = check_matrix_shape(shape, in_features, out_features)
        self.in_features, self.out_features, self.strategy = in_features, out_features, strategy
        initial = glorot_initializer(shape, rank, dtype=dtype, device=device).cores
        if init == "zero":
            initial[-1].zero_()
        self.cores = nn.ParameterList(nn.Parameter(core) for core in initial)
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype, device=device)) if bias else None

    @property
    def weight_tt(self) -> TensorTrain:
        """W as a TensorTrain over the layer's own cores."""
        return TensorTrain(list(self.cores))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., in_features) -> (.., out_features)."""
        y = tt_matmul(x, self.weight_tt, self.strategy)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.weight_tt}, bias={self.bias is not None}"
