"""The contraction as torch.export and the ONNX exporter write it down: plain operations for any number of rows."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from t3nsor.contraction.chain import ChainStep
from t3nsor.contraction.cost_model import choose_plan
from t3nsor.contraction.engine import Schedule, schedule_of
from t3nsor.contraction.plans import ContractionSpec, Plan

ROWS = 128  # for which the plan is chosen: exported programs are for any number of rows


class ExportedStep(ChainStep):
    """A step whose operations do not depend on the number of rows."""

    def multiply(self, operand: torch.Tensor, matrix: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        return operand @ matrix if self.rest == 1 else matrix.t() @ operand


@torch.compiler.assume_constant_result
def exported_schedule(
    shapes: Sequence[tuple[int, ...]], closed: bool, beside: bool, strategy: str | Plan, dtype: torch.dtype, device: str
) -> Schedule:
    """Return a schedule for `engine.compose`.

    shapes: of the cores.
    """
    inputs, outputs = tuple(shape[1] for shape in shapes), tuple(shape[2] for shape in shapes)
    ranks = (*(shape[0] for shape in shapes), shapes[-1][-1])
    name = str(dtype).removeprefix("torch.")
    spec = ContractionSpec(inputs, outputs, ranks, closed, ROWS, name, device, beside)
    schedule = schedule_of(spec, choose_plan(spec, strategy))
    steps: list[ChainStep] = [ExportedStep(s.batch, s.outer, s.inner, s.rest, False) for s in schedule.chain.steps]
    return replace(schedule, chain=replace(schedule.chain, steps=steps))
