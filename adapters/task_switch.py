"""The switch of a model's adapters: which tasks the rows of a batch belong to, and whether adapters run at all."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

# A task, or for a batch of several tasks its runs (task, number of consecutive rows).
CurrentTask = str | tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class SwitchState:
    """What one thread has set.

    task: the task, or the runs of rows of several tasks; None if none was named.
    copies: how often generation repeats each row, for beams or several sequences; an encoder sees rows once.
    enabled: False while the model computes as the plain backbone.
    """

    task: CurrentTask | None = None
    copies: int = 1
    enabled: bool = True


class TaskSwitch:
    """The switch that all adapted modules of a model share. Each thread has a state of its own.

    Copies, and what pickle restores, have the same tasks and start with nothing set.
    tasks: the names that are allowed.
    """

    def __init__(self, tasks: Sequence[str]):
        self._own = threading.local()
        self.set_tasks(tasks)

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskSwitch, (self.tasks,)

    def set_tasks(self, tasks: Sequence[str]) -> None:
        """Replace the allowed tasks."""
        self.tasks = tuple(tasks)

    @property
    def state(self) -> SwitchState:
        """The state of this thread, for `restored`."""
        return getattr(self._own, "state", SwitchState())

    @property
    def enabled(self) -> bool:
        """False while adapters are switched off."""
        return self.state.enabled

    @property
    def current(self) -> CurrentTask | None:
        """The task, or the runs of rows of several tasks; None while a model of several tasks has not been told."""
        task = self.state.task
        return self.tasks[0] if task is None and len(self.tasks) == 1 else task

    @contextmanager
    def pinned(self, task: str | Sequence[str] | None, copies: int | None = None) -> Iterator[None]:
        """Set the task, and the number of copies, within a `with` block.

        task: one name for the whole batch, or one per row; None leaves the current task as it is.
        copies: None leaves their number as it is.
        Raises ValueError for an unknown task.
        """
        state = self.state
        chosen = state.task if task is None else self._current_for(task)
        with self.restored(replace(state, task=chosen, copies=state.copies if copies is None else copies)):
            yield

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Switch adapters off within a `with` block."""
        with self.restored(replace(self.state, enabled=False)):
            yield

    @contextmanager
    def restored(self, state: SwitchState) -> Iterator[None]:
        """Set the state, within a `with` block, to one that it had before."""
        previous, self._own.state = self.state, state
        try:
            yield
        finally:
            self._own.state = previous

    def runs_of(self, rows: int) -> list[tuple[str, int]]:
        """The runs of consecutive rows of one task, (task, number of rows), in a batch of `rows` rows of several tasks.

        Raises ValueError if there are neither as many rows as names, nor as many as generation makes of them.
        """
        current = self.current
        assert isinstance(current, tuple)
        names = sum(count for _, count in current)
        if rows not in (names, names * self.state.copies):
            raise ValueError(f"task has {names} names, but the batch has {rows} rows")
        return [(task, count * (rows // names)) for task, count in current]

    def _current_for(self, task: str | Sequence[str]) -> CurrentTask:
        for name in {task} if isinstance(task, str) else set(task):
            if name not in self.tasks:
                raise ValueError(f"task is {name!r}; the model has adapters for: {', '.join(self.tasks)}")
        return task if isinstance(task, str) else tuple((name, len(list(rows))) for name, rows in groupby(task))


class WhileEnabled:
    """A hook that does nothing while adapters are switched off.

    hook: a method that nn.Module calls before or after a forward pass.
    """

    def __init__(self, switch: TaskSwitch, hook: Callable[..., Any]):
        self.switch, self.hook = switch, hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.hook(*args, **kwargs) if self.switch.enabled else None
