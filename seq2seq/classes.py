"""What was predicted for each class: precision, recall and F1 of every label, and the confusion matrix."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from seq2seq.metrics import NO_LABEL, label_numbers


def class_results(predictions: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> dict:
    """Return what `results.json` holds about the classes of a task.

    A prediction that is no label is no prediction of any class, also where `accuracy` and `f1` count it as the other
    of two labels.

    predictions, targets: texts, one for each row.
    labels: the L target texts.
    Returns "classes", in the order of the labels: "label"; "precision", "recall" and "f1" in percent, 0 where they are
        undefined; "count" and "predicted", the rows with this target and with this prediction. And "confusion":
        "labels", and "matrix", (L, L + 1): one row for each target, one column for each predicted label, and a last
        column for predictions that are no label.
    """
    each = range(len(labels))
    wanted, predicted = label_numbers(targets, labels), label_numbers(predictions, labels)
    predicted = np.where(predicted == NO_LABEL, len(labels), predicted)
    scores = precision_recall_fscore_support(wanted, predicted, labels=each, zero_division=0)
    matrix = confusion_matrix(wanted, predicted, labels=range(len(labels) + 1))[:-1]
    classes = [
        {
            "label": labels[n],
            **{name: 100 * float(score[n]) for name, score in zip(("precision", "recall", "f1"), scores, strict=False)},
            "count": int(matrix[n].sum()),
            "predicted": int(matrix[:, n].sum()),
        }
        for n in each
    ]
    return {"classes": classes, "confusion": {"labels": list(labels), "matrix": matrix.tolist()}}
