"""Tasks by name, and batches from their texts. Importing this package registers every task."""

from seq2seq.data import distillation, glue, span_corruption, vader  # noqa: F401  (they register their tasks)
from seq2seq.data.tasks import SPLITS, Task, get_task, register, task_names

__all__ = ["SPLITS", "Task", "get_task", "register", "task_names"]
