"""Saved adapters whose files are damaged: refused in one line, or the same logits."""

import json
import shutil
import sys
from pathlib import Path

from attacks.adapter_files import DAMAGES, METHODS
from attacks.outcome import IDENTICAL, WRONG, Campaign, Outcome, Trial
from attacks.processes import run

PLACE, LOGITS = "adapters", "logits"


def build(directory: Path) -> int:
    """Write a backbone and one adapter of each method, all random, with the logits of each."""
    import torch

    from adapters import AdapterConfig
    from attacks.reference import TINY
    from third_party.models.t5 import T5Config, T5ForConditionalGeneration
    from third_party.models.t5.adapting import modify_model_after_init

    torch.manual_seed(0)
    base = directory / "base"
    config = T5Config(**TINY, vocab_size=120, dropout_rate=0.0, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(base)
    for name, keys in METHODS.items():
        model = T5ForConditionalGeneration.from_pretrained(base)
        modify_model_after_init(model, AdapterConfig(task_reduction_factor=4, tt_rank=2, **keys))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape)
        model.save_adapter(directory / name)
        load(directory / name, directory / f"{name}.{LOGITS}")
    return 0


def load(directory: Path, logits: Path) -> int:
    """Load an adapted model as the program does, and write its logits."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from common.errors import ConfigError
    from seq2seq.arguments import ModelArguments
    from seq2seq.models import load_backbone

    disable_progress_bar()
    try:
        model = load_backbone(ModelArguments(model_name_or_path=str(directory)), tokenizer=()).eval()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ids = torch.arange(3, 45).reshape(3, 14)
    with torch.no_grad():
        found = model(input_ids=ids, labels=ids[:, :5].contiguous()).logits
    logits.write_bytes(found.float().numpy().tobytes())
    return 0


def prepare(reference: Path) -> None:
    """Make the adapters, unless they are there already."""
    if not (reference / PLACE / "done.json").exists():
        shutil.rmtree(reference / PLACE, ignore_errors=True)
        (reference / PLACE).mkdir(parents=True)
        ended = run(build, reference / PLACE, log=reference / "adapters.log")
        if ended.status != 0:
            raise RuntimeError("the adapters cannot be made: " + "\n".join(ended.errors[-5:]))
        (reference / PLACE / "done.json").write_text(json.dumps(sorted(METHODS)))


def attempt(trial: Trial) -> Outcome:
    rng, place = trial.random, trial.reference / PLACE
    name, other = rng.sample(sorted(METHODS), 2)
    directory, logits = trial.directory / name, trial.directory / LOGITS
    shutil.copytree(place / name, directory)
    what = f"{name}: {rng.choice(DAMAGES)(rng, directory, place / other)}"
    failure = run(load, directory, logits, log=trial.directory / "log").failure()
    if failure is not None:
        return Outcome(failure.verdict, f"{what}: {failure.what}")
    same = logits.read_bytes() == (place / f"{name}.{LOGITS}").read_bytes()
    return Outcome(IDENTICAL, what) if same else Outcome(WRONG, f"{what}: loaded, with other logits")


CAMPAIGN = Campaign("adapters", "damaged adapters", 1000, 4, attempt)
