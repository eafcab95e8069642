"""Rows in exactly the columns of the hub's data sets, the texts that each must become, and local copies of them."""

import csv
import io
import json

from datasets import Dataset

from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import get_task

PLAIN = {"idx": 0, "label": 1}
TWO = {"sentence1": "He left.", "sentence2": "He went away.", **PLAIN}
FOLLOWS = {"premise": "It rains.", "hypothesis": "It is wet.", **PLAIN}
TWO_TEXT = "sentence1: He left. sentence2: He went away."
FOLLOWS_TEXT = "premise: It rains. hypothesis: It is wet."
WSC = {"text": "Anna thanked Mia, because she had helped Anna's dog.", "idx": 3, "label": 0}
WIC = {"start1": 4, "end1": 8, "start2": 9, "end2": 13}

# task: (row, source without the task's name, target in digits, target in words)
GOLDEN = {
    "cola": ({"sentence": 'Dogs  barks, "loudly".', **PLAIN}, 'sentence: Dogs  barks, "loudly".', "1", "acceptable"),
    "sst2": ({"sentence": "a dull film ", **PLAIN, "label": 0}, "sentence: a dull film ", "0", "negative"),
    "mrpc": (TWO, TWO_TEXT, "1", "equivalent"),
    "qqp": (
        {"question1": "Who?", "question2": "Which one?", **PLAIN},
        "question1: Who? question2: Which one?",
        "1",
        "duplicate",
    ),
    "stsb": ({**TWO, "label": 3.5}, TWO_TEXT, "3.6", "3.6"),
    "mnli": ({**FOLLOWS, "label": 2}, FOLLOWS_TEXT, "2", "contradiction"),
    "qnli": (
        {"question": "Who won?", "sentence": "Ann did.", **PLAIN, "label": 0},
        "question: Who won? sentence: Ann did.",
        "0",
        "entailment",
    ),
    "rte": (TWO, TWO_TEXT, "1", "not_entailment"),
    "wnli": (TWO, TWO_TEXT, "1", "entailment"),
    "superglue-boolq": (
        {"question": "is ice cold", "passage": "Ice -- Ice is frozen water.", **PLAIN},
        "question: is ice cold passage: Ice -- Ice is frozen water.",
        "1",
        "True",
    ),
    "superglue-rte": ({**FOLLOWS, "label": 0}, FOLLOWS_TEXT, "0", "entailment"),
    "superglue-cb": (FOLLOWS, FOLLOWS_TEXT, "1", "contradiction"),
    "superglue-copa": (
        {"premise": "I ran.", "choice1": "I was late.", "choice2": "I sat.", "question": "cause", **PLAIN, "label": 0},
        "premise: I ran. choice1: I was late. choice2: I sat. question: cause",
        "0",
        "choice1",
    ),
    "superglue-multirc": (
        {
            "paragraph": "<b>Sent 1: </b>Tom ran.<br><b>Sent 2: </b>Ann < Bob.<br>",
            "question": "Who <b>ran</b>?",
            "answer": "Tom",
            "idx": {"paragraph": 4, "question": 17, "answer": 80},
            "label": 1,
        },
        "question: Who ran? answer: Tom paragraph: Sent 1: Tom ran. Sent 2: Ann < Bob.",
        "1",
        "True",
    ),
    "superglue-wic": (
        {"word": "bank", "sentence1": "The bank paid.", "sentence2": "A sandy bank.", **WIC, **PLAIN},
        "sentence1: The bank paid. sentence2: A sandy bank. word: bank",
        "1",
        "True",
    ),
    "superglue-wsc.fixed": (
        {**WSC, "span1_index": 2, "span1_text": "Mia", "span2_index": 4, "span2_text": "she"},
        "text: Anna thanked * Mia *, because # she # had helped Anna's dog.",
        "0",
        "False",
    ),
    "superglue-record": (
        {
            "passage": "Ann met Bob\nin Rome.\n@highlight\nBob is ill\n@highlight\nAnn flew home",
            "query": "@placeholder left Rome",
            "entities": ["Ann", "Bob", "Rome"],
            "entity_spans": {"text": ["Ann", "Bob", "Rome"], "start": [0, 8, 15], "end": [3, 11, 19]},
            "answers": ["Ann", "Ann Lee"],
            "idx": {"passage": 0, "query": 0},
        },
        "query: @placeholder left Rome entities: Ann, Bob, Rome "
        "passage: Ann met Bob in Rome. Bob is ill. Ann flew home",
        "Ann",
        "Ann",
    ),
    "squad": (
        {
            "id": "5a",
            "title": "Rome",
            "context": "Rome's hills (seven) are old_er, in the U.S. too.",
            "question": "How many hills?",
            "answers": {"text": ["seven", "The seven"], "answer_start": [14, 10]},
        },
        "question: How many hills ? context: Rome ' s hills ( seven ) are old _ er , in the U . S . too .",
        "seven",
        "seven",
    ),
}
# Published splits beside "train" that a task reads, and where a local copy keeps them.
EVALUATED = {"mnli": ("validation_matched", "validation_mismatched")}
FOLDERS = {"superglue": "super_glue", "squad": "squad/plain_text"}


def folder_of(task: str) -> str:
    """Where a local copy holds the task, below data_dir."""
    family, _, config = task.rpartition("-")
    return FOLDERS[task] if task in FOLDERS else f"{FOLDERS.get(family, 'glue')}/{config}"


def as_csv(rows: list[dict]) -> str:
    """Lists and objects as JSON, as a CSV has them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    return text.getvalue()


WRITERS = {
    "jsonl": lambda rows, path: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
    "json": lambda rows, path: path.write_text(json.dumps(rows, indent=1)),
    "csv": lambda rows, path: path.write_text(as_csv(rows)),
    "parquet": lambda rows, path: Dataset.from_list(rows).to_parquet(path),
}


def local_task(tmp_path, name: str, train: list[dict], validation: list[dict] = (), kind: str = "jsonl", **settings):
    """The task with these rows as its local copy; settings: data arguments, and seed."""
    folder = tmp_path / folder_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    validation = list(validation) or train
    for split, rows in {"train": train, **dict.fromkeys(EVALUATED.get(name, ["validation"]), validation)}.items():
        WRITERS[kind](rows, folder / f"{split}.{kind}")
    seed = settings.pop("seed", 42)
    return get_task(name, DataTrainingArguments(task_name=name, data_dir=str(tmp_path), **settings), seed)


def numbered(name: str, count: int, start: int = 0) -> list[dict]:
    """`count` rows of a task, told apart by a number in their first text."""
    row, *_ = GOLDEN[name]
    field = "text" if "wsc" in name else "query" if "record" in name else get_task(name).fields[0]
    return [{**row, field: f"{row[field]} {n}"} for n in range(start, start + count)]
