"""A basis of random tensor-train matrices shared by all layers, of which each layer trains only its coefficients.

y = x W0^T + s * sum_k c_k x B_k, with B_1 .. B_K frozen TT-matrices (or rings) that all layers of one pair of sizes
have in common, and c: (K,) starting from zero. As in NOLA (Koohpayegani et al. 2023,
https://arxiv.org/abs/2310.02556), whose basis is of low rank instead. Parameters: K for each layer. The basis is drawn
at random, so a checkpoint holds it.
"""

from functools import partial

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import Place, SharedParts
from adapters.tt_lora import ChainBranch, branch_shape
from common.errors import ConfigError
from t3nsor import ShapeError, TensorTrain, glorot_initializer
from t3nsor.cores import merge_cores
from t3nsor.tensor_train import CoreChain


class RandomBasis(nn.Module):
    """B_1 .. B_K: `core_0`, `core_1`, .., each (K, r_{k-1}, n_k, m_k, r_k), never trained."""

    def __init__(self, config: AdapterConfig, in_features: int, out_features: int):
        super().__init__()
        try:
            shape = branch_shape(config, in_features, out_features)
            draws = [glorot_initializer(shape, config.tt_rank, ring=config.tensor_ring) for _ in range(config.tt_basis)]
        except ShapeError as error:
            raise ConfigError(f"tt_shape: {error}") from None
        self.d, self.kind = draws[0].d, type(draws[0])
        if self.d < 2:
            raise ConfigError("tt_d is 1; tt_basis parts the cores in two: it must be at least 2")
        for k in range(self.d):
            core = torch.stack([chain.cores[k] for chain in draws])
            self.register_parameter(f"core_{k}", nn.Parameter(core, requires_grad=False))

    def first(self):
        """B_1, as a train or ring."""
        return self.kind([getattr(self, f"core_{k}")[0] for k in range(self.d)])

    def combined(self, coefficients: torch.Tensor, dtype: torch.dtype) -> TensorTrain:
        """sum_k c_k B_k with c: (K,), as two cores whose bond runs over k and the bonds that part each B_k in two."""
        first, *rest = (getattr(self, f"core_{k}").to(dtype) for k in range(self.d))
        first, second = first * coefficients.to(dtype).view(-1, 1, 1, 1, 1), merge_cores(rest)
        first = first.permute(2, 3, 0, 1, 4).flatten(2).unsqueeze(0)
        second = second.permute(0, 4, 1, 2, 3).flatten(0, 2).unsqueeze(3)
        return TensorTrain([first, second])


class TTBasisBranch(ChainBranch):
    """s * sum_k c_k x B_k."""

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__(config)
        sizes = linear.in_features, linear.out_features
        self.basis = shared.get(("basis", *sizes), partial(RandomBasis, config, *sizes))
        self.coefficients = nn.Parameter(torch.zeros(config.tt_basis))

    def chain(self, dtype: torch.dtype) -> CoreChain:
        return self.basis.combined(self.coefficients, dtype)
