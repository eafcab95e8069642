"""A trained model that answers rows of data: its weights, its tokenizer, and how texts were made of data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import torch
from transformers import AutoTokenizer

from common.errors import ConfigError
from seq2seq.data import Task
from seq2seq.data.token_cache import Alphabet, truncated
from seq2seq.data.verbalizer import decode, encode
from seq2seq.data_config import DataConfig, read_data_config, set_words
from seq2seq.label_scores import label_log_probabilities
from seq2seq.models import load_named, local, usable
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.companions import DATA

BATCH = 32  # sources that the model sees at once
SHOWN = 10  # tasks in a message


@dataclass
class Answers:
    """What the model says about some sources.

    texts: the answer to each; of a task with labels, the most probable label.
    probabilities: of each label, (sources, labels); null for a task without labels.
    truncated: the number of sources that were too long.
    unknown: the number of sources with characters that the tokenizer does not know.
    """

    texts: list[str]
    probabilities: torch.Tensor | None
    truncated: int = 0
    unknown: int = 0


class Predictor:
    """A trained model, ready to answer.

    >>> predictor = Predictor("outputs/tickets")
    >>> predictor.answer(["Please add dark mode"]).texts
    ['Feature request']
    """

    def __init__(self, directory: str | Path, task: str | None = None):
        """Load a model, merged where it can be.

        directory: of a run, a saved adapter, or a merged model; or the hub id of an adapter.
        task: which of several tasks that it was trained on.
        Raises ConfigError if it cannot be loaded, or does not say how texts are made of data.
        """
        directory = local(str(directory))
        self.config = _config_of(Path(directory))
        name = _chosen(self.config, task, directory)
        self.tokenizer = load_named("MODEL", str(directory), AutoTokenizer.from_pretrained)
        self.model = load_named("MODEL", str(directory), T5ForConditionalGeneration.from_pretrained)
        usable(self.model, self.tokenizer)
        self.model.eval().to(torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu")
        self.task: Task = self.config.task(name)
        set_words([self.task], self.tokenizer, self.task.arguments, self.config)
        self.switch = name if len(self.model.task_switch.tasks) > 1 else None
        self.alphabet = Alphabet(self.tokenizer)

    @property
    def labels(self) -> Sequence[str]:
        """The labels of the task, in the order of the probabilities; empty for other tasks."""
        return list(self.task.verbalizer.words) if self.task.verbalizer else []

    def answer(self, sources: Sequence[str]) -> Answers:
        """Return the answers to sources, which are as the template makes them."""
        sources = [self.before + source for source in sources]
        tokens = encode(sources, self.tokenizer)
        limit = self.task.arguments.max_source_length
        long = sum(len(row) > limit for row in tokens)
        unknown = sum(count > 0 for count in self.alphabet.lost(pyarrow.array(sources, pyarrow.string())).to_pylist())
        tokens, order = truncated(tokens, limit), sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        texts, probabilities = [""] * len(tokens), torch.empty(len(tokens), len(self.labels))
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            batch = self.tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
            batch = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
            if self.labels:
                probabilities[rows] = self._probabilities(batch)
            else:
                for row, text in zip(rows, self._generated(batch), strict=True):
                    texts[row] = text
        if self.labels:
            texts = [self.labels[place] for place in probabilities.argmax(-1).tolist()]
        return Answers(texts, probabilities if self.labels else None, long, unknown)

    @property
    def before(self) -> str:
        """What a source begins with, where tasks share adapters."""
        return f"{self.task.name} " if self.config.prefix and self.task.named_in_source else ""

    def _probabilities(self, batch: dict) -> torch.Tensor:
        words = encode(list(self.task.verbalizer.words.values()), self.tokenizer)
        return label_log_probabilities(self.model, batch, words, self.switch).softmax(-1).cpu()

    @torch.inference_mode()
    def _generated(self, batch: dict) -> list[str]:
        task = {"task": self.switch} if self.switch else {}
        return [
            text.strip()
            for text in decode(self.model.generate(**batch, **task, **self.config.generation).tolist(), self.tokenizer)
        ]


def _config_of(directory: Path) -> DataConfig:
    if not directory.is_dir():
        raise ConfigError(
            f"MODEL is {str(directory)!r}, which is not a directory, nor an adapter of the hub; name a run"
        )
    config = read_data_config(directory)
    if config is None:
        raise ConfigError(
            f"{directory} has no {DATA}, which says how texts are made of data; name the directory of a finished run, "
            "of its adapter, or of its merged model"
        )
    return config


def _chosen(config: DataConfig, task: str | None, directory: str | Path) -> str:
    known = ", ".join(config.tasks[:SHOWN])
    if task is None and len(config.tasks) > 1:
        raise ConfigError(f"{directory} was trained on several tasks; choose one with --task: {known}")
    if task is not None and task not in config.tasks:
        raise ConfigError(f"--task is {task!r}; {directory} was trained on: {known}")
    return task or config.tasks[0]
