"""How many cells of a sweep an hour sees: one after the other, side by side, and on Ray.

    python benchmarks/sweep_throughput.py [--rounds 1] [--rows 400] [--methods 6] [--without_ray]

Runs the same 12 cells (of 6 methods and two seeds, t5-nano on vader-nyt) in each way, in a new random order each round:
by a loop of run_seq2seq.py, and by a sweep with one worker, with several, and on Ray. Prints the median over rounds of:
seconds, cells an hour, that number over the one of the loop, and the overhead of a cell: the time from its start to its
end as the driver sees it, less the time that the run itself reports.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.arguments import Parser, whole  # noqa: E402
from seq2seq.sweeps.cells import Table  # noqa: E402
from seq2seq.sweeps.driver import Driver, Workers  # noqa: E402
from seq2seq.sweeps.local import LocalWorkers  # noqa: E402
from seq2seq.sweeps.on_ray import RayWorkers  # noqa: E402
from seq2seq.sweeps.records import Records  # noqa: E402
from seq2seq.sweeps.specification import load_sweep  # noqa: E402

ROOT = Path(__file__).parents[1]
METHODS = ["use_LoRA", "ia3", "bitfit", "use_TTLoRA", "tensor_train_adapters", "norms only"]
ROW = "{:34} {:>9} {:>10} {:>7} {:>12}"
COLUMNS = ("", "seconds", "cells/hour", "ratio", "overhead, s")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Compare ways to run the cells of a sweep.", allow_abbrev=False)
    parser.add_argument("--rounds", type=whole, default=1, help="number of times that each way is run")
    parser.add_argument("--rows", type=whole, default=400, help="rows that a cell trains on")
    parser.add_argument("--methods", type=whole, default=len(METHODS), help="number of methods, two cells each")
    parser.add_argument("--without_ray", action="store_true")
    return parser.parse_args(arguments)


@dataclass
class Found:
    """Seconds of all cells, and the overhead of each."""

    seconds: float
    overheads: list[float]


def table_of(given: argparse.Namespace, directory: str) -> Table:
    """The cells."""
    keys = {"model_name_or_path": "t5-nano", "max_val_samples": 200, "max_test_samples": 200}
    keys |= {"low_resource": given.rows}
    keys |= {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 0.003, "tt_rank": 4, "tt_d": 2}
    sweep = {"configurations": METHODS[: given.methods], "tasks": ["vader-nyt"], "seeds": [1, 2], "keys": keys}
    file = Path(directory, "sweep.json")
    file.write_text(json.dumps({**sweep, "output_dir": directory}))
    return Table(load_sweep(str(file), []))


def loop(given: argparse.Namespace, directory: str) -> Found:
    """Run the cells by run_seq2seq.py, one after the other, with torch's number of threads."""
    table, found = table_of(given, directory), []
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    for row, task in table.pairs():
        for cell in table.reports(row, task, {}):
            file = Path(directory, f"{cell.key}.json")
            file.write_text(json.dumps(cell.values))
            command, start = [sys.executable, str(ROOT / "run_seq2seq.py"), str(file)], time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            taken = time.perf_counter() - start
            results = json.loads((cell.directory / "results.json").read_text())
            found.append((taken, taken - results["seconds"]))
    return Found(sum(taken for taken, _ in found), [overhead for _, overhead in found])


def measured(make: Callable[[], Workers], given: argparse.Namespace, directory: str) -> Found:
    """Run the cells as a sweep. make: returns the workers; making them is part of the time."""
    table, records = table_of(given, directory), Records(Path(directory, "cells.jsonl"))
    start = time.perf_counter()
    state = Driver(table, records, make(), lambda state, news: None).run()
    seconds = time.perf_counter() - start
    if state.failed:
        sys.exit("; ".join(error for _, error in state.failed.values()))
    return Found(seconds, [taken - records.by_key[cell.key]["seconds"] for cell, taken in state.taken])


def compare(given: argparse.Namespace) -> None:
    """Run all ways, and print the table."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers: dict[str, Callable[[], Workers]] = {
        "one worker, one thread": partial(LocalWorkers, 1, 1, 0, False),
        f"one worker, {cpus} threads": partial(LocalWorkers, 1, cpus, 0, False),
        f"{cpus} workers": partial(LocalWorkers, cpus, 1, 0, False),
    }
    if not given.without_ray:
        workers[f"{cpus} workers on Ray"] = partial(RayWorkers, "local", cpus, 1, 0, False)
    ways = {"a loop of run_seq2seq.py": loop, **{name: partial(measured, make) for name, make in workers.items()}}
    found: dict[str, list[Found]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name in random.sample([*ways], len(ways)):
            with tempfile.TemporaryDirectory() as directory, open(os.devnull, "w") as log, redirect_stdout(log):
                found[name].append(ways[name](given, directory))
    print(ROW.format(*COLUMNS))
    first = median(each.seconds for each in next(iter(found.values())))
    for name, each in found.items():
        seconds = median(one.seconds for one in each)
        cells = len(each[0].overheads)
        overhead = median(value for one in each for value in one.overheads)
        print(
            ROW.format(
                name, f"{seconds:.0f}", f"{3600 * cells / seconds:.0f}", f"{first / seconds:.2f}", f"{overhead:.2f}"
            )
        )


if __name__ == "__main__":
    compare(parse(sys.argv[1:]))
