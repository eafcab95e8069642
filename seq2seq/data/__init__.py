"""Tasks by name, and batches of their texts. Importing this package registers every task."""

from seq2seq.data import (  # noqa: F401  (each registers its tasks)
    decoder_distillation,
    distillation,
    glue,
    own_file,
    span_corruption,
    squad,
    superglue,
    vader,
)
from seq2seq.data.tasks import SPLITS, Task, get_task, register, task_names

__all__ = ["SPLITS", "Task", "get_task", "register", "task_names"]
