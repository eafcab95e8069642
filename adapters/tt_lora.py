"""Tensor-train branches in parallel to frozen linear layers: y = x W0^T + s * x W with W a tensor train or ring.

W: (in_features, out_features) has cores G_k: (r_{k-1}, n_k, m_k, r_k), so sum of r_{k-1} n_k m_k r_k parameters
(Oseledets 2011, https://doi.org/10.1137/090752286; as an update of a weight: Anjum et al. 2024,
https://arxiv.org/abs/2408.01008). The last core starts at zero and the others at random, so the adapted model initially
equals the backbone. s = lora_alpha / tt_rank, or 1 if lora_alpha is null.

With TTLoRA_init "svd" the cores start from the TT-SVD of W0, like PiSSA from its SVD (Meng et al. 2024,
https://arxiv.org/abs/2404.02948). W0 is not changed; the branch is s * x (W - W_start), which is initially zero up to
rounding.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.lora import ScaledBranch
from adapters.parts import Place, SharedParts
from adapters.precision import in_trained_dtype, trained_dtype
from adapters.tensor_train_linear import MatrixShape, TensorTrainLinear, automatic_shape
from common.errors import ConfigError
from t3nsor import from_matrix, kaiming, linear_with_branch, padded, tt_matmul, useful_ranks, zero_delta
from t3nsor.layers import cut, widened
from t3nsor.tensor_train import CoreChain

NONLINEAR = "it has an activation between its cores, so it is not a matrix"


def branch_shape(config: AdapterConfig, in_features: int, out_features: int) -> MatrixShape:
    """Return tt_shape, swapped if the layer maps the other way, or the automatic shape if tt_shape is null."""
    if config.tt_shape is None:
        return automatic_shape(config, in_features, out_features)
    inputs, outputs = config.tt_shape
    products = math.prod(inputs), math.prod(outputs)
    if products == (in_features, out_features):
        return inputs, outputs
    if products == (out_features, in_features):
        return outputs, inputs
    raise ConfigError(
        f"tt_shape is {config.tt_shape}, the shape of a {products[0]} x {products[1]} matrix; for a layer "
        f"{in_features} -> {out_features} it must be {in_features} x {out_features} or the transpose"
    )


def dense_matrix(chain: CoreChain, sizes: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """The upper left part, of these sizes, of the matrix of a tensor train or ring, computed in `dtype`."""
    return type(chain)([core.to(dtype) for core in chain.cores()]).full()[: sizes[0], : sizes[1]]


def multiplied(x: torch.Tensor, chain: CoreChain, out_features: int, **how: Any) -> torch.Tensor:
    """x W, (.., out_features), with W the upper left part of the matrix of `chain`; x: (.., in_features)."""
    return cut(tt_matmul(widened(x, chain.shape[0]), chain, **how), out_features)


class ChainBranch(ScaledBranch):
    """Base class of branches s * x W, where a subclass computes the tensor train or ring W."""

    def __init__(self, config: AdapterConfig, linear: nn.Linear):
        super().__init__(config, config.tt_rank)
        self.sizes = linear.in_features, linear.out_features
        self.how = {"strategy": config.tt_strategy, "save": config.tt_save}

    def chain(self, dtype: torch.dtype) -> CoreChain:
        """Return a chain, computed in `dtype`, whose matrix is W or, with tt_pad, has W in its upper left part."""
        raise NotImplementedError(f"{type(self).__name__} does not implement chain")

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return multiplied(self.dropout(x), self.chain(trained_dtype(x.dtype)), self.sizes[1], **self.how) * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        return self.scale * dense_matrix(self.chain(dtype), self.sizes, dtype).t()

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        chain = self.chain(trained_dtype(x.dtype))
        if chain.shape != self.sizes or (self.training and self.dropout.p):
            return super().layer_output(x, weight, bias)
        return linear_with_branch(x, weight, chain, scale=self.scale, bias=bias, **self.how)


class TTLoRABranch(ScaledBranch):
    """s * x W with W one TT-matrix per layer.

    start: with TTLoRA_init "svd" the initial value of W, which is subtracted; otherwise None.
    """

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__(config, config.tt_rank)
        self.sizes = sizes = linear.in_features, linear.out_features
        shape = branch_shape(config, *sizes)
        decomposed = self._decompose(config, linear, shape) if config.TTLoRA_init == "svd" else None
        init = "zero" if decomposed is None else decomposed
        self.tt = TensorTrainLinear(config, *sizes, shape, init, bias=False, shared=shared, role=place.target)
        if config.TTLoRA_init == "kaiming":
            self._redraw_with_kaiming_variance()
        self.start: CoreChain | None = None
        if decomposed is not None:
            frozen = list(range(decomposed.d))
            self.start = type(decomposed)(list(decomposed.cores), trainable=True, freeze_cores=frozen)
        if config.cores_nonlinearity is not None:
            self.unmergeable = NONLINEAR

    def update(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(x)
        y = self.tt(x) if self.start is None else self.tt(x) - multiplied(x, self.start, self.sizes[1])
        return y * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        dense = dense_matrix(self.tt.weight, self.sizes, dtype)
        if self.start is not None:
            dense = dense - dense_matrix(self.start, self.sizes, dtype)
        return self.scale * dense.t()

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.unmergeable or self.tt.padded or (self.training and self.dropout.p):
            return super().layer_output(x, weight, bias)
        how: dict[str, Any] = {"strategy": self.tt.strategy, "save": self.tt.save}
        y = linear_with_branch(x, weight, self.tt.weight, scale=self.scale, bias=bias, **how)
        return y if self.start is None else y - self.scale * tt_matmul(x, self.start, **how)

    @staticmethod
    def _decompose(config: AdapterConfig, linear: nn.Linear, shape: MatrixShape) -> CoreChain:
        weight, ring = in_trained_dtype(linear.weight), config.tensor_ring
        ranks = useful_ranks(shape, config.tt_rank, ring)
        if weight.is_meta:  # there are no values to decompose
            return zero_delta(shape, ranks, ring=ring, dtype=weight.dtype, device="meta")
        rows, columns = map(math.prod, shape)
        wide = functional.pad(weight.t().float(), (0, columns - weight.shape[0], 0, rows - weight.shape[1]))
        return padded(from_matrix(wide, shape, config.tt_rank, ring=ring, dtype=weight.dtype), ranks)

    @torch.no_grad()
    def _redraw_with_kaiming_variance(self) -> None:
        """Redraw the nonzero cores as those of a random W with He's variance instead of Glorot's."""
        chain = self.tt.weight
        ranks = chain.ranks[:-1] if chain.closed else chain.ranks[1:-1]
        drawn = kaiming(chain.raw_shape, list(ranks), ring=chain.closed)
        for core, other in zip(chain.cores, drawn.cores, strict=True):
            if core.is_meta or core.any():
                core.copy_(other)


class SeparateTTLoRABranch(ScaledBranch):
    """s * x A B: LoRA whose factors A: (in_features, inner) and B: (inner, out_features) are TT-matrices.

    inner is lora_rank, or in_features / ttlora_reduction_factor. B starts at zero. s = lora_alpha / lora_rank, or
    lora_alpha / tt_rank with ttlora_reduction_factor; 1 if lora_alpha is null.
    """

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        factor = config.ttlora_reduction_factor
        super().__init__(config, config.lora_rank if factor is None else config.tt_rank)
        inner = config.lora_rank if factor is None else max(1, linear.in_features // factor)
        init = config.TTLoRA_init or "glorot"
        self.A = TensorTrainLinear(
            config, linear.in_features, inner, None, init, bias=False, shared=shared, role=f"{place.target} A"
        )
        self.B = TensorTrainLinear(
            config, inner, linear.out_features, None, "zero", bias=False, shared=shared, role=f"{place.target} B"
        )
        if config.cores_nonlinearity is not None:
            self.unmergeable = NONLINEAR

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return self.B(self.A(self.dropout(x))) * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        a, b = (dense_matrix(tt.weight, (tt.in_features, tt.out_features), dtype) for tt in (self.A, self.B))
        return self.scale * (a @ b).t()
