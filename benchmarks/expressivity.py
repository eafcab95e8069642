"""Measures how many networks are fitted per second: many together, compared with one at a time.

    python benchmarks/expressivity.py [--cases n_diagonal transformer_4 ..] [--rounds 3]

Networks, targets, data and optimiser are those of the shipped configurations n_diagonal and split_transformers;
n_diagonal_32 and n_diagonal_64 are n_diagonal with 32 and 64 inputs, transformer_64 has width 64. "together" fits as
many networks at once as a comparison of MANY targets does (width 64: as shipped); "one by one" makes the fits to a
single target. Times are per network, from
its initialisation to its error on fresh rows. Each round times both in turn. The table shows medians, and for the ratio
also the minimum and maximum over rounds.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]  # the package before this file

import torch  # noqa: E402
from arguments import Parser, whole  # noqa: E402

from run_expressivity import load  # noqa: E402

CONFIGS = Path(__file__).parent.parent / "configs" / "expressivity"
WIDE = '[{"width": 64}]'
MANY = {"n_diagonal": ["--max_iterations", "800"], "transformer": ["--max_iterations", "256"]}
# Case: configuration, overrides, index of the size.
CASES = {
    "n_diagonal": ("n_diagonal", MANY["n_diagonal"], 1),
    "n_diagonal_32": ("n_diagonal", [*MANY["n_diagonal"], "--input_size", "32", "--shared.parameters.width", "32"], 1),
    "transformer_4": ("split_transformers", MANY["transformer"], 0),
    "transformer_8": ("split_transformers", MANY["transformer"], 1),
    "transformer_16": ("split_transformers", MANY["transformer"], 2),
    "n_diagonal_64": ("n_diagonal", ["--input_size", "64", "--shared.parameters.width", "64"], 1),
    "transformer_64": ("split_transformers", ["--A.parameters", WIDE, "--B.parameters", WIDE], 0),
}
ROW = "{:16} {:>8} {:>9} {:>12} {:>12} {:>7} {:>15}"
COLUMNS = ("case", "weights", "together", "together /s", "one by one /s", "ratio", "of rounds")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Measure networks fitted per second, together and one by one.", allow_abbrev=False)
    add = parser.add_argument
    add("--cases", nargs="+", choices=CASES, default=list(CASES), help="networks to fit")
    add("--rounds", type=whole, default=3, help="number of timings of each case")
    add("--epochs", type=whole, default=None, help="epochs of each fit; default: as in the configuration")
    add("--targets", type=whole, default=None, help="number of targets fitted together; default: as in a comparison")
    add("--threads", type=whole, default=torch.get_num_threads(), help="number of torch threads")
    return parser.parse_args(arguments)


def contest_of(case: str, epochs: int | None, fast: bool):
    """The comparison of both families at the size of a case, and the experiment it belongs to."""
    config, overrides, index = CASES[case]
    if epochs is not None:
        overrides = [*overrides, "--shared.epoch", str(epochs)]
    _, experiment = load(str(CONFIGS / f"{config}.json"), overrides)
    draws = {"seed": 0, "sub_iterations": experiment.sub_iterations, "evaluation_rows": experiment.evaluation_rows}
    return experiment.comparator().contest(index, draws, None, fast), experiment


def seconds_per_network(contest, numbers: range) -> float:
    """Seconds per network to initialise, fit and evaluate both families on these targets."""
    drawn = {role: source.draw(numbers) for role, source in contest.sources.items()}
    start = time.perf_counter()
    for role, fitter in contest.fitters.items():
        fitter.fit(drawn[role], numbers)
    networks = sum(len(numbers) * fitter.restarts for fitter in contest.fitters.values())
    return (time.perf_counter() - start) / networks


def measured(case: str, args) -> list[str]:
    """The cells of COLUMNS for one case."""
    together, experiment = contest_of(case, args.epochs, fast=True)
    alone, _ = contest_of(case, args.epochs, fast=False)
    targets = args.targets or together.targets_at_once(experiment.max_iterations)
    seconds_per_network(together, range(targets)), seconds_per_network(alone, range(1))  # warm up
    times = [
        (seconds_per_network(together, range(targets)), seconds_per_network(alone, range(1)))
        for _ in range(args.rounds)
    ]
    ratios = [slow / quick for quick, slow in times]
    quick, slow = (statistics.median(each) for each in zip(*times, strict=True))
    stacked = targets * experiment.sub_iterations
    spread = f"{min(ratios):.3g} to {max(ratios):.3g}"
    cells = [f"{1 / quick:,.1f}", f"{1 / slow:,.2f}", f"{statistics.median(ratios):.3g}", spread]
    return [case, str(trainable(together)), str(stacked), *cells]


def trainable(contest) -> int:
    return sum(p.numel() for p in contest.fitters["B"].network(0, 0).parameters())


def compare_all(args) -> None:
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads; networks fitted per second")
    print(ROW.format(*COLUMNS))
    for case in args.cases:
        print(ROW.format(*measured(case, args)), flush=True)


if __name__ == "__main__":
    compare_all(parse(sys.argv[1:]))
