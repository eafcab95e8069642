"""Norms that take the place of T5's, y = x / rms(x) * w with w: (d_model,), and train fewer numbers than w has.

ScaleNorm (Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895): w = g, one number. The paper's g multiplies x /
    |x|, and is sqrt(d_model) times ours.
TTLayerNorm: w is a tensor train of rank TTLayerNorm_rk: sum of r_{k-1} n_k r_k numbers. At rank 1 it is little more
    than a ScaleNorm, at full rank more than the vector: for 768 = 8 x 8 x 12, 28 at rank 1, 72 at 2, 672 at 8.
KroneckerLayerNorm: Compacter's idea (Mahabadi et al. 2021, https://arxiv.org/abs/2106.04647) applied to a vector:
    w = sum_i a_i (x) s_i (x) t_i with the a_i: (n,) shared by the whole model and s_i, t_i of each norm: for 768 and n
    = 4, 4 (12 + 16) = 112 numbers, and 16 for all.
"""

from functools import partial

import torch
from torch import nn

import t3nsor
from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts
from common.errors import ConfigError


class NormPart(AdapterPart):
    """y = x / rms(x) * full(), in the precision in which the norm that it replaces returns."""

    component = "norms"

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.eps = norm.variance_epsilon

    def full(self) -> torch.Tensor:
        """w: (d_model,)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement full")

    def extra_repr(self) -> str:
        own = sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if name.split(".")[0] not in ("rule", "added_bias")
        )
        shared = sum(parameter.numel() for name, parameter in self.named_parameters() if name.startswith("rule."))
        return f"trains {own} numbers" + (f", and {shared} shared by all" if shared else "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., d_model) -> (.., d_model); the mean square is taken in float32."""
        normed = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        w = self.full()
        return w * (normed.to(w.dtype) if w.dtype.itemsize == 2 else normed)


class ScaleNorm(NormPart):
    """w is one number, which starts from ScaleNorm_scale, the mean of the replaced vector, or 1."""

    def __init__(self, config: AdapterConfig, norm: nn.Module, shared: SharedParts):
        super().__init__(norm)
        start = norm.weight.detach().new_ones(1)
        if config.ScaleNorm_scale is not None:
            start *= config.ScaleNorm_scale
        elif config.use_LayerNorm_mean:
            start *= norm.weight.detach().mean()
        self.scale = nn.Parameter(start)
        self.size = norm.weight.numel()

    def full(self) -> torch.Tensor:
        return self.scale.expand(self.size)


class TTLayerNorm(NormPart):
    """w is a tensor train that starts as ones or from the TT-SVD of the replaced vector (`preinit_error`: how near)."""

    def __init__(self, config: AdapterConfig, norm: nn.Module, shared: SharedParts):
        super().__init__(norm)
        weight = norm.weight.detach()
        d = 3 if isinstance(config.tt_d, str) else config.tt_d
        shape, rank = t3nsor.auto_shape(weight.numel(), d), config.TTLayerNorm_rk
        if config.TTLayerNorm_preinit:
            rank = t3nsor.useful_ranks(shape, rank)
        preinit = weight if config.TTLayerNorm_preinit and not weight.is_meta else None
        inner = t3nsor.TTLayerNorm(weight.numel(), rank=rank, shape=shape, preinit=preinit)
        self.preinit_error = inner.preinit_error
        # A vector that is nearly of lower rank gets all ranks too: how much is trained does not depend on its values.
        self.weight = inner.weight if preinit is None else t3nsor.padded(inner.weight, rank, trainable=True)

    def full(self) -> torch.Tensor:
        return self.weight.full().reshape(-1)


class KroneckerLayerNorm(NormPart):
    """w = sum_i a_i (x) s_i (x) t_i, which starts as ones: all in the first term, the t_i of the others zero."""

    def __init__(self, config: AdapterConfig, norm: nn.Module, shared: SharedParts):
        super().__init__(norm)
        size, n = norm.weight.numel(), config.KroneckerLayerNorm_n
        if size % n:
            raise ConfigError(f"KroneckerLayerNorm_n is {n}; it must divide the size of the norms, {size}")
        left, right = t3nsor.auto_shape(size // n, 2)
        self.rule = shared.get(("norm rule", n), partial(KroneckerRule, n))
        self.left = nn.Parameter(torch.randn(n, left))
        self.right = nn.Parameter(torch.zeros(n, right))
        with torch.no_grad():
            self.left[0] = 1
            self.right[0] = 1

    def full(self) -> torch.Tensor:
        return torch.einsum("ia,il,ir->alr", self.rule.vectors, self.left, self.right).reshape(-1)


def preinit_errors(model: nn.Module) -> dict[str, float]:
    """Module name -> relative error with which a TTLayerNorm starts from the vector that it replaces."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, TTLayerNorm)}
    return {name: norm.preinit_error for name, norm in norms.items() if norm.preinit_error is not None}


class KroneckerRule(nn.Module):
    """The vectors a_1 .. a_n, (n, n), that all norms of a model have in common; a_1 starts as ones."""

    def __init__(self, n: int):
        super().__init__()
        start = torch.randn(n, n)
        start[0] = 1
        self.vectors = nn.Parameter(start)
