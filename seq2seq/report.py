"""What a run says at the end."""

import resource
import sys
from collections import Counter
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from seq2seq.data import Task


def majority_baseline(task: Task, targets: Sequence[str]) -> dict[str, float]:
    """The scores of always answering the most frequent target."""
    if not task.metrics:
        return {}
    most_frequent = Counter(targets).most_common(1)[0][0]
    return task.score([most_frequent] * len(targets), targets)


def peak_memory_mib() -> float:
    """Most memory held so far: on the GPU where there is one, of the whole process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def print_report(results: dict) -> None:
    """One table on the terminal."""
    table = Table(title=results["experiment_name"], title_justify="left")
    for column in ("task", "split", "metric"):
        table.add_column(column)
    table.add_column("score", justify="right")
    table.add_column("majority", justify="right")
    for split, entry in results["splits"].items():
        for metric, score in entry["scores"].items():
            majority = entry["majority"].get(metric)
            table.add_row(entry["task"], split, metric, f"{score:.2f}", "" if majority is None else f"{majority:.2f}")
    counts = results["parameters"]
    share = 100 * counts["trainable"] / counts["backbone"]
    console = Console()
    console.print(table)
    lines = {
        "method": results["method"],
        "trainable": f"{counts['trainable']:,} parameters, {share:.3f}% of the backbone's {counts['backbone']:,}",
        "wall time": f"{results['seconds']:.0f} s",
        "peak memory": f"{results['peak_memory_mib']:.0f} MiB",
        "written to": results["output_dir"],
    }
    for unit, seconds in results.get("time", {}).items():
        if unit != "steps" and seconds is not None:
            lines[unit.removeprefix("seconds_").replace("_", " ")] = f"{seconds:.3f} s"
    for name, value in lines.items():
        console.print(f"{name:12} {value}", highlight=False, soft_wrap=True)
