"""The adapters at one site, one per task or one for all, and the switch that says which tasks a batch belongs to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts, module_name
from adapters.registry import build
from adapters.sites import AFTER_SUBLAYER

# A task, or for a batch of several tasks its runs (task, number of consecutive rows).
CurrentTask = str | tuple[tuple[str, int], ...]


class TaskSwitch:
    """The task of the current batch; all controllers of a model share one switch.

    tasks: the names that are allowed.
    current: the task, or the runs of rows of several tasks; None while a model of several tasks has not been told.
    copies: how often generation repeats each row, for beams or several sequences; an encoder sees rows once.
    """

    copies = 1

    def __init__(self, tasks: Sequence[str]):
        self.set_tasks(tasks)

    def set_tasks(self, tasks: Sequence[str]) -> None:
        """Replace the allowed tasks."""
        self.tasks = tuple(tasks)
        self.current: CurrentTask | None = self.tasks[0] if len(self.tasks) == 1 else None

    @contextmanager
    def pinned(self, task: str | Sequence[str] | None, copies: int | None = None) -> Iterator[None]:
        """Set the task, and the number of copies, within a `with` block.

        task: one name for the whole batch, or one per row; None leaves the current task as it is.
        copies: None leaves their number as it is.
        Raises ValueError for an unknown task.
        """
        previous = self.copies
        with self.restored(self.current if task is None else self._current_for(task)):
            self.copies = previous if copies is None else copies
            try:
                yield
            finally:
                self.copies = previous

    def runs_of(self, rows: int) -> list[tuple[str, int]]:
        """The runs of consecutive rows of one task, (task, number of rows), in a batch of `rows` rows of several tasks.

        Raises ValueError if there are neither as many rows as names, nor as many as generation makes of them.
        """
        assert isinstance(self.current, tuple)
        names = sum(count for _, count in self.current)
        if rows not in (names, names * self.copies):
            raise ValueError(f"task has {names} names, but the batch has {rows} rows")
        return [(task, count * (rows // names)) for task, count in self.current]

    @contextmanager
    def restored(self, current: CurrentTask | None) -> Iterator[None]:
        """Set `current`, within a `with` block, to a value that it had before."""
        previous, self.current = self.current, current
        try:
            yield
        finally:
            self.current = previous

    def _current_for(self, task: str | Sequence[str]) -> CurrentTask:
        for name in {task} if isinstance(task, str) else set(task):
            if name not in self.tasks:
                raise ValueError(f"task is {name!r}; the model has adapters for: {', '.join(self.tasks)}")
        return task if isinstance(task, str) else tuple((name, len(list(rows))) for name, rows in groupby(task))


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
