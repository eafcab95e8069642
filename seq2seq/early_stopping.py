"""The end of training once the metric that chooses the best model no longer improves."""

import math

from transformers import EarlyStoppingCallback

from common.errors import warn_once


class EarlyStopping(EarlyStoppingCallback):
    """transformers' callback, which also says what it does and goes on counting in a run that is resumed.

    Evaluations without the metric are passed over: those of one of several tasks, and those of whole splits at the end.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        stored = (state.stateful_callbacks or {}).get(type(self).__name__)
        if stored is not None:
            self.early_stopping_patience_counter = stored["attributes"]["early_stopping_patience_counter"]
        control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        if name not in metrics or not state.global_step:
            return
        if math.isnan(metrics[name]):
            warn_once(f"step {state.global_step}: {name} is not a number; early stopping counts it as no improvement")
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if control.should_training_stop and self.early_stopping_patience_counter >= self.early_stopping_patience:
            best = f"; the best, {state.best_metric:.6g}, is that of step {state.best_global_step}"
            print(
                f"stopped early at step {state.global_step}: {name} has not improved for "
                f"{self.early_stopping_patience_counter} evaluations{best if state.best_global_step else ''}"
            )
