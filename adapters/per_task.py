"""One module for each task: the rows of a batch run through that of their task."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from adapters.merged_weight import Branch
from adapters.parts import module_name
from adapters.task_switch import TaskSwitch


class PerTask(nn.ModuleDict):
    """The modules of the tasks, each called like its task, with _ instead of dots.

    switch: knows the tasks, and which of them the current batch belongs to.
    build: makes the module of a task, given its name here.
    """

    def __init__(self, switch: TaskSwitch, build: Callable[[str], nn.Module]):
        super().__init__({module_name(task): build(module_name(task)) for task in switch.tasks})
        self.switch = switch

    def by_rows(self, x: torch.Tensor, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """run(module, its rows of x), in the order of the rows; x: (rows, ..).

        Raises ValueError if the model was not told the task, or was told those of another number of rows.
        """
        task = self.switch.current
        if task is None:
            raise ValueError(f"the model has adapters for several tasks; name one of: {', '.join(self.switch.tasks)}")
        if isinstance(task, str):
            return run(self[module_name(task)], x)
        runs = self.switch.runs_of(len(x))
        pieces = zip(runs, x.split([rows for _, rows in runs]), strict=True)
        return torch.cat([run(self[module_name(name)], piece) for (name, _), piece in pieces])

    def rename_task(self, task: str) -> None:
        """Rename the only task to `task`, keeping its module."""
        (module,) = self.values()
        self.clear()
        self[module_name(task)] = module


class TaskBranches(Branch):
    """A branch for each task. They stay parallel to the weight, which a batch of several tasks has in common."""

    unmergeable = "each task has a branch of its own"

    def __init__(self, switch: TaskSwitch, build: Callable[[str], Branch]):
        super().__init__()
        self.branches = PerTask(switch, build)

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return self.branches.by_rows(x, lambda branch, rows: branch.layer_output(rows, weight, bias))
