"""Tensor-train linear layers: t3nsor beside its peers, in one process, interleaved, medians of repeats.

    python benchmarks/tt_linear.py [--quick] [--plans] [--resume] [--out outputs/benchmarks/tt_linear] ..

In each cell of the grid (layer, dtype, d, rank, rows) all contestants (see tt_linear_peers.py) take turns, on the same
random data, with and without a backward pass, after their values and gradients were compared with ours. A cell offends
when ours takes more than 1.15 times the best peer (chain, full matrix, tensorly-torch) in three measurements out of
three. Prints tables, writes <out>.json after every cell, and draws <out>.png. What a contestant cannot do is noted and
left out, and so is one that takes more than 8 times as long as ours after its first round. The largest cells of the
full grid need 13 GB: the intermediate results of the chains.

glibc gives blocks over 32 MB back to the system each time, which punishes whoever allocates large ones: the benchmark
starts itself again with thresholds that stop this, for all contestants alike.
"""

import os
import sys

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}

if __name__ == "__main__" and not MALLOC.keys() <= os.environ.keys():
    given = {**MALLOC, **os.environ}
    print("starting again with", *(f"{name}={given[name]}" for name in MALLOC), flush=True)
    os.execve(sys.executable, sys.orig_argv, given)

import argparse  # noqa: E402
import gc  # noqa: E402
import itertools  # noqa: E402
import random  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import median  # noqa: E402

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
import tt_linear_peers as peers  # noqa: E402
import tt_linear_plot as report  # noqa: E402
from rich.console import Console  # noqa: E402
from tt_linear_peers import MODES, Cell, Data  # noqa: E402

from t3nsor.cost_model import choose  # noqa: E402
from t3nsor.ops import linear_with_branch, tt_matmul  # noqa: E402
from t3nsor.plans import candidates  # noqa: E402
from t3nsor.recipes import problem_of  # noqa: E402

LIMIT = 1.15  # of the time of the best peer
MEASUREMENTS = 3  # that have to agree before a cell offends
SLOW = 8  # times ours: such a contestant is in one round only
GRID = {
    "shapes": [(768, 3072), (3072, 768), (768, 768)],
    "dtypes": ["float32", "bfloat16"],
    "d": [2, 3, 4],
    "ranks": [1, 2, 4, 8, 16, 32],
    "rows": [128, 1024, 4096],
}
QUICK = [  # (d, rank, rows), dtype, groups
    *((case, "float32", ["alone"]) for case in report.NAMED),
    ((2, 2, 1024), "float32", ["beside"]),
    ((2, 4, 128), "bfloat16", ["alone", "beside"]),
]


