"""Tensor-train linear layers: t3nsor beside its peers, in one process, interleaved, medians of repeats.

    python benchmarks/tt_linear.py [--quick] [--plans] [--resume] [--out outputs/benchmarks/tt_linear] ..

In each cell of the grid (layer, dtype, d, rank, rows) all contestants (see tt_linear_peers.py) take turns on the same
random data, with and without a backward pass, after their values and gradients have been compared with ours. A cell
offends when ours takes more than 1.15 times as long as the best peer (chain, full matrix, tensorly-torch) in three
measurements out of three. Prints tables, writes <out>.json after every cell, and plots <out>.png. A contestant that
cannot do a cell is noted and left out; one that takes more than 8 times as long as ours runs for one round only. The
largest cells of the full grid need 13 GB, for the intermediate results of the chains.
"""

import argparse
import itertools
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
import tt_linear_checks as checks  # noqa: E402
import tt_linear_malloc  # noqa: E402
import tt_linear_report as report  # noqa: E402
from arguments import Parser, whole  # noqa: E402
from rich.console import Console  # noqa: E402
from tt_linear_figure import draw  # noqa: E402
from tt_linear_peers import GROUPS, MODES, Cell  # noqa: E402
from tt_linear_timing import gemm_peak, measure  # noqa: E402

from common.files import write_json  # noqa: E402

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


def layer_shape(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be INxOUT, as in 768x3072")
    return whole(sides[0], 2), whole(sides[1], 2)


def cores(text: str) -> int | str:
    if text not in ["skewed", *"2345678"]:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of cores from 2 to 8, or skewed")
    return text if text == "skewed" else int(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Tensor-train linear layers: t3nsor beside its peers.", allow_abbrev=False)
    add = parser.add_argument
    add("--quick", action="store_true", help="a small fixed grid, about a minute")
    add("--out", default="outputs/benchmarks/tt_linear", help="writes OUT.json and OUT.png")
    add("--resume", action="store_true", help="skip the cells that are in OUT.json")
    add("--plans", action="store_true", help="time every plan of ours too, and report the regret of the cost model")
    add("--groups", nargs="+", choices=list(GROUPS), help="x @ W alone, or beside a frozen dense linear")
    add("--shapes", nargs="+", type=layer_shape, metavar="INxOUT", help="layers, as 768x3072")
    add("--dtypes", nargs="+", choices=list(checks.TOLERANCE))
    add("--d", nargs="+", type=cores, help="numbers of cores, or skewed: two of another shape")
    add("--ranks", nargs="+", type=whole)
    add("--rows", nargs="+", type=whole)
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: cuda when there, else cpu")
    add("--threads", type=whole, default=1)
    add("--repeats", type=lambda text: whole(text, 3), help="rounds, at least 3; fewer when a round takes over 1 s")
    add("--peak-of", choices=list(GROUPS["beside"]), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    given = [f"--{name}" for name in (*GRID, "groups") if getattr(args, name) is not None]
    if args.quick and given:
        parser.error(f"--quick has a fixed grid: leave out {', '.join(given)}")
    if not Path(args.out).name or args.out.endswith("/"):
        parser.error(f"--out is {args.out!r}; it must be a path with a file name, without an extension")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no CUDA device")
    for name, default in GRID.items():
        setattr(args, name, list(dict.fromkeys(getattr(args, name) or default)))
    args.groups = args.groups or list(GROUPS)
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


def complete(record: dict, groups: list[str], args) -> bool:
    return all(group in record and (not args.plans or group in record["plans"]) for group in groups)


def measure_all(args, found: dict, path: Path, console: Console) -> list[dict]:
    """Measure the cells missing from `found`, saving after each; return the records of all requested cells."""
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
        write_json(path, found)
        ratios = {group: [record[group][mode]["ratios"] for mode in MODES] for group in groups}
        shown = ", ".join(" ".join([group, *(f"{r[-1]:.2f}" for r in both if r)]) for group, both in ratios.items())
        console.print(f"[{number}/{len(work)}] {cell}: {shown} ({time.perf_counter() - start:.1f} s)", markup=False)
    return records


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    tt_linear_malloc.start_again()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        print(checks.peak_memory(args.peak_of, jobs(args)[0][0], args.device))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    path = Path(f"{args.out}.json")
    try:
        found = report.start(path, args.resume, report.machine(args.device, args.threads, tt_linear_malloc.THRESHOLDS))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = ", ".join(f"{key} {value}" for key, value in found["machine"].items() if key != "malloc")
    console.print(shown, markup=False, soft_wrap=True)
    try:
        records = measure_all(args, found, path, console)
    except KeyboardInterrupt:
        print("\ninterrupted; --resume continues from here", file=sys.stderr)
        return 130
    report.print_tables(found, records, console)
    try:
        draw(found, records, path.with_suffix(".png"))
    except ImportError as error:
        console.print(f"no figure: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
