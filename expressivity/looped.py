"""Fits one network at a time: for networks that cannot be stacked, and the reference for those that can."""

from functools import partial

import torch
from torch import nn

from expressivity.recipe import Recipe, set_rate


def fit_one(network: nn.Module, x: torch.Tensor, y: torch.Tensor, recipe: Recipe) -> nn.Module:
    """Fit `network` in place and return it.

    x: (rows, *input_size), the inputs.
    y: (rows, *output_size), the targets.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    # Other kernels round every operation to the precision of the parameters: in float16 the eps of Adam becomes 0.
    optimizer = recipe.make_optimizer(trained, fused=any(p.dtype.itemsize < 4 for p in trained))
    network.train()

    def loss(inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = recipe.criterion(network(inputs), outputs)
        loss.backward()
        if recipe.grad_clamp is not None:
            nn.utils.clip_grad_value_(trained, recipe.grad_clamp)
        return loss

    for order, steps in recipe.epochs(len(x)):
        inputs, outputs = x[order], y[order]
        for decay, part in steps:
            set_rate(optimizer, decay)
            optimizer.step(partial(loss, inputs[part], outputs[part]))
    return network
