"""The end of a run whose loss, gradient or weights are no longer finite."""

import math

import torch
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from common.errors import RunFailed
from third_party.models.t5.sharding import whole

WATCHED = ("loss", "norm of the gradient", "norm of the weights")


class Diverged(RunFailed):
    """A run that diverged.

    facts: "step", "learning_rate", "what" (one of WATCHED) and "value", as text.
    """

    def __init__(self, step: int, learning_rate: float | None, what: str, value: float):
        self.facts = {"step": step, "learning_rate": learning_rate, "what": what, "value": str(value)}
        super().__init__(
            f"the run diverged: at step {step}, with the learning rate {learning_rate}, the {what} is {value}; nothing "
            "was saved as trained: lower learning_rate, raise warmup_steps, or set max_grad_norm to 1"
        )


class DivergenceGuard(TrainerCallback):
    """Raises `Diverged` in the step in which the loss, the gradient or a trained weight is not finite.

    The norms of the gradient and of the weights stand for their entries; all three are read at once, as reading a value
    waits for the device.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.loss = self.gradient = torch.zeros(())
        self.learning_rate: float | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        self.loss = torch.zeros((), device=args.device)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        rate = self.trainer.optimizer.param_groups[0]["lr"]
        self.learning_rate = None if rate is None else float(rate)
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        scaled = self.trainer.accelerator.scaler is not None  # which skips steps whose gradient is not finite
        self.gradient = torch.zeros_like(self.loss) if scaled or not gradients else get_total_norm(gradients)

    def on_step_end(self, args, state, control, **kwargs):
        weights = [p for p in self.trainer.model.parameters() if p.requires_grad]
        with torch.no_grad():
            norms = [whole(norm).to(self.loss) for norm in (self.gradient, get_total_norm(weights))]
            values = torch.stack([self.loss, *norms])
        for what, value in zip(WATCHED, values.tolist(), strict=True):
            if not math.isfinite(value):
                raise Diverged(state.global_step, self.learning_rate, what, value)
