"""Fits one network at a time: for networks that cannot be stacked, and the reference for those that can."""

from functools import partial

import torch
from torch import nn

from expressivity.recipe import Recipe, master_dtype, set_rate


def fit_one(network: nn.Module, x: torch.Tensor, y: torch.Tensor, recipe: Recipe) -> nn.Module:
    """Fit `network` in place and return it.

    x: (rows, *input_size), the inputs.
    y: (rows, *output_size), the targets.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    masters = [p if p.dtype == master_dtype(p.dtype) else p.detach().to(master_dtype(p.dtype)) for p in trained]
    rounded = [(p, master) for p, master in zip(trained, masters, strict=True) if p is not master]
    optimizer = recipe.make_optimizer([master.requires_grad_() for master in masters], fused=False)
    network.train()

    def loss(inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        _round(rounded)  # before each loss: an optimiser may ask for it at several points of a step
        network.zero_grad()
        loss = recipe.criterion(network(inputs), outputs)
        loss.backward()
        for parameter, master in rounded:
            master.grad = None if parameter.grad is None else parameter.grad.to(master.dtype)
        if recipe.grad_clamp is not None:
            nn.utils.clip_grad_value_(masters, recipe.grad_clamp)
        return loss

    for order, steps in recipe.epochs(len(x)):
        inputs, outputs = x[order], y[order]
        for decay, part in steps:
            set_rate(optimizer, decay)
            optimizer.step(partial(loss, inputs[part], outputs[part]))
    _round(rounded)
    return network


@torch.no_grad()
def _round(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Set parameters in half precision to the values that the optimiser keeps of them."""
    for parameter, master in pairs:
        parameter.copy_(master)
