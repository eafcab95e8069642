"""Measures a run of ours beside transformers' Seq2SeqTrainer with peft's LoRA: training, prediction and scores.

    python benchmarks/whole_run.py [--rounds 3] [--samples 1024] [--predicted 512] [--switch torch_compile=true ..]

Both train LoRA of rank 8 on wi and wo of the same backbone, from the same random A, on the same batches, those of the
file's order, with the same optimiser, learning rate and seed; then they answer the test rows by `generate` and score
them. Loading and tokenising before that is not timed. The runs take turns in one process, in a new random order each
round. Columns: the median of the seconds of an epoch, and of its ratio to the stock run of the same round, with
quartiles; the same of prediction; the mean loss of training, the accuracy, and the largest relative difference between
a logged loss and that of the stock run. With --switch a third run is ours with these keys on top.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from arguments import Parser, threads, whole  # noqa: E402
from merge_drift import load_peft  # noqa: E402
from merged_inference import status_of  # noqa: E402

from seq2seq.pipeline import prepare  # noqa: E402
from seq2seq.settings import load_settings  # noqa: E402
from third_party.models.t5.configuration_t5 import resolve_name  # noqa: E402

CONFIG = Path(__file__).parents[1] / "configs" / "lora.json"
STOCK, OURS = "Seq2SeqTrainer, peft", "ours"
ROW = "{:22} {:>8} {:>7} {:>13} {:>8} {:>7} {:>13} {:>8} {:>9} {:>10}"
COLUMNS = ("", "epoch s", "ratio", "quartiles", "predict s", "ratio", "quartiles", "loss", "accuracy", "loss off by")
# Both runs share these keys.
SHARED = {"learning_rate": 0.003, "lr_scheduler_type": "linear", "warmup_steps": 0, "seed": 42, "logging_steps": 0.1}
SHARED |= {"train_sampling_strategy": "sequential", "predict_with_generate": True, "disable_tqdm": True}
SHARED |= {"eval_strategy": "no", "save_strategy": "no"}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Time a run of ours beside transformers' Seq2SeqTrainer.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", default="t5-nano", help="backbone: t5-nano, or a local directory with a T5 and its tokenizer")
    add("--task", default="vader-movie", help="task to train and to predict")
    add("--samples", type=whole, default=1024, help="rows to train on")
    add("--predicted", type=whole, default=512, help="rows to predict")
    add("--epochs", type=whole, default=1)
    add("--batch", type=whole, default=32, help="rows in a batch of training")
    add("--eval_batch", type=whole, default=256, help="rows in a batch of prediction")
    add("--rounds", type=whole, default=3, help="number of runs of each contestant")
    add("--threads", type=threads, help="threads of torch; default: torch's")
    add("--switch", nargs="+", default=[], metavar="KEY=VALUE", help="keys of a third run: ours with these on top")
    args = parser.parse_args(arguments)
    for pair in args.switch:
        if "=" not in pair:
            parser.error(f"argument --switch: {pair!r} must be written KEY=VALUE, as in torch_compile=true")
    return args


@dataclass
class Found:
    """What one run took and gave: seconds of an epoch and of prediction, logged losses, their mean, the accuracy."""

    epoch: float
    prediction: float
    losses: list[float]
    loss: float
    accuracy: float


def prepared(args: argparse.Namespace, directory: str, switch: list[str] = ()):
    """The trainer of our run, and its test rows. Raises ConfigError."""
    keys = {**SHARED, "task_name": args.task, "model_name_or_path": args.model, "output_dir": directory}
    keys |= {"load_best_model_at_end": "false", "do_eval": "false", "num_train_epochs": args.epochs}
    keys |= {"max_train_samples": args.samples, "max_test_samples": args.predicted, "print_num_parameters": "false"}
    keys |= {"per_device_train_batch_size": args.batch, "per_device_eval_batch_size": args.eval_batch}
    keys |= dict(pair.split("=", 1) for pair in switch)
    keys = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in keys.items()}
    settings, _ = load_settings(str(CONFIG), [part for key, value in keys.items() for part in (f"--{key}", value)])
    trainer, rows = prepare(settings)
    return trainer, rows["test"]


def ours(args: argparse.Namespace, directory: str, switch: list[str]) -> Found:
    """Run ours."""
    trainer, rows = prepared(args, directory, switch)
    return measured(trainer, args, lambda: trainer.evaluate(rows=rows, metric_key_prefix="test"))


def stock(args: argparse.Namespace, directory: str) -> Found:
    """Run transformers' trainer on peft's LoRA, with the tokens, the random A and the settings of ours."""
    trainer, (rows,) = prepared(args, directory)
    model = with_lora_of(trainer.model, args.model)
    names = [*SHARED, "num_train_epochs", "output_dir", "generation_max_length", "use_cpu"]
    names += ["per_device_train_batch_size", "per_device_eval_batch_size"]
    arguments = {name: getattr(trainer.args, name) for name in names}
    tokenizer, tokens = trainer.processing_class, ["input_ids", "labels"]

    def score(prediction) -> dict[str, float]:
        texts = decoded(tokenizer, prediction.predictions), decoded(tokenizer, prediction.label_ids)
        return {"accuracy": 100 * float(np.mean([a == b for a, b in zip(*texts, strict=True)]))}

    stock_trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=transformers.Seq2SeqTrainingArguments(**arguments, report_to=[]),
        train_dataset=trainer.train_dataset.select_columns(tokens),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, model=model.get_base_model()),
        processing_class=tokenizer,
        compute_metrics=score,
    )
    test = rows.tokens.select_columns(tokens).shuffle(seed=0)  # ours are sorted by length
    return measured(stock_trainer, args, lambda: stock_trainer.predict(test).metrics)


def with_lora_of(adapted, name: str) -> torch.nn.Module:
    """Plain transformers with peft's LoRA, which has the A of our model."""
    peft = load_peft()
    keys = adapted.adapter_config
    lora = peft.LoraConfig(r=keys.lora_rank, lora_alpha=keys.lora_alpha, target_modules=["wi", "wo"])
    model = peft.get_peft_model(transformers.T5ForConditionalGeneration.from_pretrained(resolve_name(name)), lora)
    for layer, module in adapted.named_modules():
        if getattr(module, "branch", None) is not None:
            model.get_base_model().get_submodule(layer).lora_A["default"].weight.data.copy_(module.branch.A)
    return model


