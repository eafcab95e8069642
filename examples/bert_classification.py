"""Trains a BERT to classify texts with tensor trains, saves the adapter and its classifier, and loads them again.

    python examples/bert_classification.py                                              # tiny, random, offline, seconds
    python examples/bert_classification.py --model bert-base-uncased --file mine.csv    # columns: text, label

Every fifth row is held out; loss and accuracy before and after are those of the held-out rows.
"""

import csv
import io
import json
import sys
from itertools import product
from pathlib import Path

from peft import AutoPeftModelForSequenceClassification
from shared import UserError, adapted, check_same, load, parser, read, run, trained_tokenizer, training_arguments
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    set_seed,
)

THINGS = ["film", "plot", "cast", "score", "ending", "dialogue", "pace", "camera work", "humour", "opening"]
WORDS = {"good": ["fine", "moving", "a delight", "superb"], "bad": ["dull", "clumsy", "a mess", "tedious"]}


def own_rows() -> list[dict]:
    """Rows to try the example on."""
    words = [(word, label) for label, words in WORDS.items() for word in words]
    return [{"text": f"the {thing} was {word}", "label": label} for thing, (word, label) in product(THINGS, words)]


def rows_of(path: Path) -> list[dict]:
    """Rows with text and label of a CSV or JSONL file. Raises UserError for what is no such file."""
    text = read(path)
    try:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif path.suffix == ".csv":
            found = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            raise UserError(f"--file {path} ends in {path.suffix!r}; allowed: .csv, .jsonl")
    except (json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"--file {path} is damaged: {error}") from None
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict) or any(row.get(key) in (None, "") for key in ("text", "label")):
            raise UserError(f"--file {path}: row {number} lacks text or label: {row}")
    return [{"text": str(row["text"]), "label": str(row["label"])} for row in found]


def tiny_base(rows: list[dict], folder: Path) -> str:
    """Write a tiny random BERT and a tokenizer of these rows; returns where."""
    tokenizer = trained_tokenizer([row["text"] for row in rows])
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = BertConfig(**sizes, **tokens, initializer_range=0.1)
    for part in (BertForSequenceClassification(config), tokenizer):
        part.save_pretrained(folder)
    return str(folder)


def accuracy(prediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__.splitlines()[0], "CSV or JSONL with text and label; default: a few rows", "outputs/bert")
    args = args.parse_args(argv)
    arguments, rows = training_arguments(args), rows_of(args.file) if args.file else own_rows()
    labels = sorted({row["label"] for row in rows})
    if len(labels) < 2 or len(rows) < 5:
        raise UserError(f"there are {len(rows)} rows with labels {labels}; needed are 5 rows and 2 labels")
    set_seed(0)
    name = args.model or tiny_base(rows, args.output / "base")
    tokenizer = load(AutoTokenizer, name)
    encoded = [tokenizer(row["text"], truncation=True, max_length=128) for row in rows]
    encoded = [{**batch, "label": labels.index(row["label"])} for batch, row in zip(encoded, rows, strict=True)]
    held_out, train = encoded[::5], [row for number, row in enumerate(encoded) if number % 5]

    names = {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
    model = adapted(load(AutoModelForSequenceClassification, name, **names), args, "SEQ_CLS")
    collator = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model, arguments, collator, train, held_out, compute_metrics=accuracy)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for key in ("loss", "accuracy"):
        print(f"held-out {key} before {before[f'eval_{key}']:.3f}, after {after[f'eval_{key}']:.3f}")

    model.save_pretrained(args.output)  # with the classifier, which is trained as a whole
    again = AutoPeftModelForSequenceClassification.from_pretrained(args.output, **names)
    check_same(model, again, {key: value for key, value in collator(held_out).items() if key != "labels"})
    print(f"saved in {args.output}")


if __name__ == "__main__":
    sys.exit(run(main))
