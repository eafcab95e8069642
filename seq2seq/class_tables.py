"""The classes of a task in the terminal: how well each was predicted, and what was predicted instead."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import shortened

MOST = 20  # classes that are shown, the most frequent ones
LONGEST = 24  # characters of a label that are shown


def print_classes(console: Console, title: str, results: dict) -> None:
    """Print precision, recall and F1 of each class, and the confusion matrix.

    title: what the results are of.
    results: "classes" and "confusion" of `seq2seq.classes.class_results`.
    """
    classes = results["classes"]
    by_size = sorted(range(len(classes)), key=lambda n: (-classes[n]["count"], n))
    console.print(_class_table(title, classes, sorted(by_size[:MOST])))
    _say_what_is_left_out(console, len(classes), MOST)
    matrix = results["confusion"]["matrix"]
    fitting = (console.width - LONGEST - 20) // (len(f"{max(map(max, matrix)):,}") + 3)
    shown = max(min(MOST, fitting), 2)
    console.print(_confusion_table(classes, matrix, sorted(by_size[:shown])))
    _say_what_is_left_out(console, len(classes), shown)


def _class_table(title: str, classes: list[dict], shown: list[int]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, show_edge=False)
    table.add_column("", justify="right")
    table.add_column("class")
    for column in ("precision", "recall", "F1", "rows", "predicted"):
        table.add_column(column, justify="right")
    for n in shown:
        entry = classes[n]
        scores = [f"{entry[name]:.2f}" for name in ("precision", "recall", "f1")]
        table.add_row(str(n + 1), _name(entry), *scores, f"{entry['count']:,}", f"{entry['predicted']:,}")
    return table


def _confusion_table(classes: list[dict], matrix: list[list[int]], shown: list[int]) -> Table:
    """Return the rows of each class, by what was predicted; classes that are left out are one column, "others"."""
    others = len(shown) < len(classes)
    table = Table(title="rows by prediction", title_justify="left", box=box.SIMPLE, show_edge=False)
    table.add_column("", justify="right")
    table.add_column("class")
    for column in (*(str(n + 1) for n in shown), *(["others"] if others else []), "no class"):
        table.add_column(column, justify="right")
    for n in shown:
        *counts, none = matrix[n]
        cells = [counts[m] for m in shown]
        left = [sum(counts) - sum(cells)] if others else []
        table.add_row(str(n + 1), _name(classes[n]), *(f"{count:,}" for count in (*cells, *left, none)))
    return table


def _name(entry: dict) -> Text:
    return Text(shortened(entry["label"], LONGEST))


def _say_what_is_left_out(console: Console, count: int, shown: int) -> None:
    if count > shown:
        console.print(f"the {shown} most frequent of {count} classes; results.json has all", highlight=False)
