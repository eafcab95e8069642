"""The parts of gpu.py that run other benchmarks, and the input path: each yields the rows of its tables."""

import argparse
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial

import merged_inference
import torch
from datasets import Dataset
from merge_drift import load_peft
from torch.utils.data import DataLoader
from training_step_trained import Trained
from tt_linear_timing import clock

from adapters import AdapterConfig
from benchmarks import expressivity
from seq2seq.data.batches import PaddingCollator
from t3nsor import calibrate
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init

Row = tuple[str, dict[str, object]]
BATCHES = 20
METHODS = ("lora", "tt_lora skewed", "tt_lora square", "tt_lora d3", "tt_adapter")
TINY_STEPS = (("tiny", "float32", 2),)
STEPS = (  # the first say most: the last are left out on a machine that builds models slowly
    ("t5-base", "float32", 8),
    ("t5-base", "bfloat16", 8),
    ("t5-large", "bfloat16", 8),
    ("t5-base", "bfloat16", 64),
    ("t5-large", "float32", 8),
)


def calibration(device: str, quick: bool) -> Iterator[Row]:
    """What t3nsor.calibrate prints; the parts that follow use what it stores."""
    sizes = ["--dtypes", "float32", "bfloat16", "--rows", "64", "512", "4096", "--seconds", "60"]
    if quick:
        sizes = ["--layers", "16x32", "--ranks", "2", "--rows", "32", "--seconds", "1"]
    printed = io.StringIO()
    with redirect_stdout(printed):
        calibrate.main(["--device", device, *sizes])
    for line in printed.getvalue().splitlines():
        yield "Calibration", {"python -m t3nsor.calibrate": line.strip()}


def steps(device: str, quick: bool) -> Iterator[Row]:
    """Rows of training_step.py."""
    load_peft()
    import training_step

    for model, dtype, rows in TINY_STEPS if quick else STEPS:
        sizes = ["--model", model, "--rows", str(rows), *(["--rounds", "1", "--length", "6"] if quick else [])]
        args = training_step.parse([*sizes, "--device", device, "--methods", *METHODS[: 2 if quick else None]])
        title = f"Training steps, {model}, {args.rows} x {args.length} and {args.target} tokens, peft's LoRA of rank 8"
        for cells in training_step.measured(dtype, args):
            yield title, dict(zip(training_step.COLUMNS, cells, strict=True))


def generation(device: str, quick: bool) -> Iterator[Row]:
    """Rows of merged_inference.py."""
    sizes = ["--model", "tiny", "--batch", "1", "--source", "4", "--new_tokens", "2", "--rounds", "2"]
    for dtype in ("float32",) if quick else ("float32", "bfloat16", "float16"):
        args = merged_inference.parse(["--device", device, "--dtype", dtype, *(sizes if quick else [])])
        for name, (seconds, ratio, low, high, cpu) in merged_inference.measured(args).items():
            cells = {"seconds": seconds, "/ plain": ratio, "quartiles": f"{low:.3f} .. {high:.3f}", "CPU time": cpu}
            yield (
                f"Generation, {args.model}, {args.batch} x {args.source} tokens, {args.new_tokens} new ones",
                {
                    "dtype": dtype,
                    "model": name,
                    **cells,
                },
            )


def input_path(device: str, quick: bool) -> Iterator[Row]:
    """Is the device kept busy? Steps fed by a data loader beside steps on one batch that lies on the device."""
    model, source, target = ("tiny", 6, 3) if quick else ("t5-base", 64, 8)
    config = merged_inference.model_config(model)
    with torch.device(device):  # bfloat16 has the shortest steps, which are the hardest to keep up with
        backbone = T5ForConditionalGeneration(config).bfloat16()
        t5 = modify_model_after_init(backbone, AdapterConfig(use_LoRA=True, lora_rank=8))
    here: dict[str, torch.Tensor] = {}
    trained = Trained(t5, lambda model: model(**here).loss, device, False)
    for rows in (2,) if quick else (8, 32, 128):
        drawn = torch.randint(2, config.vocab_size, (BATCHES * rows, source + target)).tolist()
        tokens = {"input_ids": [row[:source] for row in drawn], "labels": [row[source:] for row in drawn]}
        loader = DataLoader(
            Dataset.from_dict(tokens), rows, collate_fn=PaddingCollator(0, False), pin_memory=device == "cuda"
        )
        work = {
            "collated and moved": partial(fed, loader, here, device, lambda: None),
            "trained on what is fed": partial(fed, loader, here, device, trained.advance),
            "trained on one batch": lambda: [trained.advance() for _ in range(BATCHES)],
        }
        work["trained on what is fed"]()  # the first steps allocate and choose
        seconds = {name: min(clock(run, device) for _ in range(3)) for name, run in work.items()}
        speeds = {f"tokens/s, {name}": BATCHES * rows * (source + target) / each for name, each in seconds.items()}
        busy = seconds["trained on one batch"] / seconds["trained on what is fed"]
        title = f"Input path, {model} in bfloat16, LoRA of rank 8, {source} and {target} tokens a row"
        yield title, {"rows": rows, **speeds, "device busy": busy}


def fed(loader: DataLoader, here: dict[str, torch.Tensor], device: str, step: Callable[[], None]) -> None:
    """Take a step for each batch of the loader, which is moved to the device and put into `here`."""
    for batch in loader:
        here.update({name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()})
        step()


def networks(device: str, quick: bool) -> Iterator[Row]:
    """Rows of expressivity.py, with fewer epochs: those of one network at a time are slow."""
    cases = ("n_diagonal",) if quick else ("n_diagonal", "n_diagonal_32", "transformer_4", "transformer_8")
    for case in cases:
        args = argparse.Namespace(epochs=1 if quick else 5, targets=1 if quick else None, rounds=1 if quick else 3)
        cells = expressivity.measured(case, args)
        yield f"Networks fitted, {args.epochs} epochs", dict(zip(expressivity.COLUMNS, cells, strict=True))
