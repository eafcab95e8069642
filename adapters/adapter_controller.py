"""The adapters after one sublayer: one per task, or one for all."""

from typing import Any

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts
from adapters.per_task import PerTask
from adapters.registry import build
from adapters.sites import AFTER_SUBLAYER
from adapters.task_switch import TaskSwitch


class Float32LayerNorm(nn.LayerNorm):
    """nn.LayerNorm that computes in float32, or wider, and returns the dtype of x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class AdapterController(AdapterPart):
    """y -> y + adapter(y) with the adapter of each row's task; y: (rows, .., d_model).

    The optional layer norms before and after the adapter are shared by the tasks.
    """

    def __init__(self, config: AdapterConfig, d_model: int, switch: TaskSwitch, shared: SharedParts):
        super().__init__()
        shared = SharedParts() if config.share_cores_among == "tasks" else shared
        self.adapters = PerTask(switch, lambda name: build(config, AFTER_SUBLAYER, d_model, shared))
        self.pre_layer_norm = Float32LayerNorm(d_model) if config.add_layer_norm_before_adapter else nn.Identity()
        self.post_layer_norm = Float32LayerNorm(d_model) if config.add_layer_norm_after_adapter else nn.Identity()
        self.track_precision(torch.empty(0))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        # A T5 in float16 keeps part of its feed-forward in float32, whose outputs float16 might not hold.
        x = y.to(torch.promote_types(y.dtype, self.compute_dtype))
        update = self.adapters.by_rows(self.pre_layer_norm(x), lambda adapter, rows: adapter(rows))
        update = self.post_layer_norm(update)
        return y + update.to(y.dtype)

    def adapt_output(self, sublayer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Adapt the output of a sublayer; a forward hook. An attention returns a tuple, its output first."""
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)
