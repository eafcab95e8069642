"""The results of tt_linear.py: the JSON file and the tables.

A report holds the machine, the command and the records of the cells; the functions describe the fields of a record.
"""

import json
import math
import os
import platform
import re
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from tt_linear_peers import MODES, PLAIN

from common.files import check_writable

PACKAGES = ("torch", "tensorly", "tensorly-torch", "torchTT", "peft")
COMPARED = {"alone": "to the best peer", "beside": "to the frozen linear"}
NAMED_LAYER = (768, 3072)
NAMED = [(2, 8, 1024), (3, 2, 1024), (4, 8, 1024)]  # (d, rank, rows) of the cases with target ratios
BRANCHES = [(2, 2, 1024), (2, 32, 1024), *NAMED]


def machine(device: str, threads: int, malloc) -> dict:
    """Describe the machine and the software; `malloc`: names of environment variables."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": threads,
        "python": platform.python_version(),
        "malloc": {name: os.environ.get(name) for name in malloc},
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def start(path: Path, resume: bool, machine: dict) -> dict:
    """Return an empty report, or for `resume` the one at `path`.

    Raises ValueError if that one does not fit, or if no file can be written at `path`.
    """
    check_writable(path.parent, "--out")  # fail now rather than after the first cell
    if path.is_dir():
        raise ValueError(f"--out: {path} is a directory; choose another")
    report = {"command": sys.argv, "machine": machine, "gemm_peak": {}, "cells": {}}
    if not resume or not path.exists():
        return report
    try:
        before = json.loads(path.read_text())
        different = [name for name, value in machine.items() if before["machine"][name] != value]
        report |= {"gemm_peak": before["gemm_peak"], "cells": before["cells"]}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"--resume: {path} is not a report of this benchmark") from None
    if different:
        raise ValueError(f"--resume: {path} was measured with another {', '.join(different)}; choose another --out")
    return report


def print_tables(report: dict, records: list[dict], console: Console) -> None:
    """Print all tables for which there are measurements."""
    named = [record for record in records if is_named(record["cell"], NAMED) and "alone" in record]
    if named:
        console.print(named_table(report["gemm_peak"], named))
        console.print(contestants_table(named))
    branches = [record for record in records if is_named(record["cell"], BRANCHES) and "beside" in record]
    if branches:
        console.print(branch_table(branches))
    console.print(summary_table(records))
    for line in (*offending(records), *plain(records), *regret(records), *wins(records), *not_measured(records)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def is_named(cell: dict, cases: list[tuple]) -> bool:
    """True if a cell is one of the cases (d, rank, rows) of the named layer."""
    layer, case = (cell["in_features"], cell["out_features"]), (cell["d"], cell["rank"], cell["rows"])
    return layer == NAMED_LAYER and case in cases


def named_table(peaks: dict[str, float], records: list[dict]) -> Table:
    """The cases with target ratios."""
    table = _table(
        "x @ W, {} -> {}: how many times ours the tensordot chain takes".format(*NAMED_LAYER),
        *("case", *MODES, "share of GEMM peak, both", "MB saved for backward: x, ours, chain"),
    )
    for record in records:
        found, peak = record["alone"], peaks[record["cell"]["dtype"]]
        ratios = [_ratio(found[mode]["medians"], "chain", "ours") for mode in MODES]
        shares = [found["operations"][mode] / found[mode]["medians"]["ours"] / peak for mode in MODES]
        saved = [record["x_bytes"], *(found["saved_bytes"].get(name) for name in ("ours", "chain"))]
        table.add_row(_case(record), *ratios, " / ".join(f"{share:.0%}" for share in shares), _megabytes(saved))
    table.caption = "GEMM peak: " + ", ".join(f"{dtype} {peak / 1e9:.0f} GFLOP/s" for dtype, peak in peaks.items())
    return table


def contestants_table(records: list[dict]) -> Table:
    """The times of all contestants."""
    table = _table("x @ W: milliseconds, forward / forward+backward", "", *map(_case, records))
    for name in dict.fromkeys(name for record in records for name in record["alone"]["forward"]["medians"]):
        times = [[record["alone"][mode]["medians"].get(name) for mode in MODES] for record in records]
        table.add_row(name, *("-" if None in pair else " / ".join(f"{1e3 * t:.1f}" for t in pair) for pair in times))
    return table


def branch_table(records: list[dict]) -> Table:
    """Times, memory and parameters of a branch beside a frozen linear."""
    names = ("ours", "ours skewed", "peft LoRA", "chain")
    title = "Beside a frozen linear, {} -> {}: time / time of that linear alone".format(*NAMED_LAYER)
    table = _table(title, "", *names)
    for record in records:
        found, peaks = record["beside"], record.get("peak_memory", {})
        table.add_section()
        table.add_row(_case(record))
        for mode in MODES:
            table.add_row(f"  {mode}", *(_ratio(found[mode]["medians"], name, "frozen") for name in names))
        table.add_row("  parameters", *(str(found["parameters"].get(name, "-")) for name in names))
        table.add_row("  MB saved for backward", *(_megabytes([found["saved_bytes"].get(name)]) for name in names))
        if peaks:
            table.add_row("  peak memory, a ratio too", *(_ratio(peaks, name, "frozen") for name in names))
    table.caption = "MB of x: " + _megabytes(dict.fromkeys(record["x_bytes"] for record in records))
    return table


def summary_table(records: list[dict]) -> Table:
    """A line for each layer and dtype; a cell with several measurements counts with the median of its ratios."""
    table = _table("Ours: median and worst ratio over the cells", "", "cells", *MODES, "offending")
    for group, meaning in COMPARED.items():
        table.add_section()
        layers = {}
        for record in (record for record in records if group in record):
            layers.setdefault(f"{layer_of(record)} {meaning}", []).append(record[group])
        for key, found in layers.items():
            ratios = [[median(one[mode]["ratios"]) for one in found if one[mode]["ratios"]] for mode in MODES]
            shown = [f"{median(some):.2f}, {max(some):.2f}" if some else "-" for some in ratios]
            count = sum(one[mode]["offends"] for one in found for mode in MODES)
            table.add_row(key, str(len(found)), *shown, str(count) if group == "alone" else "")
    return table


def offending(records: list[dict]) -> list[str]:
    """A line for each cell and mode in which all measurements found ours over the limit."""
    return [
        f"offends: {record['key']}, {mode}: {', '.join(f'{r:.2f}' for r in record['alone'][mode]['ratios'])}"
        f" times the best peer, {record['alone'][mode]['best_peer']}; plans {record['alone']['chosen']}"
        for record in records
        for mode in MODES
        if "alone" in record and record["alone"][mode]["offends"]
    ]


def regret(records: list[dict]) -> list[str]:
    """A line for each group and pass in which all plans were timed, and one for all."""
    found: dict[str, list[float]] = {}
    for record in records:
        for group, passes in record["plans"].items():
            for name, plans in passes.items():
                found.setdefault("all", []).append(plans["regret"])
                found.setdefault(f"{group}, {name}", []).append(plans["regret"])
    return [f"regret of the chosen plan, {name}: {_spread(values)}" for name, values in found.items()]


def _spread(values: list[float]) -> str:
    half, most = _percentile(values, 50), _percentile(values, 90)
    return f"median {half:.2f}, 90th percentile {most:.2f}, worst {max(values):.2f} of {len(values)}"


def plain(records: list[dict]) -> list[str]:
    """A line for each pass: ours beside a frozen linear, to the fastest formulation without an engine."""
    lines = []
    for mode in MODES:
        ratios = []
        for record in records:
            medians = record.get("beside", {}).get(mode, {}).get("medians", {})
            others = [medians[name] for name in PLAIN if name in medians]
            ratios += [medians["ours"] / min(others)] if others else []
        lines += [f"ours / best plain formulation beside a frozen linear, {mode}: {_spread(ratios)}"] if ratios else []
    return lines


def wins(records: list[dict]) -> list[str]:
    """A line for each kind of plan and pass: how often it is the fastest, and by over 5% of the other kinds."""
    best, clearly, cases = Counter(), Counter(), Counter()
    for record in records:
        for passes in record["plans"].values():
            for name, plans in passes.items():
                least: dict[str, float] = {}
                for plan, seconds in plans["seconds"].items():
                    kind = f"{_kind(plan)}, {name}"
                    least[kind] = min(seconds, least.get(kind, math.inf))
                first, *others = sorted(least, key=lambda kind: least[kind])
                best[first] += 1
                clearly[first] += not others or least[others[0]] > 1.05 * least[first]
                cases[name] += 1
    lines = [f"{kind}: fastest in {count} cases, by over 5% in {clearly[kind]}" for kind, count in best.most_common()]
    return [*lines, *(f"cases {name}: {count}" for name, count in cases.items())]


def _kind(plan: str) -> str:
    """A plan without its groups; a chain with the number of its factors."""
    kind, count = plan[: plan.index("(")].strip(), plan.count("(")
    return f"{kind}, {'two' if count == 2 else 'more'} factors" if kind in ("left to right", "right to left") else kind


def not_measured(records: list[dict]) -> list[str]:
    """A line for each reason why a contestant has no times."""
    reasons = Counter(
        f"{name}, {group}: {reason}"
        for record in records
        for group in COMPARED
        for name, reason in record.get(group, {}).get("unsupported", {}).items()
    )
    return [f"not measured in {count} cells: {reason}" for reason, count in reasons.items()]


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _case(record: dict) -> str:
    cell = record["cell"]
    return f"d{cell['d']} r{cell['rank']}, {cell['rows']} rows, {cell['dtype']}"


def layer_of(record: dict) -> str:
    cell = record["cell"]
    return f"{cell['in_features']} -> {cell['out_features']}, {cell['dtype']}"


def _ratio(values: dict, name: str, base: str) -> str:
    return f"{values[name] / values[base]:.2f}" if values.get(name) and values.get(base) else "-"


def _megabytes(sizes) -> str:
    return " / ".join("-" if size is None else f"{size / 1e6:.1f}" for size in sizes)


def _percentile(values: list[float], share: int) -> float:
    """The smallest value that `share` percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values) / 100) - 1)]
