"""A basis of random TT-matrices shared by all layers; each layer trains only its coefficients.

y = x W0^T + s * sum_k c_k x B_k, where B_1, .., B_K are frozen TT-matrices (or rings) shared by all layers with the
same sizes and by all tasks, and c: (K,) starts at zero. NOLA (Koohpayegani et al. 2023,
https://arxiv.org/abs/2310.02556) does the same with a basis of low-rank matrices. Parameters: K per layer. Checkpoints
contain the basis, because it is random.
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
    """B_1, .., B_K as frozen parameters of stacked cores, `core_0`, `core_1`, ..: (K, r_{k-1}, n_k, m_k, r_k)."""

    def __init__(self, config: AdapterConfig, size: int, in_features: int, out_features: int):
        super().__init__()
        try:
            shape = branch_shape(config, in_features, out_features)
            draws = [glorot_initializer(shape, config.tt_rank, ring=config.tensor_ring) for _ in range(size)]
        except ShapeError as error:
            raise ConfigError(f"tt_shape: {error}") from None
        self.d, self.chain_type = draws[0].d, type(draws[0])
        if self.d < 2:
            raise ConfigError("tt_d is 1; tt_basis splits the cores into two groups: it must be at least 2")
        for k in range(self.d):
            core = torch.stack([chain.cores[k] for chain in draws])
            self.register_parameter(f"core_{k}", nn.Parameter(core, requires_grad=False))

    def first(self) -> CoreChain:
        """B_1, as a tensor train or ring."""
        return self.chain_type([getattr(self, f"core_{k}")[0] for k in range(self.d)])

    def combined(self, coefficients: torch.Tensor, dtype: torch.dtype) -> TensorTrain:
        """Return sum_k c_k B_k as a train of two cores; their bond combines k with the bonds between the groups of B_k.

        coefficients: c, (K,).
        """
        first, *rest = (getattr(self, f"core_{k}").to(dtype) for k in range(self.d))
        first, second = first * coefficients.to(dtype).view(-1, 1, 1, 1, 1), merge_cores(rest)
        first = first.permute(2, 3, 0, 1, 4).flatten(2).unsqueeze(0)
        second = second.permute(0, 4, 1, 2, 3).flatten(0, 2).unsqueeze(3)
        return TensorTrain([first, second])


class TTBasisBranch(ChainBranch):
    """s * sum_k c_k x B_k."""

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__(config, linear)
        sizes = self.sizes
        assert config.tt_basis is not None, "this class is chosen by setting tt_basis"
        self.basis = shared.get(("basis", *sizes), partial(RandomBasis, config, config.tt_basis, *sizes))
        self.coefficients = nn.Parameter(torch.zeros(config.tt_basis))

    def chain(self, dtype: torch.dtype) -> CoreChain:
        return self.basis.combined(self.coefficients, dtype)
