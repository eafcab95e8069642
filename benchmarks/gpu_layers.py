"""The layer grid of gpu.py: forward + backward of branches beside a frozen linear layer.

Contestants of a cell: the frozen layer alone; our trains, skewed, of two nearly square cores, and of three cores;
peft's LoRA with as many parameters as each; and the plainest formulation of two cores, one GEMM for each under
autograd, which keeps what lies between them. They take turns, and a turn is as many calls as take some milliseconds.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import median

import torch
from torch.nn import functional
from tt_linear_checks import reason
from tt_linear_peers import MODES, Cell, Contestant, Data, frozen, lora, ours_beside
from tt_linear_timing import clock, interleaved

from t3nsor.tensor_train import CoreChain

TITLE = "Milliseconds of a layer, forward and backward"
TURN = 2e-3  # seconds
BOTH = MODES[1]
QUICK = {"sizes": [(24, 36)], "ranks": (2,), "rows": (32,)}
FULL = {"sizes": [(768, 3072), (3072, 768), (768, 768)], "ranks": (2, 8), "rows": (512, 2048, 4096, 16384)}


def layers(device: str, quick: bool) -> Iterator[tuple[str, dict[str, object]]]:
    """A line for each contestant of each cell: its milliseconds, and how often those of the frozen layer they are."""
    grid = QUICK if quick else FULL
    dtypes = ("float32", "bfloat16", "tf32") if device == "cuda" else ("float32", "bfloat16")
    for sizes, dtype, rank, rows in product(grid["sizes"], dtypes, grid["ranks"], grid["rows"]):
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
        cell = Cell(*sizes, "float32" if dtype == "tf32" else dtype, 2, rank, rows)
        for name, seconds, base in times(cell, device):
            named = {"layer": "{} -> {}".format(*sizes), "dtype": dtype, "rank": rank, "rows": rows, "branch": name}
            yield TITLE, named | {"ms": seconds if isinstance(seconds, str) else 1000 * seconds, "/ frozen": base}


def times(cell: Cell, device: str) -> Iterator[tuple[str, float | str, float | str]]:
    """The name, the seconds, and their ratio to those of the frozen layer, of each contestant of a cell.

    For one that cannot be built the seconds are the reason.
    """
    runs, missing = {}, {}
    for name, build in contestants(cell, device).items():
        try:
            contestant, data = build()
            run = contestant.run(data, BOTH)
            run()
            runs[name] = run
        except Exception as error:  # peft may fail in any way, or a GPU lack the memory; the others go on
            missing[name] = reason(error)
    wait = argparse.Namespace(device=device, repeats=3)
    calls = max(1, round(TURN / max(clock(run, device) for run in runs.values())))
    found = interleaved({name: partial(repeated, run, calls) for name, run in runs.items()}, wait, "frozen")
    seconds = {name: median(values) / calls for name, values in found.items()}
    yield from ((name, each, each / seconds["frozen"]) for name, each in seconds.items())
    yield from ((name, why, "-") for name, why in missing.items())


def repeated(run: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        run()


def contestants(cell: Cell, device: str) -> dict[str, Callable[[], tuple[Contestant, Data]]]:
    """Contestants by name, and what builds each with its data: LoRAs of equal rank once."""
    shapes = {name: Data(replace(cell, d=d), device) for name, d in (("square", 2), ("d3", 3))}
    skewed = Data(cell, device)
    skewed.tt = skewed.skewed
    shapes = {"skewed": skewed, **shapes}
    found = {"frozen": lambda: (frozen(skewed), skewed)}
    for name, data in shapes.items():
        found[f"ours, {name}"] = partial(beside, ours_beside, data)
        rank = max(1, round(data.tt.numel() / (cell.in_features + cell.out_features)))
        found.setdefault(f"peft LoRA r{rank}", partial(beside, lora, data))
        if name != "d3":
            found[f"two GEMMs, {name}"] = partial(beside, two_gemms, data)
    return found


def beside(build: Callable[[Data], Contestant], data: Data) -> tuple[Contestant, Data]:
    return build(data), data


def two_gemms(data: Data) -> Contestant:
    """x weight^T + x W, W of two cores, contracted from left to right."""
    forward = lambda x: functional.linear(x, data.weight) + left_to_right(x, data.tt)  # noqa: E731
    return Contestant(forward, list(data.tt.cores))


def left_to_right(x: torch.Tensor, tt: CoreChain) -> torch.Tensor:
    """x W (rows, out), with x (rows, in)."""
    first, second = tt.cores
    (_, n1, m1, rank), (_, n2, m2, _) = first.shape, second.shape
    state = x.view(-1, n1, n2).transpose(1, 2).reshape(-1, n1) @ first.view(n1, m1 * rank)
    state = state.view(-1, n2, m1, rank).permute(0, 2, 3, 1).reshape(-1, rank * n2)
    return (state @ second.view(rank * n2, m2)).view(len(x), -1)
