"""Networks of one architecture fitted together: parameters stacked, one forward and one optimiser step for all."""

import functools

import torch
from torch import nn
from torch.func import functional_call, vmap

from common.errors import type_and_line
from expressivity.recipe import Recipe

# Optimisers that treat each entry of a tensor alone: stacked tensors are then the tensors one by one.
FUSED = {torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD}  # they have a form in one operation, on CPU and CUDA
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
    """N networks of the same class and shapes as one function.

    stack(x): x (N, rows, *input_size) -> (N, rows, *output_size).
    flat: all trained parameters in one tensor, which makes an optimiser's step a single operation.
    """

    def __init__(self, networks: list[nn.Module], device: torch.device):
        self.template = networks[0].to(device)
        trained = [name for name, parameter in networks[0].named_parameters() if parameter.requires_grad]
        kept = [dict(network.named_parameters()) | dict(network.named_buffers()) for network in networks]
        self.fixed = {name: torch.stack([each[name].detach() for each in kept]).to(device) for name in kept[0]}
        self.shapes = {name: self.fixed[name].shape for name in trained}
        self.flat = torch.cat([self.fixed.pop(name).flatten() for name in trained]).requires_grad_()

    def tensors(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers by name, each (N, *shape)."""
        pieces = self.flat.split([shape.numel() for shape in self.shapes.values()])
        trained = {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}
        return trained | self.fixed

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._mapped(lambda tensors, x: functional_call(self.template, tensors, (x,)), x)

    def losses(self, x: torch.Tensor, y: torch.Tensor, criterion) -> torch.Tensor:
        """The loss of each network on its rows of x and y, (N, rows, ..) both. Returns (N,)."""
        return self._mapped(lambda tensors, x, y: criterion(functional_call(self.template, tensors, (x,)), y), x, y)

    def _mapped(self, function, *rows: torch.Tensor) -> torch.Tensor:
        return vmap(function, randomness="different")(self.tensors(), *rows)


def fit_stack(networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, owner: torch.Tensor, recipe: Recipe):
    """Fit all `networks` at once; but for the mode of the first they are left as they are.

    x: (targets, rows, *input_size); y: (targets, rows, *output_size); owner: (N,), which target each is fitted to.
    Returns the Stack of the fitted networks.
    """
    stack = Stack(networks, x.device)
    stack.template.train()
    optimizer = _optimizer(recipe, stack.flat)
    for order, steps in recipe.epochs(x.shape[1]):
        inputs, outputs = x[:, order], y[:, order]
        for lr, part in steps:
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            stack.losses(inputs[:, part][owner], outputs[:, part][owner], recipe.criterion).sum().backward()
            if recipe.grad_clamp is not None:
                stack.flat.grad.clamp_(-recipe.grad_clamp, recipe.grad_clamp)
            optimizer.step()
    stack.template.eval()
    return stack


def why_not_stacked(networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, recipe: Recipe) -> str | None:
    """Why these networks cannot be fitted together, None if they can.

    networks: two of them, which are used up; x, y: (rows, ..), a few rows.
    """
    optimizer = _unwrapped(recipe.optimizer)
    if optimizer not in ELEMENTWISE:
        return f"the optimizer {getattr(optimizer, '__name__', optimizer)} is not known to treat each entry alone"
    precisions = {parameter.dtype for parameter in networks[0].parameters() if parameter.requires_grad}
    if len(precisions) > 1:
        return f"their trained parameters have several precisions: {', '.join(sorted(map(str, precisions)))}"
    try:
        if _differ(networks, x, y, recipe):
            return "stacked they compute something else than alone: not all they hold is a parameter or a buffer"
        fit_stack(networks, x[None], y[None], torch.zeros(2, dtype=torch.long, device=x.device), recipe)
    except Exception as error:  # whatever vmap meets in a user's module
        return f"vmap meets {type_and_line(error)}"
    return None


def _differ(networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, recipe: Recipe) -> bool:
    """Whether outputs or gradients of the stack are others than those of its networks."""
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
    return not (_close(*outputs) and _close(stack.flat.grad, alone))


def _close(together: torch.Tensor, alone: torch.Tensor) -> bool:
    tolerance = torch.finfo(alone.dtype).eps ** 0.5
    return torch.allclose(together, alone, rtol=tolerance, atol=tolerance * alone.abs().max().item())


def _optimizer(recipe: Recipe, flat: torch.Tensor) -> torch.optim.Optimizer:
    given = getattr(recipe.optimizer, "keywords", {})
    forms = {"fused", "foreach", "capturable", "differentiable"}  # of which a caller may have chosen one
    fused = {"fused": True} if _unwrapped(recipe.optimizer) in FUSED and not forms & given.keys() else {}
    return recipe.optimizer([flat], lr=recipe.lr, **fused)


def _unwrapped(optimizer):
    """The class inside functools.partial."""
    return optimizer.func if isinstance(optimizer, functools.partial) else optimizer
