"""Hypercomplex adapters and Compacter (Mahabadi et al. 2021, https://arxiv.org/abs/2106.04647; layers by Zhang et al.
2021, https://arxiv.org/abs/2102.08597): a bottleneck whose matrices are sums of Kronecker products.

    W = sum_{i=1}^{n} A_i (x) B_i,    W: (in, out), A_i: (n, n), B_i: (in / n, out / n)

The A_i are called the rule. Parameters: n^3 for the rule, once for the whole model with shared_phm_rule, and in * out /
n for the B_i; with factorized_phm, where B_i = s_i t_i has rank phm_rank, n phm_rank (in / n + out / n). Compacter is
shared_phm_rule with factorized_phm.
"""

from functools import partial

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.adapter_modeling import Adapter
from adapters.inits import MATRIX_INITS, MatrixInit
from adapters.parts import SharedParts


class Factors(nn.Module):
    """n matrices (rows, columns), dense or, if a rank is given, as factors (n, rows, rank) and (n, rank, columns)."""

    def __init__(self, n: int, rows: int, columns: int, rank: int | None, init: MatrixInit, trained: bool = True):
        super().__init__()
        sizes = [(n, rows, columns)] if rank is None else [(n, rows, rank), (n, rank, columns)]
        self.factors = nn.ParameterList(nn.Parameter(torch.empty(size), requires_grad=trained) for size in sizes)
        with torch.no_grad():
            for factor in self.factors:
                for matrix in factor:
                    init(matrix)

    def full(self) -> torch.Tensor:
        """The n matrices, (n, rows, columns)."""
        return self.factors[0] if len(self.factors) == 1 else self.factors[0] @ self.factors[1]


class HypercomplexLinear(nn.Module):
    """y = x W + b; x: (.., in_features), y: (.., out_features). b starts at zero.

    If n does not divide a size, W is cut from a matrix of the next multiple of n.
    role: "down" or "up"; with shared_W_phm, layers of the same role share their B_i.
    """

    def __init__(self, config: AdapterConfig, in_features: int, out_features: int, shared: SharedParts, role: str):
        super().__init__()
        n, rank = config.hypercomplex_division, config.phm_rank
        rule = partial(self._rule, config)
        self.rule = shared.get("phm rule", rule) if config.shared_phm_rule else rule()
        self.in_features, self.out_features = in_features, out_features
        sizes = -(-in_features // n), -(-out_features // n)
        init = MATRIX_INITS[config.hypercomplex_nonlinearity]
        blocks = partial(Factors, n, *sizes, rank if config.factorized_phm else None, init)
        self.W = shared.get(("phm W", role, *sizes), blocks) if config.shared_W_phm else blocks()
        self.bias = nn.Parameter(torch.zeros(out_features)) if config.use_bias else None
        self.normalize = config.normalize_phm_weight

    def full(self) -> torch.Tensor:
        """W as a dense matrix (in_features, out_features); it is small, and cheaper to apply than term by term."""
        rule, blocks = self.rule.full(), self.W.full()
        weight = torch.einsum("iab,icd->acbd", rule, blocks)
        weight = weight.reshape(rule.shape[1] * blocks.shape[1], rule.shape[2] * blocks.shape[2])
        weight = weight[: self.in_features, : self.out_features]
        return weight / torch.linalg.matrix_norm(weight) if self.normalize else weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self.full().t().to(x.dtype), bias)

    @staticmethod
    def _rule(config: AdapterConfig) -> Factors:
        n, spread = config.hypercomplex_division, config.phm_init_range
        init: MatrixInit
        if config.phm_c_init == "normal":
            init = partial(nn.init.normal_, std=spread)
        else:
            init = partial(nn.init.uniform_, a=-spread, b=spread)
        rank = config.phm_rank if config.factorized_phm_rule else None
        return Factors(n, n, n, rank, init, trained=config.learn_phm)


class HypercomplexAdapter(Adapter):
    """up(activation(down(y))), where down and up are HypercomplexLinear."""

    @staticmethod
    def _linear(
        config: AdapterConfig, in_features: int, out_features: int, shared: SharedParts, role: str
    ) -> nn.Module:
        return HypercomplexLinear(config, in_features, out_features, shared, role)
