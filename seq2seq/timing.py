"""Training time per optimizer step and per epoch."""

from statistics import median
from time import perf_counter

import torch
from transformers import TrainerCallback


class TimingCallback(TrainerCallback):
    """Records the seconds of each optimizer step, of the wait for its batches, and of each complete epoch.

    A step is the forward and backward passes over its batches, and the update; on an accelerator, until that is done.
    An epoch is its steps and the loading of its batches, without evaluation and saving.
    """

    def __init__(self):
        self.steps, self.inputs, self.epochs = [], [], []
        self.aside = self.step_end = self.input_begin = 0.0

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch_begin = self.input_begin = now(args.device)
        self.epochs_before, self.aside = state.epoch, 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self.step_begin = now(args.device)
        self.inputs.append(self.step_begin - self.input_begin)

    def on_step_end(self, args, state, control, **kwargs):
        self.step_end = self.input_begin = now(args.device)
        self.steps.append(self.step_end - self.step_begin)

    def on_evaluate(self, args, state, control, **kwargs):
        """Exclude the time since the last step from the epoch."""
        end = now(args.device)
        self.aside += end - self.step_end
        self.step_end = self.input_begin = end

    on_save = on_evaluate

    def on_log(self, args, state, control, **kwargs):
        self.input_begin = now(args.device)

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.epoch - self.epochs_before > 0.999:  # otherwise it was resumed or stopped midway
            self.epochs.append(now(args.device) - self.epoch_begin - self.aside)

    def summary(self) -> dict[str, float | int | None]:
        """Return the timings; each is None if nothing was measured.

        seconds_per_step, seconds_per_epoch: medians.
        input_share: the share of all time that steps waited for their batches.
        steps: the number of steps.
        """
        return {
            "seconds_per_step": median(self.steps) if self.steps else None,
            "seconds_per_epoch": median(self.epochs) if self.epochs else None,
            "input_share": sum(self.inputs) / (sum(self.inputs) + sum(self.steps)) if self.steps else None,
            "steps": len(self.steps),
        }


def now(device: torch.device) -> float:
    """Return the time in seconds, after waiting for an accelerator to finish its queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return perf_counter()
