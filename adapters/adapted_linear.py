"""A linear layer of the backbone with a branch in parallel, a trained bias, or both."""

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.biases import AddedBias
from adapters.merged_weight import MergedWeight
from adapters.task_switch import TaskSwitch


class AdaptedLinear(MergedWeight, nn.Linear):
    """y = x W0^T + branch(x) + bias; x: (.., in_features), y: (.., out_features).

    Replaces the nn.Linear `linear` and keeps its parameters and state-dict keys; those of the added parts are below
    `branch.` and `added_bias.`, and do nothing while `switch` is off.
    """

    def __init__(self, linear: nn.Linear, config: AdapterConfig, switch: TaskSwitch):
        super().__init__(linear, config, switch)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_parameter("bias", linear.bias)
        self.added_bias: AddedBias | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias, dtype = self._total_bias(), self.compute_dtype
        if self.computes_merged:
            weight = self.merged_weight()
            if weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type):
                return functional.linear(x, weight, bias)
            bias = bias if bias is None else bias.to(weight.dtype)
            return functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
        if self.branch is None or not self.switch.enabled:
            return functional.linear(x, self.weight.to(dtype), bias)
        return self.branch.layer_output(x, self.weight.to(dtype), bias)

    def _total_bias(self) -> torch.Tensor | None:
        if self.added_bias is None or not self.switch.enabled:
            return self.bias
        added = self.added_bias.full().to(self.compute_dtype)
        return added if self.bias is None else self.bias + added
