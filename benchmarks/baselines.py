"""What a task's accuracy is without this laboratory: linear classifiers on words, and on a sentence encoder."""

from collections.abc import Sequence

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
    return max(candidates)[1]


def teacher_probe(name: str) -> float:
    """Return the test accuracy of logistic regression on the mean states of the sentence encoder."""
    texts, labels = zip(*splits_of(name), strict=True)
    features = [mean_states(part) for part in texts]
    scaler = StandardScaler().fit(features[0])
    return best_on_validation([scaler.transform(part) for part in features], labels)[1]


def best_on_validation(features: Sequence, labels: Sequence[list[str]]) -> tuple[float, float]:
    """Return the (validation, test) accuracy, in percent, of the penalty that validates best."""
    fitted = [LogisticRegression(C=penalty, max_iter=2000).fit(features[0], labels[0]) for penalty in PENALTIES]
    scores = [[100 * model.score(features[n], labels[n]) for n in (1, 2)] for model in fitted]
    return tuple(max(scores, key=lambda pair: pair[0]))


@torch.no_grad()
def mean_states(texts: list[str]) -> np.ndarray:
    """Return word embeddings and the states that are learned, averaged over the tokens of each text: (n, 1536)."""
    tokenizer, model = load_encoder()
    result = []
    for start in range(0, len(texts), 64):
        inputs = tokenizer(
            texts[start : start + 64], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        layers = [model.get_input_embeddings()(inputs["input_ids"]), model(**inputs).last_hidden_state]
        mask = inputs["attention_mask"].unsqueeze(-1)
        result.append((torch.cat(layers, -1) * mask).sum(1) / mask.sum(1))
    return torch.cat(result).numpy()
