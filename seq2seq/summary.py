"""The summary printed at the end of a run or a series, and the peak memory it reports."""

import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.class_tables import print_classes

STATUS = Path("/proc/self/status")  # Linux only


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory since `reset_peak_memory`: of a run on a GPU its own, else that of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that earlier runs of this process reached, where the system allows it (CUDA, Linux)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def print_report(results: dict) -> None:
    """Print the results of a run."""
    table = Table(title=Text(results["experiment_name"]), title_justify="left")
    for column in ("task", "split", "metric"):
        table.add_column(column)
    table.add_column("score", justify="right")
    table.add_column("majority", justify="right")
    for split, entry in results["splits"].items():
        for task, scored in entry["tasks"].items():
            for metric, score in scored["scores"].items():
                majority = scored["majority"].get(metric)
                table.add_row(task, split, metric, f"{score:.2f}", "" if majority is None else f"{majority:.2f}")
        if len(entry["tasks"]) > 1 and "average_metrics" in entry:
            table.add_row("average", split, "average_metrics", f"{entry['average_metrics']:.2f}", "")
    counts = results["parameters"]
    share = 100 * counts["trainable"] / counts["backbone"]
    console = Console()
    if table.row_count:
        console.print(table)
    _print_classes(results["splits"])
    lines = {
        "method": results["method"],
        "trainable": f"{counts['trainable']:,} parameters, {share:.3f}% of the backbone's {counts['backbone']:,}",
        "wall time": f"{results['seconds']:.0f} s",
        "peak memory": f"{results['peak_memory_mib']:.0f} MiB",
        "written to": results["output_dir"],
    }
    times = results.get("time", {})
    for unit, seconds in times.items():
        if unit.startswith("seconds") and seconds is not None:
            lines[unit.removeprefix("seconds_").replace("_", " ")] = f"{seconds:.3f} s"
    if times.get("input_share") is not None:
        lines["input"] = f"{times['input_share']:.2%} of the training time"
    for name, value in lines.items():
        console.print(f"{name:12} {value}", highlight=False, soft_wrap=True)


def _print_classes(splits: dict) -> None:
    """Print the classes of each task of the last split, the test split if there is one."""
    console = Console()
    console = console if console.is_terminal else Console(width=200)  # in a file, nothing is cut
    for split, entry in list(splits.items())[-1:]:
        for task, scored in entry["tasks"].items():
            if "classes" in scored:
                print_classes(console, f"{task}, {split}", scored)


def print_series(summary: dict) -> None:
    """Print the means and standard deviations of a series."""
    table = Table(title=Text(f"{summary['experiment_name']} ({summary['method']})"), title_justify="left")
    for column in ("task", "split", "metric"):
        table.add_column(column)
    for column in ("rows", "mean", "deviation", "runs"):
        table.add_column(column, justify="right")
    for row in summary["scores"]:
        if row["metric"] != "loss":
            rows = "all" if row["low_resource"] is None else f"{row['low_resource']:,}"
            deviation = "" if row["deviation"] is None else f"{row['deviation']:.2f}"
            names = row["task"], row["split"], row["metric"], rows
            table.add_row(*names, f"{row['mean']:.2f}", deviation, str(row["runs"]))
    console = Console()
    if table.row_count:
        console.print(table)
    console.print(f"written to   {summary['output_dir']}", highlight=False, soft_wrap=True)
