"""What both examples need: their options, a tokenizer and a base for a run without downloads, the adapter, errors."""

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, TrainingArguments

from t3nsor_peft import MetaTTConfig, TTAdapterConfig, TTLoraConfig

METHODS: dict[str, type[PeftConfig]] = {"tt_lora": TTLoraConfig, "meta_tt": MetaTTConfig, "tt_adapter": TTAdapterConfig}
SPECIAL = ["<pad>", "<s>", "</s>"]


class UserError(Exception):
    """Something that who runs the example can change."""


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> int:
    """Call main. Returns the exit status: 2, after one line on stderr, for what the user can change."""
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # a call of peft
    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser(description: str, file: str, output: str) -> argparse.ArgumentParser:
    """The options of an example. file: help of --file; output: default of --output."""
    made = argparse.ArgumentParser(description=description, allow_abbrev=False)
    made.add_argument("--model", help="folder or hub name; without it, a tiny random model is built")
    made.add_argument("--file", type=Path, help=file)
    made.add_argument("--method", choices=METHODS, default="tt_lora")
    made.add_argument("--r", type=int, default=8, help="rank of the trains")
    made.add_argument("--targets", default="all-linear", help="names of the modules to adapt, separated by commas")
    made.add_argument("--steps", type=int, default=100, help="steps of the optimiser")
    made.add_argument("--output", type=Path, default=Path(output), help="folder for the adapter")
    return made


def read(path: Path) -> str:
    """The text of a file. Raises UserError if there is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--file {path} cannot be read as UTF-8 text: {error}") from None
    if not text.strip():
        raise UserError(f"--file {path} is empty")
    return text


def trained_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most 512 tokens, which puts <s> and </s> around a text."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=512, special_tokens=SPECIAL, show_progress=False)
    ends = [(token, bpe.token_to_id(token)) for token in SPECIAL[1:]]
    bpe.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **names)


def load(auto, name: str, **options):
    """auto.from_pretrained(name, ..), a model or a tokenizer. Raises UserError if there is none."""
    try:
        return auto.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {name} cannot be loaded as {auto.__name__}: {one_line(error)}") from None


def adapted(model, args: argparse.Namespace, task_type: str) -> PeftModel:
    """The model with an adapter. Raises UserError if the method does not fit it."""
    targets = args.targets if args.targets == "all-linear" else args.targets.split(",")
    try:
        config = METHODS[args.method](r=args.r, target_modules=targets, task_type=task_type)
        found = get_peft_model(model, config)
    except (TypeError, ValueError) as error:
        raise UserError(f"--method {args.method} --r {args.r} --targets {args.targets}: {one_line(error)}") from None
    found.print_trainable_parameters()
    return found


def training_arguments(args: argparse.Namespace) -> TrainingArguments:
    """Arguments for a short training. Raises UserError for --steps or --output that are of no use."""
    if args.steps < 1:
        raise UserError(f"--steps is {args.steps}; it must be at least 1")
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"--output {args.output} is a file; name a folder")
    return TrainingArguments(
        output_dir=str(args.output),
        max_steps=args.steps,
        learning_rate=5e-3,
        lr_scheduler_type="cosine",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=max(1, args.steps // 4),
    )


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def check_same(model: PeftModel, again: PeftModel, batch: dict[str, torch.Tensor]) -> None:
    """Print whether two models compute the same."""
    with torch.no_grad():
        outputs = [each.eval()(**{k: v.to(each.device) for k, v in batch.items()}).logits for each in (model, again)]
    same = torch.equal(*(output.cpu() for output in outputs))
    print(f"loaded again, the adapter computes {'the same' if same else 'SOMETHING ELSE'}")