def decoded(tokenizer, tokens: np.ndarray) -> list[str]:
    return tokenizer.batch_decode(np.where(tokens < 0, tokenizer.pad_token_id, tokens), skip_special_tokens=True)


def measured(trainer, args: argparse.Namespace, predict: Callable[[], dict[str, float]]) -> Found:
    """Train and predict."""
    torch.manual_seed(SHARED["seed"])
    start = time.perf_counter()
    trainer.train()
    middle = time.perf_counter()
    scores = predict()
    end = time.perf_counter()
    log = trainer.state.log_history
    losses = [entry["loss"] for entry in log if "loss" in entry]
    (mean,) = (entry["train_loss"] for entry in log if "train_loss" in entry)
    return Found((middle - start) / args.epochs, end - middle, losses, mean, scores["test_accuracy"])


def compare(args: argparse.Namespace) -> None:
    """Run all contestants in turns, and print the table."""
    if args.threads:
        torch.set_num_threads(args.threads)
    runs = {STOCK: lambda out: stock(args, out), OURS: lambda out: ours(args, out, [])}
    if args.switch:
        runs["ours, switched"] = lambda out: ours(args, out, args.switch)
    found: dict[str, list[Found]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name in random.sample([*runs], len(runs)):
            with tempfile.TemporaryDirectory() as directory, open(os.devnull, "w") as log, redirect_stdout(log):
                found[name].append(runs[name](directory))
    print(
        f"{args.model}, {args.task}: {args.samples} rows, {args.predicted} predicted, {torch.get_num_threads()} threads"
    )
    print(ROW.format(*COLUMNS))
    for name, each in found.items():
        cells = [*times(found, name, "epoch"), *times(found, name, "prediction")]
        off = max(abs(a / b - 1) for a, b in zip(each[0].losses, found[STOCK][0].losses, strict=True))
        print(ROW.format(name, *cells, f"{each[0].loss:.4f}", f"{each[0].accuracy:.2f}", f"{off:.1e}"))


def times(found: dict[str, list[Found]], name: str, what: str) -> list[str]:
    """The cells of the median seconds, and of its ratio to the stock run of the same round."""
    seconds = [getattr(each, what) for each in found[name]]
    ratios = [own / getattr(other, what) for own, other in zip(seconds, found[STOCK], strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return [f"{median(seconds):.2f}", f"{middle:.2f}", f"{low:.2f} .. {high:.2f}"]


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    sys.exit(status_of(lambda: compare(given)))
