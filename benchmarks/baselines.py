"""What a task's accuracy is without this laboratory: linear classifiers on words, and on a sentence encoder."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from seq2seq.data import get_task
from seq2seq.data.tasks import SPLITS
from seq2seq.sentence_encoder import load_encoder

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # scikit-learn's C


def splits_of(name: str) -> list[tuple[list[str], list[str]]]:
    """Return (texts, labels) of the training, validation and test split of a task, as a run sees them."""
    task = get_task(name)
    parts = [task.examples(split, prefix=False) for split in SPLITS]
    return [(list(part["source"]), list(part["target"])) for part in parts]


def tf_idf(name: str) -> float:
    """Return the test accuracy of logistic regression on TF-IDF, of words or also of pairs, as validates better."""
    texts, labels = zip(*splits_of(name), strict=True)
    candidates = []
    for longest in (1, 2):
        vectors = TfidfVectorizer(ngram_range=(1, longest)).fit(texts[0])
        candidates.append(best_on_validation([vectors.transform(part) for part in texts], labels))
    return max(candidates, key=lambda pair: pair[0])[1]


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
    return best_on_validation([scaler.transform(part) for part in features], labels)


def best_on_validation(features: Sequence, labels: Sequence[list[str]]) -> tuple[float, float]:
    """Return the (validation, test) accuracy, in percent, of the penalty that validates best."""
    fitted = [LogisticRegression(C=penalty, max_iter=2000).fit(features[0], labels[0]) for penalty in PENALTIES]
    scores = [[100 * model.score(features[n], labels[n]) for n in (1, 2)] for model in fitted]
    return tuple(max(scores, key=lambda pair: pair[0]))


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
