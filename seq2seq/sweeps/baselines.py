"""Classifiers without T5, trained on the rows that a run would be trained on."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from common.errors import ConfigError
from common.files import write_json
from seq2seq.data.batches import TaskRows, load_texts, tasks_of_splits
from seq2seq.data.tasks import SPLITS, average_of
from seq2seq.layout import CONFIGURATION, RESULTS
from seq2seq.predictions import majority_baseline
from seq2seq.settings import Settings
from seq2seq.summary import peak_memory_mib

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # scikit-learn's C
Answers = dict[str, list[str]]  # split -> an answer for each of its rows


@dataclass(frozen=True)
class Baseline:
    """A classifier.

    title: in tables.
    answer: called with the rows by split; returns the answers and the number of trained parameters.
    """

    title: str
    answer: Callable[[Mapping[str, TaskRows]], tuple[Answers, int]]


def run_baseline(name: str, settings: Settings) -> dict:
    """Train and score a baseline, and write the same files as a run.

    Raises ConfigError for a task without labels.
    """
    start, worked, data = time.perf_counter(), time.process_time(), settings.data
    tasks = tasks_of_splits(data, settings.training.split_seed)
    texts = load_texts(tasks, SPLITS, data, settings.training.seed, prefix=False)
    entries: dict[str, dict] = {split: {} for split in SPLITS[1:]}
    trained = 0
    for number, task in enumerate(tasks["train"]):
        if task.targets is None:
            raise ConfigError(f"baseline is {name!r}, which needs labels; {task.data_name} has none")
        rows = {split: texts[split][number] for split in SPLITS}
        answers, parameters = BASELINES[name].answer(rows)
        trained += parameters
        for split, entry in entries.items():
            entry[task.name] = {
                "scores": task.score(answers[split], rows[split].references()),
                "majority": majority_baseline(rows[split]),
                "rows": len(rows[split]),
                "data": {"name": task.data_name, "hash": rows[split].data_hash},
            }
    results = {
        "experiment_name": settings.training.experiment_name,
        "method": BASELINES[name].title,
        "keys_read": [],
        "splits": {
            split: {
                "tasks": entry,
                "average_metrics": float(np.mean([average_of(task["scores"]) for task in entry.values()])),
            }
            for split, entry in entries.items()
        },
        "parameters": {"trainable": trained, "total": trained, "backbone": 0},
        "history": [],
        "seed": settings.training.seed,
        "low_resource": data.low_resource,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - worked,
        "peak_memory_mib": peak_memory_mib(settings.training.device),
        "output_dir": settings.training.output_dir,
    }
    directory = Path(settings.training.output_dir)
    write_json(directory / CONFIGURATION, settings.resolved(), sort_keys=True, key="output_dir")
    write_json(directory / RESULTS, results, key="output_dir")
    return results


def tf_idf(rows: Mapping[str, TaskRows]) -> tuple[Answers, int]:
    """Logistic regression on TF-IDF, of words or also of pairs, as validates better."""
    texts = {split: list(each.texts["source"]) for split, each in rows.items()}
    labels = {split: list(each.texts["target"]) for split, each in rows.items()}
    found = []
    for longest in (1, 2):
        vectors = TfidfVectorizer(ngram_range=(1, longest)).fit(texts["train"])
        features = {split: vectors.transform(part) for split, part in texts.items()}
        score, model = best_on_validation(features, labels)
        found.append((score, model, features))
    _, model, features = max(found, key=lambda each: each[0])
    trained = model.coef_.size + model.intercept_.size
    return {split: model.predict(part).tolist() for split, part in features.items()}, trained


def best_on_validation(
    features: Mapping[str, Sequence], labels: Mapping[str, Sequence[str]]
) -> tuple[float, LogisticRegression]:
    """Return the accuracy on validation, in percent, and the model, of the penalty that validates best.

    features, labels: by split, "train" and "validation" at least.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of weak penalties, which validate worse
        fitted = [
            LogisticRegression(C=penalty, max_iter=2000).fit(features["train"], labels["train"])
            for penalty in PENALTIES
        ]
    scores = [100 * model.score(features["validation"], labels["validation"]) for model in fitted]
    return max(zip(scores, fitted, strict=True), key=lambda pair: pair[0])


BASELINES = {"tf_idf": Baseline("TF-IDF + logistic regression", tf_idf)}
