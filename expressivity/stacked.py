"""Fits networks of one architecture together: stacked parameters, one forward pass and one optimiser step for all."""

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

    The attribute `trained` holds the trainable parameters by name, each as one tensor per group, at least in single
    precision.
    """

    def __init__(self, networks: list[nn.Module], device: torch.device, groups: int = 1):
        trained = [name for name, parameter in networks[0].named_parameters() if parameter.requires_grad]
        kept = [dict(network.named_parameters()) | dict(network.named_buffers()) for network in networks]
        self.fixed = {name: torch.stack([each[name].detach() for each in kept]).to(device) for name in kept[0]}
        self.template = networks[0].to(device)  # after its tensors were stacked with those of the others
        self.dtypes = {name: self.fixed[name].dtype for name in trained}
        own = {name: self.fixed.pop(name).to(master_dtype(self.dtypes[name])).chunk(groups) for name in trained}
        self.trained = {name: [part.clone().requires_grad_() for part in parts] for name, parts in own.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers by name, each of shape (N, *shape)."""
        whole = {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in self.trained.items()}
        return {name: each.to(self.dtypes[name]) for name, each in whole.items()} | self.fixed

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._mapped(lambda tensors, x: functional_call(self.template, tensors, (x,)), x)

    def copied_to(self, network: nn.Module, place: int) -> nn.Module:
        """`network`, with the tensors of one of the networks of the stack."""
        fill(network, {name: each[place] for name, each in self.tensors().items()})
        return network

    def losses(self, x: torch.Tensor, y: torch.Tensor, criterion) -> torch.Tensor:
        """Loss (N,) of each network on its own rows of x and y, both (N, rows, ..)."""
        return self._mapped(lambda tensors, x, y: criterion(functional_call(self.template, tensors, (x,)), y), x, y)

    def _mapped(self, function, *rows: torch.Tensor) -> torch.Tensor:
        return vmap(function, randomness="different")(self.tensors(), *rows)


@torch.no_grad()
def fill(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Set all parameters and buffers of a network to these, by name."""
    for name, each in (*network.named_parameters(), *network.named_buffers()):
        each.copy_(tensors[name])


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
    groups = [list(parts) for parts in zip(*stack.trained.values(), strict=True)]
    params = [{"params": parts, "lr": lr} for parts, lr in zip(groups, rates, strict=True)]
    optimizer = recipe.make_optimizer(params, fused=True)
    for order, steps in recipe.epochs(x.shape[1]):
        inputs, outputs = x[:, order], y[:, order]
        for decay, part in steps:
            set_rate(optimizer, decay)
            optimizer.zero_grad()
            stack.losses(inputs[:, part][owner], outputs[:, part][owner], recipe.criterion).sum().backward()
            if recipe.grad_clamp is not None:
                nn.utils.clip_grad_value_([part for parts in groups for part in parts], recipe.grad_clamp)
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
    together = [part.grad if part.grad is not None else torch.zeros_like(part) for (part,) in stack.trained.values()]
    return not (_close(*outputs) and _close(torch.cat([each.flatten() for each in together]), alone))


def _close(together: torch.Tensor, alone: torch.Tensor) -> bool:
    tolerance = torch.finfo(alone.dtype).eps ** 0.5
    return torch.allclose(together.to(alone.dtype), alone, rtol=tolerance, atol=tolerance * alone.abs().max().item())
