"""What a run would read of the users' own data: rows, labels, lengths, losses and examples."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import shortened
from seq2seq.data.batches import TaskRows, token_lengths

EXAMPLES = 10
MOST_LABELS = 20  # that are printed
SHOWN = 100  # characters of a text that is printed


def data_report(rows: Mapping[str, Sequence[TaskRows]]) -> dict:
    """Return split -> task -> what was read, as JSON values. rows: with their tokens."""
    return {split: {each.task.data_name: _report(each) for each in parts} for split, parts in rows.items()}


def _report(rows: TaskRows) -> dict:
    losses, lengths = rows.losses, {}
    for name, column in (("source_tokens", "input_ids"), ("target_tokens", "labels")):
        counts = token_lengths(rows.tokens, column)
        lengths[name] = {"median": float(np.median(counts)), "longest": int(counts.max())}
    columns = ["source", "target"]
    report = {
        "rows": losses.rows,
        **lengths,
        "truncated_sources": losses.sources / losses.rows,
        "truncated_targets": losses.targets / losses.rows,
        "unknown_characters": losses.unknown / max(losses.characters, 1),
        "examples": rows.texts.select(range(min(EXAMPLES, len(rows)))).select_columns(columns).to_list(),
    }
    if rows.task.verbalizer is not None:
        counts, words = Counter(rows.texts["target"][:]), rows.task.verbalizer.words
        report["labels"] = {label: {"rows": counts[label], "word": word} for label, word in words.items()}
    return report


def print_data_report(report: dict) -> None:
    """Print the report: a table of the splits, one of the labels, and the first examples."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # in a file, nothing is cut
    splits = [(split, name, entry) for split, tasks in report.items() for name, entry in tasks.items()]
    table = Table(title="data", title_justify="left")
    for column in ("data", "split"):
        table.add_column(column)
    heads = ("rows", "source tokens", "longest", "truncated", "target tokens", "truncated", "unknown characters")
    for column in heads:
        table.add_column(column, justify="right")
    for split, name, entry in splits:
        source, target = entry["source_tokens"], entry["target_tokens"]
        cells = [f"{entry['rows']:,}", f"{source['median']:.0f}", f"{source['longest']:,}"]
        cells += [
            f"{entry['truncated_sources']:.1%}",
            f"up to {target['longest']}",
            f"{entry['truncated_targets']:.1%}",
        ]
        table.add_row(Text(name), split, *cells, f"{entry['unknown_characters']:.2%}")
    console.print(table)
    for name in dict.fromkeys(name for _, name, entry in splits if "labels" in entry):
        console.print(_labels(name, {split: entry["labels"] for split, of, entry in splits if of == name}))
    for split, name, entry in splits[:1]:
        console.print(f"{name}, {split}: the first examples", highlight=False, markup=False)
        for example in entry["examples"]:
            line = f"  {shortened(repr(example['source']), SHOWN)} -> {shortened(repr(example['target']), SHOWN)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _labels(name: str, splits: dict[str, dict]) -> Table:
    """Return a table of the labels, the most frequent first, with their words and their rows in each split."""
    table = Table(title=Text(f"labels of {name}"), title_justify="left")
    table.add_column("label")
    table.add_column("word that the model says")
    for split in splits:
        table.add_column(split, justify="right")
    first = next(iter(splits.values()))
    for label in sorted(first, key=lambda label: -first[label]["rows"])[:MOST_LABELS]:
        counts = [f"{labels[label]['rows']:,}" for labels in splits.values()]
        table.add_row(Text(shortened(label, SHOWN)), Text(first[label]["word"]), *counts)
    if len(first) > MOST_LABELS:
        table.add_row(f"and {len(first) - MOST_LABELS} more", "", *[""] * len(splits))
    return table
