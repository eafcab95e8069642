"""Chooses values with early stopping: ASHA (Li et al. 2018, https://arxiv.org/abs/1810.05934) of Ray Tune.

The values tried are those of the sweep without a search, and so are the runs; those that are behind after an evaluation
on the validation split are stopped. The test split is not read.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from common.errors import ConfigError
from seq2seq.settings import build
from seq2seq.sweeps.cells import Cell, Table
from seq2seq.sweeps.choosing import LOSS, said
from seq2seq.sweeps.on_ray import go_to
from seq2seq.sweeps.records import Records, record_of_outcome, record_of_stop
from seq2seq.sweeps.work import Outcome, logged, outcome_of, run_cell

OUTCOME, SCORE = "outcome", "score"
REDUCTION = 3  # of the values that reach an evaluation, one in so many goes on at once
MOST_EVALUATIONS = 3**10  # after which ASHA compares no more


@dataclass
class Search:
    """A search. Ray must be connected.

    records: where it writes what it finds.
    resources: what Ray reserves for a run, {"CPU": .., "GPU": ..}.
    say: called with a line of news.
    """

    table: Table
    records: Records
    resources: dict[str, float]
    say: Callable[[str], None]

    def run(self, seconds: float | None = None) -> None:
        """Try the values of every row and task that has no complete records, for at most this time."""
        end = None if seconds is None else time.monotonic() + seconds
        for row, task in self.table.pairs():
            choices = self.table.choices(row, task)
            cells = [cell for cell in choices if self.records.named(cell, stopped=True) is None]
            left = None if end is None else end - time.monotonic()
            if cells and (left is None or left > 0):
                self._try(cells, left)

    def _try(self, cells: list[Cell], seconds: float | None) -> None:
        """Try the values of one row and task."""
        os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}  # the records say it all
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        check_evaluated(cells[0])
        metric = self.table.sweep.choice.metric
        directory = Path(self.table.sweep.output_dir, "search").absolute()
        scheduler = ASHAScheduler(max_t=MOST_EVALUATIONS, reduction_factor=REDUCTION, stop_last_trials=False)
        recorder = recorder_for(tune.Callback, self.records, self.say)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, metric=metric, place=os.getcwd()), self.resources),
            param_space={"cell": tune.grid_search(cells)},
            tune_config=tune.TuneConfig(metric=SCORE, mode="max", scheduler=scheduler, time_budget_s=seconds),
            run_config=tune.RunConfig(storage_path=str(directory), verbose=0, callbacks=[recorder]),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def trial(config: dict[str, Any], metric: str, place: str) -> None:
    """Run a cell in a process of Tune, and report after each evaluation. place: the driver's working directory."""
    from ray import tune

    go_to(place)
    cell: Cell = config["cell"]
    reporter = Reporter(metric, lambda score: tune.report({SCORE: score}))
    with logged(cell):
        status = run_cell(cell, int(os.environ.get("OMP_NUM_THREADS", "1")), keep=False, callbacks=[reporter])
    outcome = outcome_of(cell, status)
    tune.report({SCORE: reporter.score, OUTCOME: {**vars(outcome), "cell": None}})


class Reporter(TrainerCallback):
    """Calls back with the score on validation, higher for better, after each evaluation in training."""

    def __init__(self, metric: str, report: Callable[[float], None]):
        self.metric, self.report, self.score = metric, report, -1e9

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        value = metrics.get(f"eval_{self.metric}")  # of several tasks, that of their average
        if value is None:
            return
        self.score = -value if self.metric == LOSS else value
        if state.global_step < state.max_steps:  # the end of the run reports the last one
            self.report(self.score)


def recorder_for(base: type, records: Records, say: Callable[[str], None]) -> Any:
    """Return a callback of Tune that records the trials as they end."""

    class Recorder(base):
        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            cell, last = trial.config["cell"], trial.last_result or {}
            threads = int(trial.placement_group_factory.head_cpus)
            if OUTCOME not in last:
                record = record_of_stop(cell, last.get("training_iteration", 0), last.get(SCORE), threads)
            else:
                outcome = Outcome(**{**last[OUTCOME], "cell": cell})
                record = record_of_outcome(outcome, threads)
            if record is None:
                say(f"{cell.title}: failed: {outcome.error}")
                return
            records.add(record)
            say(f"{cell.title}: {said(records.by_key[cell.key])}")

    return Recorder()


def check_evaluated(cell: Cell) -> None:
    """Raise ConfigError if a run is not evaluated in training."""
    if build(cell.values).training.eval_strategy.value == "no":
        raise ConfigError(
            f"search is true, but {cell.row.name} is not evaluated in training, so that nothing can be stopped; set "
            'eval_strategy to "epoch" or "steps" in choose.keys'
        )
