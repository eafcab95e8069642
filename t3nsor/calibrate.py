"""Measures how fast this machine contracts tensor trains, for the choice of contraction orders.

    python -m t3nsor.calibrate [--seconds 60] [--dtypes float32] [--layers 768x3072 ..] [--ranks 2 8] [--rows 8 64 512]

Times the plans for problems of these sizes until the seconds are used up, fits the rates of the cost model to the
times, and writes both, the rates and the fastest plan of each problem, to a file of this machine (device, threads,
torch) under XDG_CACHE_HOME. From then on strategy "auto" takes the measured plan of a known problem, and the fitted
rates for others. Prints the regret, the time of the chosen plan relative to the fastest one, before and after.
"""

import argparse
import itertools
import os
import random
import sys
import time

import torch

from t3nsor.contraction.cost_model import counts, first_plan, predicted
from t3nsor.contraction.measuring import time_plans
from t3nsor.contraction.plans import ContractionSpec, Plan, rounded_row_count
from t3nsor.machine import Machine, Rates, item_size, machine
from t3nsor.shapes import auto_shape, skewed_shape

DTYPES = ("float32", "bfloat16", "float16", "float64")
# A problem, a pass, and the seconds of its plans with what they do, as `counts` says.
Timing = tuple[ContractionSpec, bool, dict[Plan, float], dict[Plan, tuple[float, ...]]]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m t3nsor.calibrate", description="Measure this machine.")
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=whole, default=torch.get_num_threads(), help="threads that will be in use")
    add("--seconds", type=whole, default=60, help="time to spend")
    add("--dtypes", nargs="+", choices=DTYPES, default=["float32"], help="dtypes of x")
    add("--layers", nargs="+", type=layer, default=[(768, 3072), (3072, 768), (768, 768)], metavar="INxOUT")
    add("--ranks", nargs="+", type=whole, default=[2, 8])
    add("--rows", nargs="+", type=whole, default=[8, 64, 512], help="rows of x")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no CUDA device")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if args.threads > cores:
        parser.error(f"--threads is {args.threads}; it may be at most {cores}, the cores of this machine")
    return args


def whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def layer(text: str) -> tuple[int, int]:
    sizes = text.split("x")
    if len(sizes) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be INxOUT, as in 768x3072")
    return whole(sizes[0]), whole(sizes[1])


def problems(args: argparse.Namespace, dtype: str) -> list[ContractionSpec]:
    """The problems to time, those with fewer rows first."""
    found = []
    for rows, sizes, rank, beside in itertools.product(sorted(args.rows), args.layers, args.ranks, (True, False)):
        shapes = [skewed_shape(*sizes), *([auto_shape(size, d) for size in sizes] for d in (2, 3))]
        for inputs, outputs in shapes:
            ranks = (1, *(rank,) * (len(inputs) - 1), 1)
            sides = tuple(inputs), tuple(outputs)
            found.append(ContractionSpec(*sides, ranks, False, rounded_row_count(rows), dtype, args.device, beside))
    return list(dict.fromkeys(found))


def time_problems(specs: list[ContractionSpec], device: str, deadline: float) -> list[Timing]:
    """Time the plans of as many problems as can be done until `deadline`, were each the slowest; at least one."""
    timings: list[Timing] = []
    jobs = [(spec, backward) for spec in specs for backward in (False, True)]
    random.Random(0).shuffle(jobs)
    slowest = 0.0
    for spec, backward in jobs:
        start = time.monotonic()
        if timings and start + slowest > deadline:
            break
        seconds = time_plans(spec, backward, torch.device(device))
        firsts = {plan: first_plan(spec, plan) if backward else plan for plan in seconds}
        done = {plan: counts(spec, plan, backward, first) for plan, first in firsts.items()}
        timings.append((spec, backward, seconds, done))
        slowest = max(slowest, time.monotonic() - start)
    return timings


def fit(timings: list[Timing]) -> Rates:
    """The rates, none of them negative, that predict best how much slower than the fastest the other plans of a problem
    are, those near the fastest first of all; and, counting less, how long each takes. Outliers count less than others.
    """
    rows, wanted, weights = [], [], []
    for _, _, seconds, counted in timings:
        best = min(seconds.values())
        done = {plan: torch.tensor(numbers, dtype=torch.float64) for plan, numbers in counted.items()}
        start = done[min(seconds, key=seconds.__getitem__)]
        for plan, taken in seconds.items():
            slower = (taken - best) / best
            rows += [(done[plan] - start) / best, done[plan] / taken]
            wanted += [slower, 1.0]
            weights += [1 / (slower + 0.2), 0.5]
    a, b, weight = torch.stack(rows), *(torch.tensor(v, dtype=torch.float64)[:, None] for v in (wanted, weights))
    scale, used = a.norm(dim=0).clamp(min=1e-300), list(range(a.shape[1]))
    rates, trust = torch.zeros(a.shape[1], dtype=torch.float64), torch.ones_like(weight)
    for _ in range(30):
        both = weight * trust
        solution = torch.linalg.lstsq(a[:, used] / scale[used] * both, b * both).solution[:, 0]
        if (solution < 0).any():
            used = [k for k, value in zip(used, solution.tolist(), strict=True) if value > 0]
            continue
        rates.zero_()
        rates[used] = solution / scale[used]
        trust = (((a @ rates)[:, None] - b).abs() * weight).clamp(min=0.3).rsqrt()
    return Rates(*rates.tolist())


def regret(timings: list[Timing], rates: Rates) -> list[float]:
    """The time of the plan chosen by these rates relative to the fastest, for each problem."""
    found = []
    for _, _, seconds, done in timings:
        chosen = min(seconds, key=lambda plan: predicted(done[plan], rates))
        found.append(seconds[chosen] / min(seconds.values()))
    return sorted(found)


def held_out_regret(timings: list[Timing]) -> list[float]:
    """The regret of fitted rates: each half of the problems by those of the other half."""
    some, others = timings[::2], timings[1::2]
    return sorted([*regret(others, fit(some)), *regret(some, fit(others))])


def shown(ratios: list[float]) -> str:
    return f"median {ratios[len(ratios) // 2]:.2f}, p90 {ratios[int(0.9 * len(ratios))]:.2f}, worst {ratios[-1]:.2f}"


def calibrate(args: argparse.Namespace, found: Machine, dtype: str, seconds: float) -> None:
    """Measure one dtype; keep the fastest plans, and fitted rates if they choose better. Prints the regret of both."""
    start = time.monotonic()
    timings = time_problems(problems(args, dtype), args.device, start + seconds)
    print(f"{dtype}: {len(timings)} problems in {time.monotonic() - start:.0f} s; time of the chosen plan / fastest:")
    before = regret(timings, found.rates(dtype))
    print(f"  before            {shown(before)}")
    if len(timings) > 1:
        fitted = held_out_regret(timings)
        print(f"  fitted rates      {shown(fitted)} (each half by the rates of the other half)")
        if sum(fitted) < sum(before):
            found.fitted[item_size(dtype)] = fit(timings)
        else:
            print("  which choose no better: the rates stay as they are")
    found.choices |= {
        spec.key(backward): min(seconds, key=seconds.__getitem__).code for spec, backward, seconds, _ in timings
    }


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    found = machine(args.device)
    print(found.name)
    for dtype in args.dtypes:
        calibrate(args, found, dtype, args.seconds / len(args.dtypes))
    if not found.save():
        return 1
    print(f"{found.path}: rates, and the fastest plans of {len(found.choices)} problems")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
