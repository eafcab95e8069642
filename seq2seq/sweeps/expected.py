"""How long the cells of a sweep will take: as those that have finished here, or by timed steps of the method."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from transformers import TrainingArguments

from common.errors import ConfigError
from seq2seq.data.batches import load_texts, tasks_of_splits
from seq2seq.data.tasks import SPLITS
from seq2seq.models import configuration_of
from seq2seq.settings import Settings, build
from seq2seq.sweeps.cells import Cell
from seq2seq.sweeps.records import Records, machine
from seq2seq.sweeps.timed_steps import step_times
from third_party.models.t5.key_usage import adapted_and_read
from third_party.models.t5.parameters import count_parameters

CHARACTERS = 4.0  # of English text in a token of T5
START = 2.0  # seconds in which a run loads model and data
# Rows of our splits of published sets (train, validation and test), and about how many characters a source has.
PUBLISHED = {
    "cola": (8551, 521, 522, 50),
    "sst2": (66_349, 1000, 872, 60),
    "mrpc": (3668, 204, 204, 250),
    "stsb": (5749, 750, 750, 140),
    "qqp": (362_846, 1000, 40_430, 140),
    "mnli": (392_702, 9832, 9815, 190),
    "qnli": (103_743, 1000, 5463, 220),
    "rte": (2490, 138, 139, 310),
}


@dataclass(frozen=True)
class Work:
    """Tokens that a cell passes through the model: in training, and in evaluations."""

    trained: float
    evaluated: float


class Expectation:
    """Expects the time of cells.

    source: where the expectation is from, in words.
    """

    def __init__(self, records: Records, threads: int):
        self._threads = threads
        here = [r for r in records.by_key.values() if r.get("machine") == machine() and "seconds" in r]
        self._known = {(r["row"], r["task"], r["stage"]): r["seconds"] for r in here if r.get("threads") == threads}
        self._ratios: list[float] = []
        self.source = "timed steps on this machine"

    def learn(self, cells: Sequence[Cell]) -> None:
        """Compare what is expected of cells that have finished on this machine with the time that they took."""
        known = {self._place(cell): cell for cell in cells if self._place(cell) in self._known}
        for place, cell in [*known.items()][:: max(1, len(known) // 20)]:
            expected = self._from_step(cell)
            if expected:
                self._ratios.append(self._known[place] / expected)
        if self._ratios:
            self.source = f"{len(known)} cells that have finished on this machine"

    def seconds(self, cell: Cell) -> float | None:
        """Return the expected time of a cell; None if its data cannot be read here and their size is not known."""
        if self._place(cell) in self._known:
            return self._known[self._place(cell)]
        expected = self._from_step(cell)
        return None if expected is None else expected * (median(self._ratios) if self._ratios else 1.0)

    def _place(self, cell: Cell) -> tuple[str, str, str]:
        return cell.row.name, cell.task, cell.stage

    def _from_step(self, cell: Cell) -> float | None:
        settings = build(cell.values)
        if cell.row.baseline is not None:
            return START
        work = work_of(settings)
        if work is None:
            return None
        training, answering = step_times(settings, self._threads)
        return START + work.trained * training + work.evaluated * answering


def weights(cells: Iterable[Cell]) -> dict[tuple[str, str, str], float]:
    """Return about how much work a cell is, relative to others, by row, task and stage; 1 where that is not known."""
    found = {}
    for cell in cells:
        work = None if cell.row.baseline is not None else work_of(build(cell.values))
        known = 1.0 if work is None else 3 * work.trained + work.evaluated  # forward, and back through all layers
        found[cell.row.name, cell.task, cell.stage] = known
    return found


def trainable(cell: Cell) -> int | None:
    """Return the number of parameters that a cell trains; None for a baseline."""
    if cell.row.baseline is not None:
        return None
    settings = build(cell.values)
    return count_parameters(adapted_and_read(configuration_of(settings.model), settings.adapter)[0])["trainable"]


def work_of(settings: Settings) -> Work | None:
    """Return what a run computes; None if that is not known."""
    sizes = sizes_of(settings)
    if sizes is None:
        return None
    training = settings.training
    steps = sizes["train"][0] / (training.per_device_train_batch_size * training.gradient_accumulation_steps)
    epochs = training.num_train_epochs if training.max_steps < 0 else training.max_steps / steps
    tokens = {split: rows * length for split, (rows, length) in sizes.items()}
    validated = evaluations(training, epochs, epochs * steps) + bool(training.do_eval)
    return Work(epochs * tokens["train"], validated * tokens["validation"] + bool(training.do_test) * tokens["test"])


def evaluations(training: TrainingArguments, epochs: float, steps: float) -> float:
    """Return how often a run is evaluated while it trains for `epochs`, which are `steps`."""
    if training.eval_strategy == "epoch":
        return epochs
    if training.eval_strategy == "steps":
        every = training.eval_steps or training.logging_steps
        return 1 / every if every < 1 else steps / every  # below 1 it is a part of all steps
    return 0.0


def sizes_of(settings: Settings) -> dict[str, tuple[int, float]] | None:
    """Return the rows of each split and the tokens of a row, over all tasks; None if that is not known."""
    data, seed = settings.data, settings.training.split_seed
    limits = {
        "train": data.low_resource or data.max_train_samples,
        "validation": data.max_val_samples,
        "test": data.max_test_samples,
    }
    names = data.tasks_of("train")
    try:
        found = published(names) or _read_sizes(settings, seed)
    except ConfigError:
        return None
    return {
        split: (min(rows, (limits[split] or rows)), min(characters / CHARACTERS, data.max_source_length))
        for split, (rows, characters) in found.items()
    }


def published(names: Sequence[str]) -> dict[str, tuple[int, float]] | None:
    """Return rows and characters of published sets, which take minutes to read; None if one is not in the table."""
    if any(name not in PUBLISHED for name in names):
        return None
    parts = [PUBLISHED[name] for name in names]
    length = sum(part[3] for part in parts) / len(parts)
    return {split: (sum(part[n] for part in parts), length) for n, split in enumerate(SPLITS)}


_sizes: dict[Any, dict[str, tuple[int, float]]] = {}


def _read_sizes(settings: Settings, seed: int) -> dict[str, tuple[int, float]]:
    """Return the rows of each split and the characters of a row. Raises ConfigError if they cannot be read."""
    data = settings.data
    key = tuple(data.tasks_of("train")), data.train_file, data.validation_file, data.test_file, data.data_dir, seed
    if key not in _sizes:
        limits = ("low_resource", "max_train_samples", "max_val_samples", "max_test_samples")
        whole = build({**settings.given, **dict.fromkeys(limits)}).data
        tasks = tasks_of_splits(whole, seed)
        texts = load_texts(tasks, tasks, whole, seed, prefix=False)
        _sizes[key] = {}
        for split, parts in texts.items():
            lengths = [len(text) for part in parts for text in part.texts["source"][:]]
            _sizes[key][split] = len(lengths), sum(lengths) / len(lengths)
    return _sizes[key]
