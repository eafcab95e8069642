"""Train, evaluate and test T5 with adapters: python run_seq2seq.py FILE.json [--key value ..]"""

import os
import sys
import time
from contextlib import ExitStack, contextmanager, redirect_stdout

import datasets
import torch
from accelerate import PartialState
from transformers import set_seed

from adapters import ConfigError, rounding_losses
from adapters.norms import preinit_errors
from seq2seq.data.batches import TaskRows, load_texts, longest_target, tasks_of_splits, tokenise
from seq2seq.dry_run import dry_run
from seq2seq.layout import MERGED
from seq2seq.models import check_tasks, load_backbone, load_tokenizer
from seq2seq.predictions import split_results
from seq2seq.report import peak_memory_mib, print_report, print_series, reset_peak_memory
from seq2seq.runs import RunDirectory
from seq2seq.series import is_series, run_series, series_members
from seq2seq.settings import Settings, load_settings, print_keys
from seq2seq.timing import TimingCallback
from seq2seq.tracking import TrackingCallback, start_tracking
from seq2seq.trainer import AdapterTrainer
from third_party.models.t5.export import check_foldable
from utils import check_size, count_parameters, get_adapter_config, modify_model_after_init, print_num_parameters

USAGE = "usage: python run_seq2seq.py FILE.json [--key value ..]    (--help lists the keys)"


def main(argv: list[str]) -> int:
    if {"--help", "-h"} & set(argv):
        print(USAGE)
        print_keys()
        return 0
    try:
        if not argv or argv[0].startswith("--"):
            raise ConfigError(USAGE)
        with first_process_speaks():
            settings, warnings = load_settings(argv[0], argv[1:])
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            series = is_series(settings)
            if settings.training.dry_run:
                dry_run(series_members(settings)[0] if series else settings)
            elif series:
                print_series(run_series(settings, run))
            else:
                print_report(run(settings))
    except ConfigError as error:
        if is_first_process():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
        return 130
    return 0


def is_first_process() -> bool:
    """Whether this is the first process of a distributed run, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def first_process_speaks():
    """Nothing is printed by the other processes of a distributed run, but for warnings and tracebacks."""
    with ExitStack() as stack:
        if not is_first_process():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


def run(settings: Settings) -> dict:
    """One experiment; returns what `results.json` holds."""
    start = time.perf_counter()
    reset_peak_memory()
    training = settings.training
    directory = RunDirectory(
        training.output_dir,
        settings.resolved(),
        overwrite=training.overwrite_output_dir,
        resume=training.resume_from_checkpoint,
    )
    trainer, rows = prepare(settings)
    trainer.started = start
    counts = count_parameters(trainer.model)
    tracker = start_tracking(settings, counts)
    if directory.checkpoint and training.do_train:
        trainer.go_on_from(directory.checkpoint)
    PartialState().wait_for_everyone()  # until all have looked, nothing is removed or replaced
    if training.should_save:
        directory.claim()
    trainer.add_callback(TrackingCallback(tracker))
    extra = train(settings, trainer, directory) if training.do_train else {}
    results = {
        "experiment_name": training.experiment_name,
        "method": settings.method,
        "splits": {
            split: split_results(trainer, split, rows[split], directory.path)
            for split in ("validation", "test")
            if split in rows
        },
        "parameters": counts,
        **extra,
        **costs_in_accuracy(trainer.model),
        "history": trainer.state.log_history,
        "seed": training.seed,
        "low_resource": settings.data.low_resource,
        "seconds": trainer.seconds,
        "peak_memory_mib": peak_memory_mib(),
        "output_dir": training.output_dir,
    }
    if training.merge_and_export:
        trainer.export(directory.path / MERGED)
    if training.should_save:
        directory.finish(results)
    tracker.finish()
    return results


def prepare(settings: Settings) -> tuple[AdapterTrainer, dict[str, list[TaskRows]]]:
    """The trainer of a run, with model and data, and the rows of each split that it needs. Writes nothing."""
    training, data = settings.training, settings.data
    datasets.disable_progress_bars()
    tasks = tasks_of_splits(data, training.split_seed)
    adapter_config = get_adapter_config(settings.given, tasks=[task.name for task in tasks["train"]])
    # Adapters of a task's own know the task; other models are told its name in the source.
    prefix = not adapter_config.own_adapters
    texts = load_texts(tasks, needed_splits(training), data, training.seed, prefix)
    set_seed(training.seed)
    training_texts = [text for rows in texts.get("train", ()) for text in rows.texts["source"]]
    tokenizer = load_tokenizer(settings.model, training_texts or None)
    model = load_backbone(settings.model, tokenizer)
    check_size(model, adapter_config)
    modify_model_after_init(model, adapter_config)
    check_tasks(model, tasks)
    if training.print_num_parameters:
        print_num_parameters(model)
    if training.merge_and_export:
        check_foldable(model)
    rows = {
        split: [tokenise(each, tokenizer, data, by_length=split != "train") for each in parts]
        for split, parts in texts.items()
    }
    if training.generation_max_length is None:
        training.generation_max_length = longest_target(rows.values())
    trainer = AdapterTrainer(
        training=rows.get("train", ()),
        validation=rows.get("validation", ()),
        tasks=tasks["train"],
        data=data,
        model=model,
        args=training,
        processing_class=tokenizer,
    )
    return trainer, rows


def train(settings: Settings, trainer: AdapterTrainer, directory: RunDirectory) -> dict:
    """Train, or go on with it, and save; returns the reports on time and memory that were asked for."""
    training, asked, timing = settings.training, {}, TimingCallback()
    trainer.add_callback(timing)
    if training.compute_memory:
        memory = trainer.measure_memory()
        print("\n".join(memory.table()))
        asked["memory"] = memory.to_dict()
    if directory.checkpoint:
        print(f"going on from {directory.checkpoint}")
    trainer.train(resume_from_checkpoint=directory.checkpoint)
    trainer.save_final(getattr(torch, settings.model.save_dtype))
    return {**asked, "time": timing.summary()} if training.compute_time else asked


def costs_in_accuracy(model) -> dict:
    """What merging and decomposing cost in accuracy of the weights."""
    costs = {}
    losses = rounding_losses(model) if model.merged else {}
    if losses:
        costs["merged"] = {"weights": len(losses), "largest_rounding_loss": max(losses.values())}
    errors = preinit_errors(model)
    if errors:
        costs["largest_preinit_error"] = max(errors.values())
    return costs


def needed_splits(training) -> list[str]:
    """The splits that the run reads."""
    wanted = {"train": training.do_train, "validation": training.do_eval, "test": training.do_test}
    splits = [split for split, needed in wanted.items() if needed]
    if not splits:
        raise ConfigError("do_train, do_eval and do_test are all false; set one of them to true")
    return splits


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
