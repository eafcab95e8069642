"""Train, evaluate and test T5 with adapters: python run_seq2seq.py FILE.json [--key value ..]"""

import sys
import time

import datasets
import torch
from transformers import set_seed

from adapters import ConfigError, rounding_losses
from adapters.adapter_configuration import AFTER_SUBLAYER
from adapters.norms import preinit_errors
from seq2seq.data.batches import collator_for, load_texts, longest_target, tokenise
from seq2seq.dry_run import dry_run
from seq2seq.models import load_backbone, load_tokenizer
from seq2seq.report import majority_baseline, peak_memory_mib, print_report
from seq2seq.runs import MERGED, RunDirectory
from seq2seq.settings import Settings, load_settings, print_keys
from seq2seq.timing import TimingCallback
from seq2seq.tracking import TrackingCallback, start_tracking
from seq2seq.trainer import AdapterTrainer
from third_party.models.t5.export import check_foldable
from utils import check_size, count_parameters, get_adapter_config, modify_model_after_init, print_num_parameters

USAGE = "usage: python run_seq2seq.py FILE.json [--key value ..]    (--help lists the keys)"
SPLIT_SEED = 42  # of published splits that are halved; data_seed changes it


def main(argv: list[str]) -> int:
    if {"--help", "-h"} & set(argv):
        print(USAGE)
        print_keys()
        return 0
    try:
        if not argv or argv[0].startswith("--"):
            raise ConfigError(USAGE)
        settings, warnings = load_settings(argv[0], argv[1:])
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if settings.training.dry_run:
            dry_run(settings)
        else:
            print_report(run(settings))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
        return 130
    return 0


def run(settings: Settings) -> dict:
    """One experiment; returns what `results.json` holds."""
    start = time.perf_counter()
    training, data = settings.training, settings.data
    directory = RunDirectory(
        training.output_dir,
        settings.resolved(),
        overwrite=training.overwrite_output_dir,
        resume=training.resume_from_checkpoint,
    )
    datasets.disable_progress_bars()
    # Adapters of a task's own know the task; other models are told its name in the source.
    prefix = AFTER_SUBLAYER not in settings.adapter.methods
    split_seed = SPLIT_SEED if training.data_seed is None else training.data_seed
    tasks, texts = load_texts(data, needed_splits(training), split_seed, prefix)
    set_seed(training.seed)
    tokenizer = load_tokenizer(settings.model, texts["train"]["source"] if "train" in texts else None)
    model = load_backbone(settings.model, tokenizer)
    adapter_config = get_adapter_config(settings.given, tasks=[data.task_name])
    check_size(model, adapter_config)
    modify_model_after_init(model, adapter_config)
    if training.print_num_parameters:
        print_num_parameters(model)
    if training.merge_and_export:
        check_foldable(model)
    tokens = {split: tokenise(rows, tokenizer, data) for split, rows in texts.items()}
    if training.generation_max_length is None:
        training.generation_max_length = longest_target(tokens.values())

    trainer = AdapterTrainer(
        task=tasks["validation"],
        model=model,
        args=training,
        train_dataset=tokens.get("train"),
        eval_dataset=tokens.get("validation"),
        data_collator=collator_for(tasks["train"], tokenizer, model),
        processing_class=tokenizer,
    )
    counts = count_parameters(model)
    tracker = start_tracking(settings, counts)
    directory.claim()  # until here nothing was removed or replaced
    trainer.add_callback(TrackingCallback(tracker))
    timing, memory = TimingCallback(), None
    trainer.add_callback(timing)
    if training.compute_memory and training.do_train:
        memory = trainer.measure_memory()
        print("\n".join(memory.table()))
    if training.do_train:
        if directory.checkpoint:
            print(f"going on from {directory.checkpoint}")
        trainer.train(resume_from_checkpoint=directory.checkpoint)
        trainer.save_final(getattr(torch, settings.model.save_dtype))
    results = {
        "experiment_name": training.experiment_name,
        "method": settings.method,
        "splits": {
            split: {
                "task": tasks[split].name,
                "scores": trainer.evaluate_split(tasks[split], split, tokens[split]),
                "majority": majority_baseline(tasks[split], texts[split]["target"]),
            }
            for split in ("validation", "test")
            if split in tokens
        },
        "parameters": counts,
        **extra_results(trainer, timing, memory),
        "seed": training.seed,
        "seconds": time.perf_counter() - start,
        "peak_memory_mib": peak_memory_mib(),
        "output_dir": training.output_dir,
    }
    if training.merge_and_export:
        trainer.export(directory.path / MERGED)
    directory.finish(results)
    tracker.finish()
    return results


def extra_results(trainer: AdapterTrainer, timing: TimingCallback, memory) -> dict:
    """What was asked for beside scores, and what merging and decomposing cost in accuracy of the weights."""
    model, extra = trainer.model, {}
    losses = rounding_losses(model) if model.merged else {}
    if losses:
        extra["merged"] = {"weights": len(losses), "largest_rounding_loss": max(losses.values())}
    errors = preinit_errors(model)
    if errors:
        extra["largest_preinit_error"] = max(errors.values())
    if trainer.args.compute_time:
        extra["time"] = timing.summary()
    if memory is not None:
        extra["memory"] = memory.to_dict()
    return extra


def needed_splits(training) -> list[str]:
    """The splits that the run reads."""
    wanted = {"train": training.do_train, "validation": training.do_eval, "test": training.do_test}
    splits = [split for split, needed in wanted.items() if needed]
    if not splits:
        raise ConfigError("do_train, do_eval and do_test are all false; set one of them to true")
    return splits


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
