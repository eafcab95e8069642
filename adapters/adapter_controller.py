"""Holds the adapters of one site, one for each task or one for all, and runs those of the tasks of the batch."""

from collections.abc import Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts
from adapters.registry import build
from adapters.sites import AFTER_SUBLAYER


class TaskSwitch:
    """The task of the batch under way; one object is shared by all controllers of a model.

    `current` is a task, or for a batch of several tasks a tuple of (task, number of rows) as they follow each other.
    """

    def __init__(self, tasks: Sequence[str]):
        self.take(tasks)

    def take(self, tasks: Sequence[str]):
        """Know these tasks, and no other."""
        self.tasks = tuple(tasks)
        self.current = self.tasks[0] if len(self.tasks) == 1 else None

    @contextmanager
    def pinned(self, task: str | Sequence[str] | None):
        """Run a region under `task`, one name or one for each row; None keeps the task that holds outside.

        Raises ValueError for an unknown task.
        """
        with self.set_to(self.current if task is None else self._runs(task)):
            yield

    @contextmanager
    def set_to(self, current):
        """Run a region under what was `current` elsewhere."""
        previous, self.current = self.current, current
        try:
            yield
        finally:
            self.current = previous

    def _runs(self, task: str | Sequence[str]):
        for name in {task} if isinstance(task, str) else set(task):
            if name not in self.tasks:
                raise ValueError(f"task is {name!r}; the model has adapters for: {', '.join(self.tasks)}")
        return task if isinstance(task, str) else tuple((name, len(list(rows))) for name, rows in groupby(task))


def module_name(task: str) -> str:
    """A module's name cannot hold a dot, a task's can (superglue-wsc.fixed)."""
    return task.replace(".", "_")


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
        self.pre_layer_norm = nn.LayerNorm(d_model) if config.add_layer_norm_before_adapter else nn.Identity()
        self.post_layer_norm = nn.LayerNorm(d_model) if config.add_layer_norm_after_adapter else nn.Identity()

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        update = self.post_layer_norm(self._adapted(self.pre_layer_norm(y.to(self.dtype))))
        return y + update.to(y.dtype)

    def _adapted(self, x: torch.Tensor) -> torch.Tensor:
        task = self.switch.current
        if task is None:
            raise ValueError(f"the model has adapters for several tasks; name one of: {', '.join(self.switch.tasks)}")
        if isinstance(task, str):
            return self.adapters[self.module_names[task]](x)
        if sum(rows for _, rows in task) != len(x):
            raise ValueError(f"task names {sum(rows for _, rows in task)} rows, the batch has {len(x)}")
        pieces = zip(task, x.split([rows for _, rows in task]), strict=True)
        return torch.cat([self.adapters[self.module_names[name]](piece) for (name, _), piece in pieces])

    def rename_task(self, task: str) -> None:
        """Call the only adapter that of `task`."""
        (adapter,) = self.adapters.values()
        self.module_names = {task: module_name(task)}
        self.adapters = nn.ModuleDict({module_name(task): adapter})

    @property
    def dtype(self) -> torch.dtype:
        """Of the adapters; a half-precision T5 keeps part of its feed-forward, and thus y, in float32."""
        return next(self.adapters.parameters()).dtype

    def adapt_output(self, sublayer: nn.Module, args: tuple, output):
        """A forward hook of the adapted sublayer; an attention returns its output first in a tuple."""
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)
