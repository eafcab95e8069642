"""What a task's accuracy is without this laboratory: linear classifiers on words, and on a sentence encoder."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import get_task
from seq2seq.data.batches import load_texts
from seq2seq.data.tasks import SPLITS
from seq2seq.sentence_encoder import load_encoder
from seq2seq.sweeps.baselines import best_on_validation
from seq2seq.sweeps.baselines import tf_idf as answers_of_tf_idf


def splits_of(name: str) -> list[tuple[list[str], list[str]]]:
    """Return (texts, labels) of the training, validation and test split of a task, as a run sees them."""
    task = get_task(name)
    parts = [task.examples(split, prefix=False) for split in SPLITS]
    return [(list(part["source"]), list(part["target"])) for part in parts]


def tf_idf(name: str) -> float:
    """Return the test accuracy of logistic regression on TF-IDF, from all training rows."""
    data = DataTrainingArguments(task_name=name)
    task = get_task(name, data)
    rows = load_texts({split: [task] for split in SPLITS}, SPLITS, data, seed=0, prefix=False)
    answers, _ = answers_of_tf_idf({split: part for split, (part,) in rows.items()})
    test = rows["test"][0]
    return task.score(answers["test"], test.references())["accuracy"]


def teacher_probe(name: str) -> float:
    """Return the test accuracy of a probe of the sentence encoder: of its word embeddings and of what was learned."""
    tokenizer, model = load_encoder(torch.float32)

    def layers(inputs: dict) -> list[torch.Tensor]:
        return [model.get_input_embeddings()(inputs["input_ids"]), model(**inputs).last_hidden_state]

    return probe(name, tokenizer, layers)[1]


def probe(name: str, tokenizer, layers: Callable[[dict], list[torch.Tensor]]) -> tuple[float, float]:
    """Return the (validation, test) accuracy of logistic regression on states, averaged over the tokens of each text.

    layers: returns states of a batch, each (batch, length, size), which are put side by side.
    """
    texts, labels = zip(*splits_of(name), strict=True)
    features = [mean_states(part, tokenizer, layers) for part in texts]
    scaler = StandardScaler().fit(features[0])
    scaled = dict(zip(SPLITS, (scaler.transform(part) for part in features), strict=True))
    validation, model = best_on_validation(scaled, dict(zip(SPLITS, labels, strict=True)))
    return validation, 100 * model.score(scaled["test"], labels[2])


@torch.no_grad()
def mean_states(texts: list[str], tokenizer, layers: Callable[[dict], list[torch.Tensor]]) -> np.ndarray:
    """Return the means of `layers` over the tokens of each text, (texts, sum of sizes)."""
    result = []
    for start in range(0, len(texts), 64):
        inputs = tokenizer(
            texts[start : start + 64], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        mask = inputs["attention_mask"].unsqueeze(-1)
        result.append((torch.cat(layers(inputs), -1) * mask).sum(1) / mask.sum(1))
    return torch.cat(result).numpy()
