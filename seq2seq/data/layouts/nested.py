"""Rows in the hub's columns, made from the nested objects of SuperGLUE's and SQuAD's original files."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from common.errors import ConfigError, shortened


@dataclass(frozen=True)
class Nested:
    """How an object of the original file becomes rows.

    columns: the columns of lists or objects; the layout is recognised by the first.
    flatten: takes an object, returns its rows; KeyError, TypeError or ValueError means another structure.
    unit: what a row is, for messages.
    example: such an object, for messages.
    """

    columns: Sequence[str]
    flatten: Callable[[dict], Iterator[dict]]
    unit: str
    example: str


def flattened(objects: Sequence[dict], nested: Nested, place: str) -> list[dict]:
    """Return the rows of all objects, in order. Raises ConfigError with the number of an object of another structure.

    Cells of a CSV are read as JSON.
    """
    rows, column = [], nested.columns[0]
    for number, each in enumerate(objects, 1):
        here = f"{place}, row {number}"
        try:
            cells = {name: from_json(each[name], here, name) for name in nested.columns}
            rows += nested.flatten({**each, **cells})
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError):
            shown = shortened(str(each[column]), 60)
            raise ConfigError(f"{here}: column {column} is {shown}; it must be like {nested.example}") from None
    return rows


def from_json(cell, place: str, name: str):
    """Return the value of a cell of lists or objects, which is JSON text in a CSV. Raises ConfigError for Python's own.

    Raises ValueError for text that is neither.
    """
    if not isinstance(cell, str):
        return cell
    if not cell:
        return None
    try:
        return json.loads(cell)
    except ValueError:
        if cell[0] not in "[{(":
            raise
        raise ConfigError(
            f"{place}: column {name} is {shortened(cell, 60)!r}, a list or object as Python prints it, not JSON; save "
            "the table as parquet or JSON lines instead, or pass such columns through json.dumps before to_csv"
        ) from None


def _multirc(row: dict) -> Iterator[dict]:
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": row["passage"]["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {"paragraph": row.get("idx"), "question": question["idx"], "answer": answer.get("idx")},
                "label": answer.get("label"),
            }


def _record(row: dict) -> Iterator[dict]:
    passage = row["passage"]["text"]
    entities = [_span(passage, int(each["start"]), int(each["end"])) for each in row["passage"]["entities"]]
    for query in row["qas"]:
        answers = [answer["text"] for answer in query.get("answers") or []]
        yield {
            "passage": passage,
            "query": query["query"],
            "entities": list(dict.fromkeys(entities)),
            "answers": answers,
        }


def _span(text: str, start: int, end: int) -> str:
    """Return text[start] to text[end], which belongs to it."""
    if not 0 <= start <= end < len(text):
        raise ValueError
    return text[start : end + 1]


def _wsc(row: dict) -> Iterator[dict]:
    spans = {name: row["target"][name] for name in ("span1_text", "span1_index", "span2_text", "span2_index")}
    yield {"text": row["text"], **spans, "label": row.get("label")}


def _squad(document: dict) -> Iterator[dict]:
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                texts = [answer["text"] for answer in question["answers"]]
                answers = {"text": texts, "answer_start": [each.get("answer_start") for each in question["answers"]]}
                yield {"context": paragraph["context"], "question": question["question"], "answers": answers}


MULTIRC = Nested(("passage",), _multirc, "answer", '{"text": "..", "questions": [{"question": "..", "answers": [..]}]}')
RECORD = Nested(
    ("qas", "passage"), _record, "query", '[{"query": "..", "answers": [{"text": "..", "start": 0, "end": 3}]}]'
)
WSC = Nested(
    ("target",), _wsc, "sentence", '{"span1_text": "..", "span1_index": 0, "span2_text": "..", "span2_index": 5}'
)
SQUAD = Nested(("data",), _squad, "question", '[{"paragraphs": [{"context": "..", "qas": [..]}]}]')
