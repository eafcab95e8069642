"""Everything that tt_linear.py measures of a cell besides times: support, errors, bytes saved, peak memory."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tt_linear_peers import GROUPS, MODES, Cell, Contestant, Data

from t3nsor.contraction.cost_model import choose_plan
from t3nsor.contraction.engine import contraction_for

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}  # of ||found - ours|| / ||ours||
BALLAST = 2**28  # bytes, more than imports ever use temporarily


def build(group: str, data: Data, unsupported: dict[str, str]) -> dict[str, Contestant]:
    """Build the contestants of a group; the reasons why some cannot be built go to `unsupported`."""
    contestants = {}
    for name, builder in GROUPS[group].items():
        if name == "ours skewed" and data.cell.d != 2:
            continue
        try:
            contestants[name] = builder(data)
        except Exception as error:  # a peer may fail in any way; the run goes on without it
            unsupported[name] = reason(error)
    return contestants


def reason(error: Exception) -> str:
    """The first line of an error, with its type."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def relative_error(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest ||found - wanted|| / ||wanted|| over pairs of tensors."""
    pairs = [(a.double(), b.double()) for a, b in zip(found, wanted, strict=True)]
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


def operations(run: Callable[[], object]) -> int:
    """Count the multiplications and additions in the matrix products of `run`."""

    def in_place(_, a, b, **options):
        return 2 * a.numel() * b[-1]

    mapping = {torch.ops.aten.addmm_: in_place, torch.ops.aten.baddbmm_: in_place}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return counter.get_total_flops()


def inspect(group: str, data: Data) -> tuple[dict[str, Contestant], dict]:
    """Run the contestants of a group once; return those that work, and everything but their times.

    "unsupported": why the others do not work.
    "errors": relative distance of the comparable ones from ours.
    "saved_bytes", "parameters": of each.
    "chosen": our plans, forward and backward.
    "operations": of ours, by mode.
    """
    found = {"unsupported": {}, "errors": {}, "saved_bytes": {}}
    contestants = build(group, data, found["unsupported"])
    wanted, _ = contestants["ours"].results(data)
    for name, contestant in list(contestants.items()):
        try:
            results, found["saved_bytes"][name] = contestant.results(data)
            if contestant.comparable:
                found["errors"][name] = _checked_error(results, wanted, data.cell.dtype)
        except Exception as error:
            found["unsupported"][name] = reason(error)
            del contestants[name]
    found["parameters"] = {name: sum(t.numel() for t in c.trained) for name, c in contestants.items()}
    spec = contraction_for(data.x, data.tt.cores, False, group == "beside").spec
    found["chosen"] = f"{choose_plan(spec)} and {choose_plan(spec, backward=True)}"
    found["operations"] = {mode: operations(contestants["ours"].run(data, mode)) for mode in MODES}
    return contestants, found


def _checked_error(found, wanted, dtype: str) -> float:
    error = relative_error(found, wanted)
    if not error <= TOLERANCE[dtype]:
        raise ValueError(f"its values or gradients differ from ours by {error:.1e}; allowed: {TOLERANCE[dtype]:.0e}")
    return error


def peak_memory(name: str, cell: Cell, device: str) -> int:
    """Peak bytes of a contestant beside the weight, forward and backward, data and gradients included.

    Needs its own process, in which malloc returns every freed block to the system.
    """
    contestant = GROUPS["beside"][name]
    contestant(data := Data(cell, device)).run(data, "forward+backward")()
    del data
    ballast = None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        ballast = torch.ones(BALLAST, dtype=torch.uint8)  # raises resident memory above earlier peaks while it lives
    before = _most_memory(device)
    data = Data(cell, device)
    run = contestant(data).run(data, "forward+backward")
    for _ in range(3):
        run()
    grown = _most_memory(device) - before
    del ballast
    return grown


def _most_memory(device: str) -> int:
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()  # getrusage includes the parent process
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
