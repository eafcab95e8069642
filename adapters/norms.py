"""Norms that replace those of T5, y = x / rms(x) * w with w: (d_model,), and train fewer parameters than w has.

ScaleNorm (Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895): w = g, one number. The paper's g multiplies
    x / |x|, so it is sqrt(d_model) times ours.
TTLayerNorm: w is a tensor train of rank TTLayerNorm_rk with sum of r_{k-1} n_k r_k parameters. For 768 = 8 x 8 x 12,
    these are 28 at rank 1, 72 at rank 2 and 672 at rank 8; at full rank there are more than the vector has.
KroneckerLayerNorm: the idea of Compacter (Mahabadi et al. 2021, https://arxiv.org/abs/2106.04647) applied to a vector:
    w = sum_i a_i (x) s_i (x) t_i with the a_i: (n,) shared by the whole model and the s_i and t_i of each norm. For 768
    and n = 4, these are 4 (12 + 16) = 112 parameters per norm, and 16 shared ones.
"""

from functools import partial
from typing import Protocol

import torch
from torch import nn

import t3nsor
from adapters.adapter_configuration import AdapterConfig
from adapters.merged_weight import HasWeight
from adapters.parts import AdapterPart, SharedParts, saying_shape_warnings
from adapters.precision import in_trained_dtype
from adapters.task_switch import TaskSwitch
from common.errors import ConfigError
from t3nsor.autocast import without_autocast


class T5Norm(HasWeight, Protocol):
    """The attributes of transformers' T5LayerNorm."""

    variance_epsilon: float


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / rms(x) * weight with the roundings and the dtype of T5LayerNorm; x: (.., d_model), weight: (d_model,)."""
    normed = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return weight * (normed.to(weight.dtype) if weight.dtype.itemsize == 2 else normed)


class NormPart(AdapterPart):
    """Base class: y = x / rms(x) * full(), in the dtype that the replaced norm would return.

    The weight of the replaced norm is kept outside the state dict: it is what counts while `switch` is off.
    """

    component = "norms"
    replaced: torch.Tensor

    def __init__(self, norm: T5Norm, switch: TaskSwitch):
        super().__init__()
        self.eps, self.switch = norm.variance_epsilon, switch
        self.track_precision(norm.weight)
        self.register_buffer("replaced", norm.weight.detach(), persistent=False)

    def full(self) -> torch.Tensor:
        """w as a dense vector (d_model,)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement full")

    def extra_repr(self) -> str:
        own = sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if name.split(".")[0] not in ("rule", "added_bias")
        )
        shared = sum(parameter.numel() for name, parameter in self.named_parameters() if name.startswith("rule."))
        return f"{own} parameters" + (f" and {shared} shared by all norms" if shared else "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., d_model) -> (.., d_model); the mean square is computed in float32."""
        weight = self.full() if self.switch.enabled else self.replaced
        return rms_norm(x, weight.to(self.compute_dtype), self.eps)


class ScaleNorm(NormPart):
    """w is one number, initialised with the mean of the replaced vector, ScaleNorm_scale, or 1."""

    def __init__(self, config: AdapterConfig, norm: T5Norm, shared: SharedParts, switch: TaskSwitch):
        super().__init__(norm, switch)
        weight = in_trained_dtype(norm.weight)
        if config.use_LayerNorm_mean:
            start = weight.mean().reshape(1)
        else:
            start = torch.full_like(weight[:1], 1.0 if config.ScaleNorm_scale is None else config.ScaleNorm_scale)
        self.scale = nn.Parameter(start, requires_grad=not config.freeze_norms)
        self.size = norm.weight.numel()

    def full(self) -> torch.Tensor:
        return self.scale.expand(self.size)


class TTLayerNorm(NormPart):
    """w is a tensor train, initialised with the mean of the replaced vector, its TT-SVD, or ones.

    preinit_error: relative error of that approximation; None without one.
    """

    def __init__(self, config: AdapterConfig, norm: T5Norm, shared: SharedParts, switch: TaskSwitch):
        super().__init__(norm, switch)
        weight = in_trained_dtype(norm.weight)
        shape = t3nsor.auto_shape(weight.numel(), config.TTLayerNorm_d, pad=config.tt_pad)
        rank: int | list[int] = config.TTLayerNorm_rk
        from_vector = not config.use_LayerNorm_mean and config.TTLayerNorm_preinit
        if from_vector:
            rank = t3nsor.useful_ranks(shape, rank)
        preinit = weight if from_vector and not weight.is_meta else None
        with saying_shape_warnings("TTLayerNorm_rk"):
            inner = t3nsor.TTLayerNorm(weight.numel(), rank=rank, shape=shape, pad=config.tt_pad, preinit=preinit)
        self.size = weight.numel()
        self.preinit_error: float | None = inner.preinit_error
        # The TT-SVD may find lower ranks; padding keeps the number of parameters independent of the vector's values.
        self.weight = inner.weight if preinit is None else t3nsor.padded(inner.weight, rank, trainable=True)
        if config.use_LayerNorm_mean:
            with torch.no_grad():
                self.weight.cores[-1].mul_(weight.mean())  # its product with the other cores is all ones
        self.weight.requires_grad_(not config.freeze_norms)

    def full(self) -> torch.Tensor:
        return self.weight.full().flatten()[: self.size]


class KroneckerLayerNorm(NormPart):
    """w = sum_i a_i (x) s_i (x) t_i, initialised with ones or the mean of the replaced vector.

    At first only the first term counts, of which a_1 and s_1 are ones; in the others t_i = 0.
    """

    def __init__(self, config: AdapterConfig, norm: T5Norm, shared: SharedParts, switch: TaskSwitch):
        super().__init__(norm, switch)
        size, n = norm.weight.numel(), config.KroneckerLayerNorm_n
        if size % n:
            raise ConfigError(f"KroneckerLayerNorm_n is {n}; it must divide d_model, {size}")
        left, right = t3nsor.auto_shape(size // n, 2)
        self.rule = shared.get(("norm rule", n), partial(KroneckerRule, n))
        self.left = nn.Parameter(torch.randn(n, left))
        self.right = nn.Parameter(torch.zeros(n, right))
        with torch.no_grad():
            self.left[0] = 1
            self.right[0] = in_trained_dtype(norm.weight).mean() if config.use_LayerNorm_mean else 1
        self.requires_grad_(not config.freeze_norms)

    def full(self) -> torch.Tensor:
        with without_autocast(self.left.device):
            return torch.einsum("ia,il,ir->alr", self.rule.vectors, self.left, self.right).reshape(-1)


def preinit_errors(model: nn.Module) -> dict[str, float]:
    """The `preinit_error` of each TTLayerNorm that has one, by module name."""
    norms = ((name, module) for name, module in model.named_modules() if isinstance(module, TTLayerNorm))
    return {name: norm.preinit_error for name, norm in norms if norm.preinit_error is not None}


class KroneckerRule(nn.Module):
    """The vectors a_1, .., a_n, (n, n), shared by all norms of a model; a_1 starts as ones."""

    def __init__(self, n: int):
        super().__init__()
        start = torch.randn(n, n)
        start[0] = 1
        self.vectors = nn.Parameter(start)
