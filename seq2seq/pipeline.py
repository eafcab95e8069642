"""One run: load data and model, train, evaluate on every split, write the results."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import PartialState
from transformers import TrainerCallback, set_seed

from adapters import rounding_losses
from adapters.norms import preinit_errors
from common.errors import ConfigError, warn_once
from common.termination import termination
from seq2seq.data.batches import TaskRows, load_texts, tasks_of_splits
from seq2seq.data.class_weights import check_class_weights, with_class_weights
from seq2seq.data_config import companions, saved_with, take_labels
from seq2seq.divergence import Diverged
from seq2seq.layout import MERGED
from seq2seq.models import check_tasks, load_backbone, load_tokenizer
from seq2seq.precision import SLOW, bfloat16_slowdown
from seq2seq.predictions import split_results
from seq2seq.progress import bars_on_terminals_only
from seq2seq.runs import RunDirectory
from seq2seq.settings import Settings
from seq2seq.sharded_training import read_weights_in_every_process
from seq2seq.summary import peak_memory_mib, reset_peak_memory
from seq2seq.timing import TimingCallback
from seq2seq.tokens import say_losses, set_generation_length, tokenise_all, training_sources
from seq2seq.tracking import TrackingCallback, summary_of, tracking
from seq2seq.trainer import AdapterTrainer
from third_party.models.t5.adapter_checkpoint import save_scores
from third_party.models.t5.adapting import check_size, modify_model_after_init
from third_party.models.t5.export import check_foldable
from third_party.models.t5.key_usage import read_keys
from third_party.models.t5.parameters import count_parameters, parameters_by_component, print_num_parameters


def run(settings: Settings, callbacks: Sequence[TrainerCallback] = ()) -> dict:
    """Run one experiment and return the content of `results.json`.

    callbacks: of transformers' trainer, in addition to those of the run.
    """
    start, worked = time.perf_counter(), time.process_time()
    training = settings.training
    reset_peak_memory(training.device)
    directory = RunDirectory(
        training.output_dir,
        settings.resolved(),
        overwrite=training.overwrite_output_dir,
        resume=training.resume_from_checkpoint,
    )
    trainer, rows = prepare(settings)
    trainer.started = start
    for callback in callbacks:
        trainer.add_callback(callback)
    try:
        with tracking(settings, trainer.model) as tracker:
            trainer.add_callback(TrackingCallback(tracker))
            results = train_and_evaluate(settings, trainer, rows, directory, worked)
            tracker.summary.update(summary_of(results))
    finally:
        directory.release()
    return results


def train_and_evaluate(
    settings: Settings, trainer: AdapterTrainer, rows: dict[str, list[TaskRows]], directory: RunDirectory, worked: float
) -> dict:
    """Take over the directory, train, evaluate on every split; return the content of `results.json` and write it.

    worked: the processor time of this process when the run began.
    """
    training = settings.training
    counts, components = count_parameters(trainer.model), parameters_by_component(trainer.model)
    if directory.checkpoint and training.do_train:
        trainer.resume_from(directory.checkpoint)
    PartialState().wait_for_everyone()  # nothing is removed or replaced before every process has looked
    if training.should_save:
        directory.claim()
        trainer.ownership = directory.ownership
    extra = train(settings, trainer, directory) if training.do_train else {}
    results = {
        "experiment_name": training.experiment_name,
        "method": settings.method,
        "keys_read": sorted(read_keys(trainer.model.config, trainer.model.adapter_config)),
        "splits": {
            split: split_results(trainer, split, rows[split], directory.path)
            for split in ("validation", "test")
            if split in rows
        },
        "parameters": counts,
        "components": [vars(row) for row in components],
        **extra,
        **costs_in_accuracy(trainer.model),
        "history": trainer.state.log_history,
        "seed": training.seed,
        "low_resource": settings.data.low_resource,
        "seconds": trainer.seconds,
        "cpu_seconds": time.process_time() - worked,
        "peak_memory_mib": peak_memory_mib(training.device),
        "output_dir": training.output_dir,
    }
    if training.merge_and_export:
        trainer.export(directory.path / MERGED)
    if training.do_train and (training.should_save or trainer.is_fsdp_enabled) and trainer.saves_adapter:
        save_scores(trainer.model, directory.path, scores_for_card(results["splits"]), training.should_save)
    if training.should_save:
        directory.finish(results)
    return results


def prepare(settings: Settings) -> tuple[AdapterTrainer, dict[str, list[TaskRows]]]:
    """Return the trainer of a run, with model and data, and the rows of each split it uses. Writes nothing."""
    training, data = settings.training, settings.data
    training.disable_tqdm = not bars_on_terminals_only() or training.disable_tqdm
    if not training.do_train:
        take_labels(data, saved_with(settings.model.model_name_or_path))
    tasks = tasks_of_splits(data, training.split_seed)
    check_class_weights(data, tasks["train"])
    # Where tasks share adapters, the source names the task.
    prefix = not settings.adapter.own_adapters
    texts = load_texts(tasks, needed_splits(training), data, training.seed, prefix)
    set_seed(training.seed)
    tokenizer = load_tokenizer(settings.model, training_sources(texts))
    read_weights_in_every_process()
    model = load_backbone(settings.model, tokenizer)
    if settings.model.model_name_or_path is None and settings.model.initial_embedding is not None:
        for task in tasks["train"]:
            task.initialise(model, tokenizer)
    check_size(model, settings.adapter)
    modify_model_after_init(model, settings.adapter)
    check_tasks(model, tasks)
    if training.print_num_parameters:
        print_num_parameters(model)
    if training.merge_and_export:
        check_foldable(model)
    rows = tokenise_all(texts, tokenizer, settings)
    if training.do_train and data.class_weights is not None:
        rows["train"] = [with_class_weights(each) for each in rows["train"]]
    set_generation_length(training, rows)
    generation = {"max_length": training.generation_max_length, "num_beams": training.generation_num_beams or 1}
    model.companions = companions(tokenizer, tasks["train"], data, prefix, generation)
    trainer = AdapterTrainer(
        training=rows.get("train", ()),
        validation=rows.get("validation", ()),
        tasks=tasks["train"],
        data=data,
        model=model,
        args=training,
        processing_class=tokenizer,
    )
    say_losses(rows)
    return trainer, rows


def train(settings: Settings, trainer: AdapterTrainer, directory: RunDirectory) -> dict:
    """Train (or resume) and save; return the reports on time and memory that the settings ask for."""
    training, reports = settings.training, {}
    timing = TimingCallback() if training.compute_time else None  # measuring makes every step wait for the device
    if training.bf16 and training.device.type == "cpu" and bfloat16_slowdown() > SLOW:
        warn_once("bf16: this CPU takes longer for it than for float32; set it to false")
    if timing is not None:
        trainer.add_callback(timing)
    if training.compute_memory:
        memory = trainer.measure_memory()
        print("\n".join(memory.table()))
        reports["memory"] = memory.to_dict()
    if directory.checkpoint:
        print(f"resuming from {directory.checkpoint}")
    try:
        with termination.awaited() if training.world_size == 1 else nullcontext():
            trainer.train(resume_from_checkpoint=directory.checkpoint)
    except Diverged as error:
        if training.should_save:
            directory.give_up(error)
        raise
    if training.load_best_model_at_end and trainer.state.best_model_checkpoint is None:
        warn_once("no evaluation gave a score, so the last model is saved, not the best one")
    trainer.save_final(getattr(torch, settings.model.save_dtype))
    return {**reports, "time": timing.summary()} if timing is not None else reports


def scores_for_card(splits: dict) -> list[dict]:
    """Return the scores of all splits and tasks, one in a row, as they travel with an adapter."""
    return [
        {
            "data": task["data"]["name"],
            "split": split,
            "rows": task["rows"],
            "metric": metric,
            "score": score,
        }
        for split, result in splits.items()
        for task in result["tasks"].values()
        for metric, score in task["scores"].items()
        if metric != "loss"
    ]


def costs_in_accuracy(model) -> dict:
    """Return the largest errors that merging and decomposing introduced into the weights."""
    costs = {}
    losses = rounding_losses(model) if model.merged else {}
    if losses:
        costs["merged"] = {"weights": len(losses), "largest_rounding_loss": max(losses.values())}
    errors = preinit_errors(model)
    if errors:
        costs["largest_preinit_error"] = max(errors.values())
    return costs


def needed_splits(training) -> list[str]:
    """Return the splits that the run uses. Raises ConfigError if there are none."""
    wanted = {"train": training.do_train, "validation": training.do_eval, "test": training.do_test}
    splits = [split for split, needed in wanted.items() if needed]
    if not splits:
        raise ConfigError("do_train, do_eval and do_test are all false; set one of them to true")
    return splits
