"""A trained model and its backbone before training, as networks to measure: what they make of a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from adapters import AdapterConfig
from adapters.merging import branched
from common.errors import ConfigError, warn_once
from common.keys import key_types
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments
from seq2seq.data import get_task
from seq2seq.data.batches import load_split
from seq2seq.data.token_cache import truncated
from seq2seq.data.verbalizer import encode
from seq2seq.models import load_named
from seq2seq.progress import bars_on_terminals_only
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.adapter_description import holds_adapter
from third_party.models.t5.adapting import modify_model_after_init

OUTPUTS = 4  # of a probe
CURVES = 8  # at most
RANDOM_LENGTH = 16  # tokens of a random source
NORM = "final_layer_norm"


class Probe(nn.Module):
    """The logits of the first token of a model's answer, along OUTPUTS fixed directions.

    The directions are random unit vectors in the space of logits whose entries sum to 0, as adding a number to all
    logits changes no probability.
    stacks: block -> name of the submodule here that returns the states behind it, for encoder and decoder; the last
        block of a stack is its final norm. States are those of the source's own tokens, without a prompt's.
    blocks: block -> name of the module here that holds its parameters.
    """

    def __init__(self, model: T5ForConditionalGeneration, task: str | None, seed: int):
        """Wrap a model, whose branches are no longer merged from now on.

        task: that of all rows; None for a model that need not be told.
        seed: seed of the directions.
        """
        super().__init__()
        self.model, self.task, self.length = model, task, 0
        for _, layer in branched(model):
            layer.merge_at_eval = False
            layer.unmerge()
        self.taps, self.stacks, self.blocks = nn.ModuleDict(), [], {}
        for name in ("encoder", "decoder"):
            paths = [f"{name}.block.{number}" for number in range(len(getattr(model, name).block))]
            self.stacks.append({path: self._tap(path) for path in (*paths, f"{name}.{NORM}")})
            self.blocks |= {path: f"model.{path}" for path in paths}
        directions = torch.randn(model.config.vocab_size, OUTPUTS, generator=torch.Generator().manual_seed(seed))
        directions = nn.functional.normalize(directions - directions.mean(0), dim=0)
        self.register_buffer("directions", directions.to(model.device))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (rows, OUTPUTS). x: tokens (rows, length) or embeddings (rows, length, d_model), without padding."""
        self.length = x.shape[1]
        start = torch.full((len(x), 1), self.model.config.decoder_start_token_id, device=x.device)
        given = {"inputs_embeds" if x.is_floating_point() else "input_ids": x, "decoder_input_ids": start}
        logits = self.model(**given, task=self.task, use_cache=False).logits
        return logits[:, 0] @ self.directions

    def _tap(self, path: str) -> str:
        """Let a submodule return the states behind the module at `path` whenever that runs, and return its name."""
        name = path.replace(".", "_")
        self.taps[name] = nn.Identity()

        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            self.taps[name](states[:, -self.length :])  # a prompt stands in front

        self.model.get_submodule(path).register_forward_hook(hook)
        return f"taps.{name}"


@dataclass(frozen=True)
class Probes:
    """What is measured of a run.

    adapted, backbone: the trained model, and its backbone as it was before training, all of which counts as trained.
    inputs: sources, (1, length) tokens each.
    pairs: the embeddings in the backbone of two sources of about the same length, (length, d_model) each.
    source: what the sources are, in words.
    """

    adapted: Probe
    backbone: Probe
    inputs: list[torch.Tensor]
    pairs: list[tuple[torch.Tensor, torch.Tensor]]
    source: str


def load_probes(directory: Path, configuration: dict[str, Any], task: str, inputs: int, seed: int) -> Probes:
    """Load a finished run and its backbone, both in float32, and draw sources.

    configuration: the resolved one of the run.
    task: the task whose sources and adapters are measured.
    inputs: number of sources.
    seed: draws the sources, and the directions of the outputs.
    Raises ConfigError if a model or its data cannot be used.
    """
    bars_on_terminals_only()
    adapter = _of(AdapterConfig, configuration, tasks=_of(DataTrainingArguments, configuration).tasks_of("train"))
    tokenizer = load_named("--model", str(directory), AutoTokenizer.from_pretrained)
    trained = load_named("--model", str(directory), T5ForConditionalGeneration.from_pretrained)
    if holds_adapter(directory):
        name = trained.backbone_path or trained.name_or_path
    else:
        name = configuration.get("model_name_or_path")
        modify_model_after_init(trained, adapter)  # nothing is attached; it says what was trained
    if name is None:
        raise ConfigError(
            f"--model is {str(directory)!r}, whose run trained a new model (model_name_or_path is null); there is no "
            "backbone to compare it with"
        )
    plain = load_named("model_name_or_path", name, T5ForConditionalGeneration.from_pretrained)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    switch = task if len(trained.task_switch.tasks) > 1 else None
    adapted, backbone = Probe(trained.to(device), switch, seed), Probe(plain.to(device), None, seed)
    tokens, source = _sources(configuration, task, not adapter.own_adapters, tokenizer, inputs, seed)
    rows = [torch.tensor([row], device=device) for row in tokens]
    return Probes(adapted, backbone, rows, _pairs(plain, rows), source)


def _of(cls: type, configuration: dict[str, Any], **more: Any) -> Any:
    return cls(**{name: configuration[name] for name in key_types(cls) if name in configuration}, **more)


def _sources(
    configuration: dict[str, Any], task: str, prefix: bool, tokenizer, count: int, seed: int
) -> tuple[list[list[int]], str]:
    """Return the tokens of random validation rows of a task, or of random ones if it has none here; and which it is."""
    data, generator = _of(DataTrainingArguments, configuration), torch.Generator().manual_seed(seed)
    split_seed = configuration.get("data_seed")
    try:
        made = get_task(task, data, SPLIT_SEED if split_seed is None else split_seed)
        texts = load_split(made, "validation", data, configuration.get("seed", 42), prefix)["source"][:]
    except ConfigError as error:
        warn_once(f"the validation rows of {task} cannot be read, so the inputs are random tokens: {error}")
        words = torch.randint(3, len(tokenizer), (count, RANDOM_LENGTH - 1), generator=generator).tolist()
        return [[*row, tokenizer.eos_token_id] for row in words], "random tokens"
    if len(texts) < count:
        raise ConfigError(f"--inputs is {count}; {task} has only {len(texts)} validation rows")
    chosen = torch.randperm(len(texts), generator=generator)[:count].tolist()
    tokens = encode([texts[row] for row in chosen], tokenizer)
    return truncated(tokens, data.max_source_length), f"validation rows of {task}"


@torch.no_grad()
def _pairs(backbone: nn.Module, inputs: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the embeddings of pairs of neighbours by length, at most CURVES, each cut to the shorter one."""
    ordered = sorted(inputs, key=lambda row: row.shape[1])
    pairs = list(zip(ordered[::2], ordered[1::2], strict=False))
    embed = backbone.get_input_embeddings()
    chosen = pairs[:: -(-len(pairs) // CURVES)]
    return [(embed(a)[0], embed(b)[0, : a.shape[1]]) for a, b in chosen]
