"""Fits networks of one architecture together: stacked parameters, one forward pass and one optimiser step for all."""

import math

import torch
from torch import nn
from torch.func import functional_call, vmap

from common.errors import type_and_line
from expressivity.recipe import FUSED, Recipe, master_dtype, set_rate, unwrapped

# Elementwise optimisers, for which a step on stacked tensors equals a step on each of them.
ELEMENTWISE = FUSED | {
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
}


class Stack:
    """N networks of the same class and shapes as one function, (N, rows, *input_size) -> (N, rows, *output_size).

    networks: the networks; their parameters are copied.
    device: where to compute.
    groups: number of groups of equal size into which the networks are divided, in order.

    The attribute `flats` holds the trainable parameters of each group in one tensor, at least in single precision, so
    an optimiser step is a single operation per group.
    """

    def __init__(self, networks: list[nn.Module], device: torch.device, groups: int = 1):
        trained = [name for name, parameter in networks[0].named_parameters() if parameter.requires_grad]
        kept = [dict(network.named_parameters()) | dict(network.named_buffers()) for network in networks]
        self.fixed = {name: torch.stack([each[name].detach() for each in kept]).to(device) for name in kept[0]}
        self.template = networks[0].to(device)  # after its tensors were stacked with those of the others
        size = len(networks) // groups
        self.shapes = {name: (size, *self.fixed[name].shape[1:]) for name in trained}
        own = [self.fixed.pop(name).split(size) for name in trained]
        flats = [torch.cat([part.flatten() for part in parts]) for parts in zip(*own, strict=True)]
        self.dtype = flats[0].dtype
        self.flats = [flat.to(master_dtype(self.dtype)).requires_grad_() for flat in flats]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers by name, each of shape (N, *shape)."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        groups = [flat.to(self.dtype).split(sizes) for flat in self.flats]
        trained = {}
        for (name, shape), pieces in zip(self.shapes.items(), zip(*groups, strict=True), strict=True):
            views = [piece.view(shape) for piece in pieces]
            trained[name] = torch.cat(views) if len(views) > 1 else views[0]
        return trained | self.fixed

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._mapped(lambda tensors, x: functional_call(self.template, tensors, (x,)), x)

    def losses(self, x: torch.Tensor, y: torch.Tensor, criterion) -> torch.Tensor:
        """Loss (N,) of each network on its own rows of x and y, both (N, rows, ..)."""
        return self._mapped(lambda tensors, x, y: criterion(functional_call(self.template, tensors, (x,)), y), x, y)

    def _mapped(self, function, *rows: torch.Tensor) -> torch.Tensor:
        return vmap(function, randomness="different")(self.tensors(), *rows)


def fit_stack(
    networks: list[nn.Module],
    x: torch.Tensor,
    y: torch.Tensor,
    owner: torch.Tensor,
    recipe: Recipe,
    rates: tuple[float, ...] = (),
) -> Stack:
    """Fit all `networks` at once and return the Stack of the fitted networks.

    networks: N networks; left unchanged, except for the mode and device of the first one.
    x: (targets, rows, *input_size).
    y: (targets, rows, *output_size).
    owner: (N,), the index of the target to which each network is fitted.
    recipe: hyperparameters of the fit.
    rates: learning rates of groups of equal size into which the networks are divided, in order; (): that of the recipe.
    """
    rates = rates or (recipe.lr,)
    stack = Stack(networks, x.device, len(rates))
    stack.template.train()
    groups = [{"params": [flat], "lr": lr} for flat, lr in zip(stack.flats, rates, strict=True)]
    optimizer = recipe.make_optimizer(groups, fused=True)
    for order, steps in recipe.epochs(x.shape[1]):
        inputs, outputs = x[:, order], y[:, order]
        for decay, part in steps:
            set_rate(optimizer, decay)
            optimizer.zero_grad()
            stack.losses(inputs[:, part][owner], outputs[:, part][owner], recipe.criterion).sum().backward()
            if recipe.grad_clamp is not None:
                nn.utils.clip_grad_value_(stack.flats, recipe.grad_clamp)
            optimizer.step()
    stack.template.eval()
    return stack


def why_not_stacked(networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, recipe: Recipe) -> str | None:
    """The reason why networks cannot be fitted together; None if they can.

    networks: two networks of the kind in question; they are modified.
    x, y: a few rows of data, (rows, ..).
    recipe: hyperparameters of the fit.
    """
    optimizer = unwrapped(recipe.optimizer)
    if optimizer not in ELEMENTWISE:
        return f"the optimizer {getattr(optimizer, '__name__', optimizer)} is not known to work elementwise"
    precisions = {parameter.dtype for parameter in networks[0].parameters() if parameter.requires_grad}
    if len(precisions) > 1:
        return f"their trainable parameters have different dtypes: {', '.join(sorted(map(str, precisions)))}"
    try:
        if _differ(networks, x, y, recipe):
            return "the stack computes other values than the networks, whose state is not all in parameters and buffers"
        fit_stack(networks, x[None], y[None], torch.zeros(2, dtype=torch.long, device=x.device), recipe)
    except Exception as error:  # a user's module may raise anything under vmap
        return f"vmap failed: {type_and_line(error)}"
    return None


def _differ(networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, recipe: Recipe) -> bool:
    """True if outputs or gradients of the stack differ from those of its networks."""
    stack, several = Stack([network.eval() for network in networks], x.device), (len(networks), *x.shape)
    with torch.no_grad():
        outputs = stack(x.expand(several)), torch.stack([network.to(x.device)(x.clone()) for network in networks])
    stack.losses(x.expand(several), y.expand(len(networks), *y.shape), recipe.criterion).sum().backward()
    slopes = []
    for network in networks:
        recipe.criterion(network(x.clone()), y).backward()
        trained = [p for p in network.parameters() if p.requires_grad]
        slopes.append([torch.zeros_like(p) if p.grad is None else p.grad for p in trained])
        network.zero_grad()
    alone = torch.cat([torch.stack(each).flatten() for each in zip(*slopes, strict=True)])
    return not (_close(*outputs) and _close(stack.flats[0].grad, alone))


def _close(together: torch.Tensor, alone: torch.Tensor) -> bool:
    tolerance = torch.finfo(alone.dtype).eps ** 0.5
    return torch.allclose(together.to(alone.dtype), alone, rtol=tolerance, atol=tolerance * alone.abs().max().item())
