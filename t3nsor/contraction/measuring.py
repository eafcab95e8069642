"""Plans chosen by timing them, for strategy "measured" and `python -m t3nsor.calibrate`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from t3nsor.autocast import without_autocast
from t3nsor.contraction.autograd import contract_training
from t3nsor.contraction.cost_model import choose_plan, cost, first_plan
from t3nsor.contraction.engine import Contraction, Operands, Schedule, Training, contraction_for, values
from t3nsor.contraction.plans import ContractionSpec, Plan, candidates
from t3nsor.contraction.torch_internals import in_transform
from t3nsor.machine import machine
from t3nsor.timing import in_turns

NEAR = 1.4  # times the least predicted time: slower plans are not timed
ROUNDS = 4
MOST_ROWS = 4096  # beyond, more rows take proportionally longer with every plan


def contraction_of(
    x: torch.Tensor, cores: Sequence[torch.Tensor], closed: bool, beside: bool, strategy: str | Plan, save: str
) -> Contraction:
    """`contraction_for` operands; for "measured", passes that the machine's file does not know are timed first."""
    contraction = contraction_for(x, cores, closed, beside, strategy, save)
    if strategy == "measured" and not contraction.is_measured and not in_transform():
        spec, found = contraction.spec, machine(x.device.type)
        missing = [backward for backward in (False, True) if spec.key(backward) not in found.choices]
        for backward in missing:
            seconds = time_plans(spec, backward, x.device)
            found.choices[spec.key(backward)] = min(seconds, key=seconds.__getitem__).code
        if missing:
            found.save()
        contraction.plan_again()
        contraction.is_measured = True
    return contraction


def time_plans(
    spec: ContractionSpec, backward: bool, device: torch.device, *, near: float = NEAR, rounds: int = ROUNDS
) -> dict[Plan, float]:
    """Seconds of the plans that are predicted to be near the best, and of the chosen one, run in turns.

    near: how near, as a factor on the time predicted for the best.
    """
    predicted = {plan: cost(spec, plan, backward) for plan in candidates(spec, "auto", backward)}
    limit, chosen = near * min(predicted.values()), choose_plan(spec, "auto", backward)
    plans = [plan for plan, seconds in predicted.items() if seconds <= limit or plan == chosen]
    with torch.inference_mode(False), torch.set_grad_enabled(backward), without_autocast(device):
        runs = {plan: _run(spec, plan, backward, device) for plan in plans}
        return in_turns(runs, device, rounds)


def _run(spec: ContractionSpec, plan: Plan, backward: bool, device: torch.device) -> Callable[[], object]:
    """A pass over operands of the sizes of `spec`, whose values do not matter, with a plan."""
    here = replace(spec, rows=min(spec.rows, MOST_ROWS))
    numbers = partial(torch.full, fill_value=0.01, dtype=getattr(torch, spec.dtype), device=device)
    cores = [numbers(shape) for shape in zip(spec.ranks, spec.inputs, spec.outputs, spec.ranks[1:], strict=False)]
    x, weight = numbers((here.rows, spec.in_features)), None
    if spec.with_dense_weight:
        weight = numbers((spec.out_features, spec.in_features))
    operands = Operands(x, weight, None, cores)
    if not backward:
        return partial(values, Schedule(here, plan), operands)
    wanted = [t.requires_grad_() for t in ([x] if spec.x_gradient else []) + (cores if spec.core_gradients else [])]
    training, g = Training(here, plan, first_plan(spec, plan)), numbers((here.rows, spec.out_features))
    return lambda: torch.autograd.grad(contract_training(training, operands), wanted, g)