class Parser(argparse.ArgumentParser):
    """Wrong arguments end in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}\n")


def whole(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
    return int(text)


def layer_shape(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be INxOUT, as in 768x3072")
    return whole(sides[0], 2), whole(sides[1], 2)


def cores(text: str) -> int:
    if text not in list("2345678"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of cores from 2 to 8")
    return int(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Tensor-train linear layers: t3nsor beside its peers.", allow_abbrev=False)
    add = parser.add_argument
    add("--quick", action="store_true", help="a small grid of its own, within a minute")
    add("--out", default="outputs/benchmarks/tt_linear", help="writes OUT.json and OUT.png")
    add("--resume", action="store_true", help="skip the cells that OUT.json holds")
    add("--plans", action="store_true", help="time every plan of ours too, and report the regret of the cost model")
    add("--groups", nargs="+", choices=list(peers.GROUPS), help="x @ W alone, or beside a frozen dense linear")
    add("--shapes", nargs="+", type=layer_shape, metavar="INxOUT", help="layers, as 768x3072")
    add("--dtypes", nargs="+", choices=list(peers.TOLERANCE))
    add("--d", nargs="+", type=cores, help="numbers of cores")
    add("--ranks", nargs="+", type=whole)
    add("--rows", nargs="+", type=whole)
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: cuda when there, else cpu")
    add("--threads", type=whole, default=1)
    add("--repeats", type=lambda text: whole(text, 3), help="rounds, at least 3; fewer when a round takes over 1 s")
    add("--peak-of", choices=list(peers.GROUPS["beside"]), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    given = [f"--{name}" for name in (*GRID, "groups") if getattr(args, name) is not None]
    if args.quick and given:
        parser.error(f"--quick has a grid of its own: leave out {', '.join(given)}")
    if not Path(args.out).name or args.out.endswith("/"):
        parser.error(f"--out is {args.out!r}; it must be a path with a file name, without an ending")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda; this torch finds no such device")
    for name, default in GRID.items():
        setattr(args, name, list(dict.fromkeys(getattr(args, name) or default)))
    args.groups = args.groups or list(peers.GROUPS)
    args.repeats = args.repeats or (3 if args.quick else 7)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def jobs(args) -> list[tuple[Cell, list[str]]]:
    """The cells to measure, each with its groups of contestants."""
    if args.quick:
        return [(Cell(*report.NAMED_LAYER, dtype, *case), groups) for case, dtype, groups in QUICK]
    grid = itertools.product(args.shapes, args.dtypes, args.d, args.ranks, args.rows)
    return [(Cell(*shape, dtype, d, rank, rows), args.groups) for shape, dtype, d, rank, rows in grid]


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
    """Seconds of each run in each round, which has every run once, in an order of its own.

    A run finds in the caches what the one before it left there, so nobody may always follow the same one.
    args.repeats rounds; fewer when a round is long, more when it is short, never under 3. A run that takes more than
    SLOW times as long as `reference` in the first round is left out of the others.
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
    """Whether a run is over the limit; what is short is timed again, as the system may have interrupted it."""
    return seconds > limit and (seconds > 0.1 or clock(run, device) > limit)


