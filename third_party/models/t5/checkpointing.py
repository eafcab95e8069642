"""Gradient checkpointing of a model whose adapters have a task, and can be switched off."""

from collections.abc import Callable
from typing import Any

from adapters import TaskSwitch


def checkpoint_with_task(
    switch: TaskSwitch, checkpoint: Callable[..., Any], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Checkpoint `function` so that recomputing it in the backward pass uses the switch of the forward pass."""
    state = switch.state

    def run(*inputs: Any, **keywords: Any) -> Any:
        with switch.restored(state):
            return function(*inputs, **keywords)

    return checkpoint(run, *args, **kwargs)
