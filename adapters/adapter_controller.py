"""The adapters after one sublayer: one per task, or one for all."""

from typing import Any

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts, module_name
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
        self.switch = switch
        self.module_names = {task: module_name(task) for task in switch.tasks}
        shared = SharedParts() if config.share_cores_among == "tasks" else shared
        adapters = {name: build(config, AFTER_SUBLAYER, d_model, shared) for name in self.module_names.values()}
        self.adapters = nn.ModuleDict(adapters)
        self.pre_layer_norm = Float32LayerNorm(d_model) if config.add_layer_norm_before_adapter else nn.Identity()
        self.post_layer_norm = Float32LayerNorm(d_model) if config.add_layer_norm_after_adapter else nn.Identity()
        self.track_precision(torch.empty(0))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        # A T5 in float16 keeps part of its feed-forward in float32, whose outputs float16 might not hold.
        x = y.to(torch.promote_types(y.dtype, self.compute_dtype))
        update = self.post_layer_norm(self._run_adapters(self.pre_layer_norm(x)))
        return y + update.to(y.dtype)

    def _run_adapters(self, x: torch.Tensor) -> torch.Tensor:
        task = self.switch.current
        if task is None:
            raise ValueError(f"the model has adapters for several tasks; name one of: {', '.join(self.switch.tasks)}")
        if isinstance(task, str):
            return self.adapters[self.module_names[task]](x)
        runs = self.switch.runs_of(len(x))
        pieces = zip(runs, x.split([rows for _, rows in runs]), strict=True)
        return torch.cat([self.adapters[self.module_names[name]](piece) for (name, _), piece in pieces])

    def rename_task(self, task: str) -> None:
        """Rename the only task to `task`, keeping its adapter."""
        (adapter,) = self.adapters.values()
        self.module_names = {task: module_name(task)}
        self.adapters = nn.ModuleDict({module_name(task): adapter})

    def adapt_output(self, sublayer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Adapt the output of a sublayer; a forward hook. An attention returns a tuple, its output first."""
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)
