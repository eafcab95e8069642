"""The directory of a finished run, looked at before anything is loaded: transformers takes seconds to import."""

from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.json_settings import read_file
from seq2seq.layout import CONFIGURATION, DIVERGED, RESULTS, SERIES

SHOWN = 10  # tasks in a message


def configuration_of_run(directory: Path, key: str) -> dict[str, Any]:
    """Return the configuration of the finished run in a directory.

    key: the setting that names it, for messages.
    Raises ConfigError if there is no run, or if it has not ended with a trained model.
    """
    given = f"{key} is {str(directory)!r}"
    if not directory.is_dir():
        what = "which is a file" if directory.exists() else "which does not exist"
        raise ConfigError(f"{given}, {what}; name the directory of a finished run of run_seq2seq.py")
    if (directory / SERIES).exists():
        raise ConfigError(f"{given}, which holds a series of runs; name one of the directories in it")
    if not (directory / CONFIGURATION).exists():
        raise ConfigError(f"{given}, which holds no run; name the directory of a finished run of run_seq2seq.py")
    if (directory / DIVERGED).exists():
        raise ConfigError(f"{given}, whose run diverged and left no model; train again with a lower learning_rate")
    if not (directory / RESULTS).exists():
        raise ConfigError(f"{given}, whose run is not finished; the command that started it goes on with it")
    configuration = read_file(directory / CONFIGURATION)
    if configuration.get("do_train") is not True:
        raise ConfigError(f"{given}, whose run evaluated a model without training it; name the run that trained it")
    return configuration


def chosen_task(configuration: dict[str, Any], task: str | None) -> str:
    """Return a task that a run was trained on: the given one, or the first. Raises ConfigError for another."""
    names = configuration["task_name"]
    names = [names] if isinstance(names, str) else names
    if task is not None and task not in names:
        raise ConfigError(f"--task is {task!r}; the run was trained on: {', '.join(names[:SHOWN])}")
    return task or names[0]
