"""`data_config.json`: how texts were made of data, which travels with the trained model."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checksums import damage, is_sealed, sealed, sha256_of
from common.errors import ConfigError
from common.json_settings import check_keys, has_type, read_file
from common.keys import key_types
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import Task, get_task
from seq2seq.data.verbalizer import LONGEST, verbalizer_of
from seq2seq.models import local
from third_party.models.t5.companions import DATA

# What predictions depend on; where the rows of training are does not matter to them.
COMMON = ("label_style", "max_source_length", "max_target_length")
KEYS = (
    *("source_template", "optional_columns", "target_column", "labels", "metrics", "target_step", "multiple"),
    *("missing_values", "data_name", *COMMON),
)
TYPES = {"tasks": list[str], "data": dict, "words": dict, "ranges": dict, "prefix": bool, "generation": dict}


@dataclass(frozen=True)
class DataConfig:
    """How texts were made of data.

    tasks: the names of the tasks that were trained.
    data: the data keys.
    words: task -> label -> the word that the model says.
    ranges: task -> the lowest and highest of its targets, if they are numbers.
    prefix: whether sources begin with the name of their task.
    generation: "max_length" and "num_beams" of predictions.
    """

    tasks: Sequence[str]
    data: Mapping[str, Any]
    words: Mapping[str, Mapping[str, str]]
    ranges: Mapping[str, Sequence[float]]
    prefix: bool
    generation: Mapping[str, int]

    def task(self, name: str) -> Task:
        """Return a task, with its words."""
        task = get_task(name, DataTrainingArguments(task_name=name, **self.data))
        task.given_words = self.words.get(name, {})
        if name in self.ranges:
            task.score_range = tuple(self.ranges[name])
        return task


def companions(tokenizer, tasks: Sequence[Task], data: DataTrainingArguments, prefix: bool, generation: dict) -> dict:
    """Return the files that travel with a model that is trained on tasks: file name -> content."""
    own = next((task for task in tasks if task.name == "file"), None)
    keys = {name: getattr(data, name) for name in (COMMON if own is None else KEYS) if getattr(data, name) is not None}
    if "labels" in keys:  # which may be "auto"
        keys["labels"] = list(own.labels)
    words = {task.name: dict(task.verbalizer.words) for task in tasks if task.verbalizer is not None}
    content = {
        "tasks": [task.name for task in tasks],
        "data": keys,
        "words": words,
        "ranges": {task.name: list(task.score_range) for task in tasks if task.score_range is not None},
        "prefix": prefix,
        "generation": generation,
    }
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        files = {path.name: path.read_bytes() for path in Path(directory).iterdir() if path.is_file()}
        sums = {name: sha256_of(Path(directory, name)) for name in files}
    return {**files, DATA: (json.dumps(sealed(content, sums), indent=2, ensure_ascii=False) + "\n").encode()}


def read_data_config(directory: str | Path) -> DataConfig | None:
    """Read the file in the directory of a model; null if there is none. Raises ConfigError if it is damaged."""
    path = Path(directory, DATA)
    if not path.is_file():
        return None
    content = read_file(path)
    wrong = next((name for name, kind in TYPES.items() if not has_type(content.get(name), kind)), None)
    if wrong is not None or not content["tasks"] or not is_sealed(content):
        raise ConfigError(f"{path} was not written by run_seq2seq.py: it lacks {wrong or 'its checksums'}")
    found = damage(content, path.parent, DATA)
    if found is not None:
        raise ConfigError(f"{directory} is damaged and cannot be used: {found}; copy it again, or train again")
    check_keys(content["data"], key_types(DataTrainingArguments), "run_seq2seq.py")
    return DataConfig(**{name: content[name] for name in TYPES})


def take_labels(data: DataTrainingArguments, saved: DataConfig | None) -> None:
    """Let labels "auto" be those that a model was trained with, as it can say no others."""
    if data.labels == "auto" and saved is not None and isinstance(saved.data.get("labels"), list):
        data.labels = saved.data["labels"]


def saved_with(name: str | None) -> DataConfig | None:
    """Return the data configuration of a model; null for one without, such as a hub's."""
    directory = local(name) if name else None
    return read_data_config(directory) if directory and Path(directory).is_dir() else None


def set_words(tasks: Iterable[Task], tokenizer, data: DataTrainingArguments, saved: DataConfig | None) -> None:
    """Give each task with labels the words that the model says for them: as saved with the model, given, or found."""
    for task in tasks:
        if task.targets is not None:
            words = {**(saved.words.get(task.name, {}) if saved else {}), **task.given_words}
            longest = data.max_target_length - 1
            longest = min(LONGEST, longest) if task.name == "file" else longest
            task.verbalizer = verbalizer_of(task.targets, tokenizer, words, longest)
