"""Holds the adapters of one site, one for each task, and runs that of the current task."""

from collections.abc import Sequence
from contextlib import contextmanager

import torch
from torch import nn

from adapters.adapter_configuration import AFTER_SUBLAYER, AdapterConfig
from adapters.parts import AdapterPart, SharedParts
from adapters.registry import build


class TaskSwitch:
    """The task of the batch under way; one object is shared by all controllers of a model."""

    def __init__(self, tasks: Sequence[str]):
        self.take(tasks)

    def take(self, tasks: Sequence[str]):
        """Know these tasks, and no other."""
        self.tasks = tuple(tasks)
        self.current = self.tasks[0] if len(self.tasks) == 1 else None

    @contextmanager
    def pinned(self, task: str | None):
        """Run a region under `task`; None keeps the task that holds outside. Raises ValueError for an unknown task."""
        if task is not None and task not in self.tasks:
            raise ValueError(f"task is {task!r}; the model has adapters for: {', '.join(self.tasks)}")
        previous = self.current
        self.current = previous if task is None else task
        try:
            yield
        finally:
            self.current = previous


class AdapterController(AdapterPart):
    """y -> y + adapter(y) with the adapter of the current task; y: (.., d_model).

    The optional layer norms before and after the adapter are shared by the tasks.
    """

    def __init__(self, config: AdapterConfig, d_model: int, switch: TaskSwitch, shared: SharedParts):
        super().__init__()
        self.switch = switch
        # A module's name cannot hold a dot, a task's can (superglue-wsc.fixed).
        self.module_names = {task: task.replace(".", "_") for task in switch.tasks}
        adapters = {name: build(config, AFTER_SUBLAYER, d_model, shared) for name in self.module_names.values()}
        self.adapters = nn.ModuleDict(adapters)
        self.pre_layer_norm = nn.LayerNorm(d_model) if config.add_layer_norm_before_adapter else nn.Identity()
        self.post_layer_norm = nn.LayerNorm(d_model) if config.add_layer_norm_after_adapter else nn.Identity()

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        task = self.switch.current
        if task is None:
            raise ValueError(f"the model has adapters for several tasks; name one of: {', '.join(self.switch.tasks)}")
        adapter = self.adapters[self.module_names[task]]
        update = self.post_layer_norm(adapter(self.pre_layer_norm(y.to(self.dtype))))
        return y + update.to(y.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the adapters; a half-precision T5 keeps part of its feed-forward, and thus y, in float32."""
        return next(self.adapters.parameters()).dtype

    def adapt_output(self, sublayer: nn.Module, args: tuple, output):
        """A forward hook of the adapted sublayer; an attention returns its output first in a tuple."""
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)