def contest(group: str, contestants: dict, data: Data, mode: str, args) -> dict:
    """Time the contestants of a group in one mode; again while ours is over the limit, up to MEASUREMENTS times.

    "seconds" and "medians" are over all measurements. "ratios" has one entry for each measurement: ours to the best
    peer, or to the frozen linear. "timed_once": who is too slow for more than one round.
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
    """The regret of the cost model, forward and backward apart: time of its plan / time of the best plan."""
    sizes = problem_of(data.x, data.tt.cores, False, group == "beside").sizes
    inputs = [data.x, *data.tt.cores]

    def product(plan):
        if group == "beside":
            return linear_with_branch(data.x, data.weight, data.tt, strategy=plan)
        return tt_matmul(data.x, data.tt, plan)

    def backward(plan):
        edge = torch.autograd.graph.get_gradient_edge(product(plan))
        return lambda: torch.autograd.grad([edge], inputs, [data.g], retain_graph=True)

    def forward(plan):
        return torch.no_grad()(lambda: product(plan))

    found = {}
    for name, run_of in (("forward", forward), ("backward", backward)):
        plans = candidates(sizes, "auto", name == "backward")
        chosen = str(choose(sizes, "auto", name == "backward"))
        medians = time_plans({str(plan): run_of(plan) for plan in plans}, chosen, args)
        best = min(medians, key=medians.get)
        found[name] = {"chosen": chosen, "best": best, "regret": medians[chosen] / medians[best], "medians": medians}
    return found


def time_plans(runs: dict[str, Callable], chosen: str, args) -> dict[str, float]:
    """Median seconds of the chosen plan and of those that come near the best; most are far from it."""
    for times, near in ((2, 3), (3, 1.3)):
        least = {plan: min(clock(run, args.device) for _ in range(times)) for plan, run in runs.items()}
        limit = near * min(least.values())
        runs = {plan: run for plan, run in runs.items() if least[plan] <= limit or plan == chosen}
    return {plan: median(values) for plan, values in interleaved(runs, args, reference=chosen).items()}


def gemm_peak(dtype: str, device: str) -> float:
    """Operations per second of the faster of two large matrix products."""
    n = 8192 if device == "cuda" else 2048
    a = torch.randn(n, n, dtype=getattr(torch, dtype), device=device)
    return 2 * n**3 / min(clock(lambda: a @ a, device) for _ in range(2))


def measure(record: dict, cell: Cell, groups: list[str], args) -> None:
    """Add to the record of a cell what it lacks."""
    data = Data(cell, args.device)
    for group in groups:
        if group not in record:
            contestants, found = peers.inspect(group, data)
            found |= {mode: contest(group, contestants, data, mode, args) for mode in MODES}
            record[group] = found
        if args.plans and group not in record["plans"]:
            record["plans"][group] = measure_plans(group, data, args)
    if "beside" in groups and "peak_memory" not in record and report.is_named(record["cell"], report.BRANCHES):
        names = ("frozen", "ours") if args.quick else record["beside"]["parameters"]
        record["peak_memory"] = peak_memory(names, cell, args)


def peak_memory(names, cell: Cell, args) -> dict[str, int | None]:
    """Peaks of contestants beside the weight, each from a process of its own that maps every block by itself."""
    grid = {"dtypes": cell.dtype, "d": cell.d, "ranks": cell.rank, "rows": cell.rows, "device": args.device}
    grid |= {"shapes": f"{cell.in_features}x{cell.out_features}", "threads": args.threads}
    command = [sys.executable, __file__, *(str(word) for key, value in grid.items() for word in (f"--{key}", value))]
    options = {"env": os.environ | dict.fromkeys(MALLOC, "65536"), "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = {name: subprocess.Popen([*command, "--peak-of", name], **options) for name in names}
    printed = {name: process.communicate()[0] for name, process in running.items()}
    return {name: int(printed[name]) if process.returncode == 0 else None for name, process in running.items()}


def complete(record: dict, groups: list[str], args) -> bool:
    return all(group in record and (not args.plans or group in record["plans"]) for group in groups)


def measure_all(args, found: dict, path: Path, console: Console) -> list[dict]:
    """Measure the cells that `found` lacks, saving after each; the records of all cells asked for."""
    work, records = jobs(args), []
    for number, (cell, groups) in enumerate(work, 1):
        x_bytes = cell.rows * cell.in_features * getattr(torch, cell.dtype).itemsize
        empty = {"key": str(cell), "cell": asdict(cell), "x_bytes": x_bytes, "plans": {}}
        record = found["cells"].get(str(cell), empty)
        records.append(record)
        if complete(record, groups, args):
            continue
        start = time.perf_counter()
        measure(record, cell, groups, args)
        if report.is_named(record["cell"], report.NAMED):
            peaks = found["gemm_peak"]
            peaks[cell.dtype] = max(peaks.get(cell.dtype, 0), gemm_peak(cell.dtype, args.device))
        found["cells"][str(cell)] = record
        report.save(found, path)
        ratios = {group: [record[group][mode]["ratios"] for mode in MODES] for group in groups}
        shown = ", ".join(" ".join([group, *(f"{r[-1]:.2f}" for r in both if r)]) for group, both in ratios.items())
        console.print(f"[{number}/{len(work)}] {cell}: {shown} ({time.perf_counter() - start:.1f} s)", markup=False)
    return records


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    if args.peak_of:
        print(peers.peak_memory(args.peak_of, jobs(args)[0][0], args.device))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    path = Path(f"{args.out}.json")
    try:
        found = report.start(path, args.resume, report.machine(args.device, args.threads, MALLOC))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = ", ".join(f"{key} {value}" for key, value in found["machine"].items() if key != "malloc")
    console.print(shown, markup=False, soft_wrap=True)
    try:
        records = measure_all(args, found, path, console)
    except KeyboardInterrupt:
        print("\ninterrupted; --resume goes on from here", file=sys.stderr)
        return 130
    report.print_tables(found, records, console)
    try:
        report.draw(found, records, path.with_suffix(".png"))
    except ImportError as error:
        console.print(f"no figure: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
