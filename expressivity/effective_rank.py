"""Effective ranks of the tangent kernel of a network and of the updates of a layer's weight.

The effective rank of a spectrum is exp(entropy) of its values normalised to sum 1. It ranges from 1 (a single nonzero
value) to the number of values (all equal). Roy and Vetterli 2007, "The effective rank: a measure of effective
dimensionality".
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from expressivity.devices import where_float64_is
from expressivity.errors import ExpressivityError


def effective_rank(spectrum: torch.Tensor) -> float:
    """exp(-sum p log p) with p = spectrum / sum(spectrum).

    spectrum: (n,), nonnegative up to rounding, not all zero.

    Raises ExpressivityError for any other spectrum.
    """
    spectrum = where_float64_is(spectrum).double()
    if not spectrum.isfinite().all() or spectrum.max() <= 0 or spectrum.min() < -1e-3 * spectrum.max():
        raise ExpressivityError("a spectrum must be finite, nonnegative and not all zero")
    spectrum = spectrum.clamp_min(0)
    return torch.exp(torch.special.entr(spectrum / spectrum.sum()).sum()).item()


def jacobian(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Jacobian of the outputs with respect to the trainable parameters.

    x: (rows, *input_size). Returns (rows * outputs, parameters).

    Raises ExpressivityError if there are no trainable parameters.
    """
    trained = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    if not trained:
        raise ExpressivityError("the network has no trainable parameters")

    def outputs(parameters, row):
        return functional_call(network, parameters, (row[None],))[0].flatten()

    blocks = vmap(jacrev(outputs), (None, 0))(trained, x)  # name: (rows, outputs, *shape)
    return torch.cat([block.flatten(2) for block in blocks.values()], dim=2).flatten(0, 1)


def tangent_kernel_spectrum(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the neural tangent kernel J J^T on x, largest first; J is the `jacobian`.

    x: (rows, *input_size). Returns (min(rows * outputs, parameters),). Jacot et al. 2018,
    https://arxiv.org/abs/1806.07572.
    """
    return torch.linalg.svdvals(where_float64_is(jacobian(network, x)).double()).square()


def tangent_kernel_rank(network: nn.Module, x: torch.Tensor) -> float:
    """Effective rank of the neural tangent kernel on x, (rows, *input_size).

    It is the number of output directions that gradient descent moves at comparable speed.
    """
    return effective_rank(tangent_kernel_spectrum(network, x))


@dataclass(frozen=True)
class UpdateRanks:
    """Ranks of the update dW that a small change of a layer's parameters makes to its weight W.

    directions: rank of the Jacobian of W, the number of independent directions in which W can move.
    effective_directions: effective rank of the squared singular values of that Jacobian, the number of directions over
        which a random change spreads.
    matrix_rank: mean effective rank of the matrix dW, by squared singular values, for changes drawn from N(0, 1).
    """

    directions: int
    effective_directions: float
    matrix_rank: float


def update_ranks(layer: nn.Module, in_features: int, draws: int = 32, seed: int = 0) -> UpdateRanks:
    """Measure the updates that a layer's parameters can make to its weight.

    layer: (rows, in_features) -> (rows, out_features), linear in its input up to a bias.
    in_features: number of inputs of the layer.
    draws: number of random changes over which matrix_rank is averaged.
    seed: seed of these changes.

    Raises ExpressivityError if the layer is not linear in its input or has no trainable parameters.
    """
    trained = {name: p.detach() for name, p in layer.named_parameters() if p.requires_grad}
    if not trained:
        raise ExpressivityError(f"{type(layer).__name__} has no trainable parameters")
    first = next(iter(trained.values()))
    dtype = first.dtype
    eye = torch.eye(in_features, dtype=dtype, device=first.device)

    def weight(parameters):
        at_zero = functional_call(layer, parameters, (torch.zeros_like(eye[:1]),))
        return functional_call(layer, parameters, (eye,)) - at_zero

    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in trained.items()}
    moved = {name: p + noise[name].to(p.device) for name, p in trained.items()}
    _require_linear(layer, moved, weight(moved), in_features)
    blocks = jacrev(weight)(trained).values()
    # (in, out, parameters)
    change = where_float64_is(torch.cat([block.flatten(2) for block in blocks], dim=2)).double()
    spectrum = torch.linalg.svdvals(change.flatten(0, 1)).square()
    drawn = torch.randn(change.shape[2], draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    updates = (change @ drawn.to(change.device)).movedim(2, 0)
    ranks = [effective_rank(torch.linalg.svdvals(update).square()) for update in updates]
    threshold = spectrum.max() * (max(change.shape) * torch.finfo(dtype).eps) ** 2
    return UpdateRanks(int((spectrum > threshold).sum()), effective_rank(spectrum), sum(ranks) / draws)


def _require_linear(layer: nn.Module, parameters: dict, weight: torch.Tensor, in_features: int) -> None:
    x = torch.randn(4, in_features, generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        y, at_zero = (functional_call(layer, parameters, (rows,)) for rows in (x, torch.zeros_like(x[:1])))
        y = y - at_zero
    if not torch.allclose(y, x @ weight, rtol=1e-3, atol=1e-4 * y.abs().max().item()):
        raise ExpressivityError(f"{type(layer).__name__} is not linear in its input, so it has no weight matrix")
