"""Gradient checkpointing of a model with adapters for several tasks."""

from collections.abc import Callable
from typing import Any

from adapters import TaskSwitch


def checkpoint_with_task(
    switch: TaskSwitch, checkpoint: Callable[..., Any], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Checkpoint `function` so that recomputing it in the backward pass uses the task of the forward pass."""
    task = switch.current

    def run(*inputs: Any, **keywords: Any) -> Any:
        with switch.restored(task):
            return function(*inputs, **keywords)

    return checkpoint(run, *args, **kwargs)
