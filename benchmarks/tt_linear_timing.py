"""Timing for tt_linear.py: contestants in turns, our plans against each other, and peaks of memory."""

import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import tt_linear_checks as checks
import tt_linear_peers as peers
import tt_linear_report as report
from tt_linear_malloc import THRESHOLDS
from tt_linear_peers import MODES, Cell, Data

from t3nsor.contraction.cost_model import choose_plan
from t3nsor.contraction.engine import contraction_for
from t3nsor.contraction.measuring import time_plans

LIMIT = 1.15  # of the time of the best peer
MEASUREMENTS = 3  # that must agree before a cell offends
NEAR = 4  # times the least predicted time: other plans are not timed
SLOW = 8  # times ours: such a contestant runs for one round only
BENCHMARK = Path(__file__).with_name("tt_linear.py")


def clock(run: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    result = run()
    wait()
    seconds = time.perf_counter() - start
    del result
    return seconds


def interleaved(runs: dict[str, Callable], args, reference: str = "ours") -> dict[str, list[float]]:
    """Seconds of each run in each round; a round has every run once, in random order.

    Each run finds in the caches what the previous one left there, so none may always follow the same one.
    There are args.repeats rounds; fewer when a round is long, more when it is short, never under 3. A run that takes
    more than SLOW times as long as `reference` in the first round is left out of the others.
    """
    names, seconds = list(runs), {name: [] for name in runs}
    rounds, k = args.repeats, 0
    gc.disable()
    while k < rounds:
        for name in random.sample(names, len(names)):
            seconds[name].append(round(clock(runs[name], args.device), 7))
        if k == 0:
            limit = SLOW * seconds[reference][0]
            names = [name for name in names if not is_slow(seconds[name][0], limit, runs[name], args.device)]
            once = sum(seconds[name][0] for name in names)
            rounds = 3 if once > 5 else min(5, rounds) if once > 1 else 2 * rounds if once < 0.1 else rounds
        k += 1
    gc.enable()
    return seconds


def is_slow(seconds: float, limit: float, run: Callable[[], object], device: str) -> bool:
    """True if a run is over the limit; a short run is timed again, as the system may have interrupted it."""
    return seconds > limit and (seconds > 0.1 or clock(run, device) > limit)


def contest(group: str, contestants: dict, data: Data, mode: str, args) -> dict:
    """Time the contestants of a group in one mode; again while ours is over the limit, up to MEASUREMENTS times.

    "seconds", "medians": over all measurements.
    "ratios": one entry per measurement, ours to the best peer, or to the frozen linear.
    "timed_once": contestants too slow for more than one round.
    """
    runs = {name: contestant.run(data, mode) for name, contestant in contestants.items()}
    seconds, ratios, best = {name: [] for name in runs}, [], None
    compared = [name for name in peers.BEST_OF[group] if name in runs]
    while not ratios or (group == "alone" and ratios[-1] > LIMIT and len(ratios) < MEASUREMENTS):
        measured = interleaved(runs, args)
        for name, values in measured.items():
            seconds[name] += values
        if not compared:
            break
        medians = {name: median(values) for name, values in measured.items()}
        best = min(compared, key=medians.get)
        ratios.append(medians["ours"] / medians[best])
    rounds = len(seconds["ours"])
    return {
        "medians": {name: median(values) for name, values in seconds.items()},
        "ratios": ratios,
        "best_peer": best,
        "offends": group == "alone" and len(ratios) == MEASUREMENTS and min(ratios) > LIMIT,
        "timed_once": [name for name, values in seconds.items() if len(values) < rounds],
        "seconds": seconds,
    }


def measure_plans(group: str, data: Data, args) -> dict:
    """The regret of the choice, forward, and backward with the forward pass before it: its time / the best plan's."""
    spec = contraction_for(data.x, data.tt.cores, False, group == "beside").spec
    found = {}
    for name, backward in (("forward", False), ("backward", True)):
        chosen = choose_plan(spec, "auto", backward)
        seconds = time_plans(spec, backward, torch.device(args.device), near=NEAR, rounds=args.repeats)
        best = min(seconds, key=seconds.__getitem__)
        found[name] = {"chosen": str(chosen), "best": str(best), "regret": seconds[chosen] / seconds[best]}
        found[name]["seconds"] = {str(plan): value for plan, value in seconds.items()}
    return found


def gemm_peak(dtype: str, device: str) -> float:
    """Operations per second of the faster of two large matrix products."""
    n = 8192 if device == "cuda" else 2048
    a = torch.randn(n, n, dtype=getattr(torch, dtype), device=device)
    return 2 * n**3 / min(clock(lambda: a @ a, device) for _ in range(2))


def measure(record: dict, cell: Cell, groups: list[str], args) -> None:
    """Add the missing measurements to the record of a cell."""
    data = Data(cell, args.device)
    for group in groups:
        if group not in record:
            contestants, found = checks.inspect(group, data)
            found |= {mode: contest(group, contestants, data, mode, args) for mode in MODES}
            record[group] = found
        if args.plans and group not in record["plans"]:
            record["plans"][group] = measure_plans(group, data, args)
    if "beside" in groups and "peak_memory" not in record and report.is_named(record["cell"], report.BRANCHES):
        names = ("frozen", "ours") if args.quick else record["beside"]["parameters"]
        record["peak_memory"] = peak_memory(names, cell, args)


def peak_memory(names, cell: Cell, args) -> dict[str, int | None]:
    """Peaks of contestants beside the weight, each in its own process, where malloc maps every block separately."""
    grid = {"dtypes": cell.dtype, "d": cell.d, "ranks": cell.rank, "rows": cell.rows, "device": args.device}
    grid |= {"shapes": f"{cell.in_features}x{cell.out_features}", "threads": args.threads}
    command = [
        sys.executable,
        str(BENCHMARK),
        *(str(word) for key, value in grid.items() for word in (f"--{key}", value)),
    ]
    options = {"env": os.environ | dict.fromkeys(THRESHOLDS, "65536"), "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = {name: subprocess.Popen([*command, "--peak-of", name], **options) for name in names}
    printed = {name: process.communicate()[0] for name, process in running.items()}
    return {name: int(printed[name]) if process.returncode == 0 else None for name, process in running.items()}
