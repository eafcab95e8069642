"""Tensor-train branches beside frozen linear layers: y = x W0^T + s * x W with W in tensor-train (or ring) format.

W: (in_features, out_features), cores G_k: (r_{k-1}, n_k, m_k, r_k), so sum of r_{k-1} n_k m_k r_k parameters
(Oseledets 2011, https://doi.org/10.1137/090752286; beside a weight: Anjum et al. 2024,
https://arxiv.org/abs/2408.01008). The last core starts from zero, the others random: the adapted model starts exactly
as the backbone. s = lora_alpha / tt_rank, or 1.

With TTLoRA_init "svd" the cores start from the TT-SVD of W0, as PiSSA does with its SVD (Meng et al. 2024,
https://arxiv.org/abs/2404.02948); W0 stays as it is, and the branch is s * x (W - W_start): zero at the start, but for
what the rounding of two products leaves.
"""

import math

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.lora import scale_of
from adapters.merged_weight import Branch
from adapters.parts import Place, SharedParts
from adapters.tensor_train_linear import TensorTrainLinear, automatic_shape
from common.errors import ConfigError
from t3nsor import from_matrix, kaiming, linear_with_branch, padded, tt_matmul, useful_ranks, zero_delta
from t3nsor.tensor_train import CoreChain

NO_MATRIX = "an activation between its cores makes it no matrix"


def branch_shape(config: AdapterConfig, in_features: int, out_features: int):
    """tt_shape, swapped where the layer maps the other way, or the automatic shape."""
    if config.tt_shape is None:
        return automatic_shape(config, in_features, out_features)
    inputs, outputs = config.tt_shape
    products = math.prod(inputs), math.prod(outputs)
    if products == (in_features, out_features):
        return inputs, outputs
    if products == (out_features, in_features):
        return outputs, inputs
    raise ConfigError(
        f"tt_shape is {config.tt_shape}, a matrix of {products[0]} x {products[1]}; beside a layer "
        f"{in_features} -> {out_features} it must be of this size, or its transpose's"
    )


def full_in(chain, dtype: torch.dtype) -> torch.Tensor:
    """The dense matrix of a chain of cores, computed in `dtype`."""
    return type(chain)([core.to(dtype) for core in chain.cores]).full()


class ChainBranch(Branch):
    """s * x W, where a subclass says what W is. s = lora_alpha / tt_rank, or 1."""

    def __init__(self, config: AdapterConfig):
        super().__init__()
        self.scale = scale_of(config, config.tt_rank)
        self.dropout = nn.Dropout(config.lora_dropout)

    def chain(self, dtype: torch.dtype) -> CoreChain:
        """Return W, a train or ring of shape (in_features, out_features), computed in `dtype`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement chain")

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return tt_matmul(self.dropout(x), self.chain(x.dtype)) * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        return self.scale * self.chain(dtype).full().t()

    def beside(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.training and self.dropout.p:
            return super().beside(x, weight, bias)
        return linear_with_branch(x, weight, self.chain(x.dtype), scale=self.scale, bias=bias)


class TTLoRABranch(Branch):
    """s * x W with W one TT-matrix beside the weight."""

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__()
        sizes = linear.in_features, linear.out_features
        shape = branch_shape(config, *sizes)
        self.scale = scale_of(config, config.tt_rank)
        self.dropout = nn.Dropout(config.lora_dropout)
        init = "zero"
        if config.TTLoRA_init == "svd":
            init = self._decomposed(config, linear, shape)
        self.tt = TensorTrainLinear(config, *sizes, shape, init, bias=False, shared=shared, role=place.target)
        if config.TTLoRA_init == "kaiming":
            self._spread_as_kaiming()
        self.start = None
        if init != "zero":
            self.start = type(init)(list(init.cores), trainable=True, freeze_cores=list(range(init.d)))
        if config.cores_nonlinearity is not None:
            self.unmergeable = NO_MATRIX

    def update(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(x)
        y = self.tt(x) if self.start is None else self.tt(x) - tt_matmul(x, self.start)
        return y * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        dense = full_in(self.tt.weight, dtype)
        if self.start is not None:
            dense = dense - full_in(self.start, dtype)
        return self.scale * dense.t()

    def beside(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.unmergeable or (self.training and self.dropout.p):
            return super().beside(x, weight, bias)
        y = linear_with_branch(x, weight, self.tt.weight, scale=self.scale, bias=bias)
        return y if self.start is None else y - self.scale * tt_matmul(x, self.start)

    @staticmethod
    def _decomposed(config: AdapterConfig, linear: nn.Linear, shape):
        weight, ring = linear.weight.detach(), config.tensor_ring
        ranks = useful_ranks(shape, config.tt_rank, ring)
        if weight.is_meta:  # only sizes count there
            return zero_delta(shape, ranks, ring=ring, dtype=weight.dtype, device="meta")
        return padded(from_matrix(weight.t().float(), shape, config.tt_rank, ring=ring, dtype=weight.dtype), ranks)

    @torch.no_grad()
    def _spread_as_kaiming(self) -> None:
        """The standard deviation of all cores as if no core were zero and W had He's variance instead of Glorot's."""
        chain = self.tt.weight
        drawn = kaiming(
            chain.raw_shape, [*chain.ranks[:-1]] if chain.closed else [*chain.ranks[1:-1]], ring=chain.closed
        )
        for core, other in zip(chain.cores, drawn.cores, strict=True):
            if core.is_meta or core.any():
                core.copy_(other)


class SeparateTTLoRABranch(Branch):
    """s * x A B: LoRA whose factors A: (in_features, lora_rank) and B: (lora_rank, out_features) are TT-matrices.

    B starts from zero. s = lora_alpha / lora_rank, or 1.
    """

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__()
        self.scale = scale_of(config, config.lora_rank)
        self.dropout = nn.Dropout(config.lora_dropout)
        start = config.TTLoRA_init or "glorot"
        options = {"bias": False, "shared": shared}
        inner = config.lora_rank
        self.A = TensorTrainLinear(config, linear.in_features, inner, None, start, role=f"{place.target} A", **options)
        self.B = TensorTrainLinear(
            config, inner, linear.out_features, None, "zero", role=f"{place.target} B", **options
        )
        if config.cores_nonlinearity is not None:
            self.unmergeable = NO_MATRIX

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return self.B(self.A(self.dropout(x))) * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        return self.scale * (full_in(self.A.weight, dtype) @ full_in(self.B.weight, dtype)).t()
