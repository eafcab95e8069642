"""Small checkpoints: the tensors that cannot be rebuilt from the backbone, and a description of them.

`adapter_model.safetensors` contains every trained parameter and every tensor of the adapters, trained or frozen.
`lab_adapter.json` contains the method, the base model with a fingerprint of its weights, library versions, and
checksums of both files.
`README.md` is a model card with the same information.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
import transformers
from safetensors import SafetensorError

from adapters import AdapterPart
from common.checksums import sealed, sha256_of
from common.errors import ConfigError, one_line
from common.files import replacing
from third_party.models.t5 import peft_format
from third_party.models.t5.adapter_description import (
    DESCRIPTION,
    PEFT_CONFIG,
    WEIGHTS,
    Description,
    description_path,
    holds_peft,
    read_description,
)
from third_party.models.t5.adapter_match import check_configuration, check_names, check_tensors
from third_party.models.t5.companions import SCORES, scores_of
from third_party.models.t5.configuration_t5 import T5Config
from third_party.models.t5.fingerprint import Fingerprint
from third_party.models.t5.loading import first
from third_party.models.t5.model_card import CARD, is_ours, model_card
from third_party.models.t5.saved_tensors import FLOATS, INTEGERS, tensors_to_save
from third_party.models.t5.sharding import fill, whole

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def save(model: "T5ForConditionalGeneration", directory: Path, writes: bool = True) -> None:
    """Write all three files, each under a temporary name first, so that no reader sees an incomplete one.

    writes: False in all but one of the processes of a run. If FSDP has spread the weights over them, all must call
        this.

    Raises ConfigError if the model has no adapters, if it has diverged, if the directory contains an adapter of peft,
    or if a file cannot be written.
    """
    if model.adapter_config is None:
        raise ConfigError("the model has no adapters; save the whole model with save_pretrained")
    if holds_peft(directory):
        raise ConfigError(f"{directory} contains an adapter of peft; save to another directory")
    tensors, fingerprint = _trained(model, directory)
    if not writes:
        return
    content = _written(tensors)
    description = {
        "method": model.adapter_config.method,
        "base_model": model.name_or_path or None,
        "base_path": model.backbone_path if model.name_or_path else None,
        "base_fingerprint": asdict(fingerprint),
        "tasks": list(model.adapter_config.tasks),
        "adapter_config": model.adapter_config.to_dict(),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    weights = _checked_scores(model, content)
    description = sealed(description, {WEIGHTS: weights})
    files = {DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(), WEIGHTS: content}
    if is_ours(directory / CARD):
        files[CARD] = model_card(model, description, weights).encode()
    with ExitStack() as renamed_last_to_first:  # all are written before the first is renamed
        for name, data in files.items():
            renamed_last_to_first.enter_context(replacing(directory / name)).write_bytes(data)
    (directory / PEFT_CONFIG).unlink(missing_ok=True)  # the same description, under its older name


def save_scores(
    model: "T5ForConditionalGeneration", directory: Path, rows: Sequence[dict[str, Any]], writes: bool = True
) -> None:
    """Write the scores of the adapter in `directory` beside it, and into its card; see `save`.

    rows: one for each score, with data, split, metric, rows and score; without any, nothing is written.
    """
    if not rows:
        return
    content = {"weights": sha256_of(directory / WEIGHTS), "scores": rows}
    model.companions[SCORES] = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    save(model, directory, writes)
    if not writes:
        return
    with replacing(directory / SCORES) as unfinished:
        unfinished.write_bytes(model.companions[SCORES])


def export_peft(model: "T5ForConditionalGeneration", directory: Path, task: str | None) -> None:
    """Write the adapters in peft's format; see `peft_format.export`."""
    tensors, fingerprint = _trained(model, directory)
    peft_format.export(model, directory, task, tensors, fingerprint, _checked_scores(model, _written(tensors)))


def _checked_scores(model: "T5ForConditionalGeneration", content: bytes) -> str:
    """Return the SHA-256 of what is written as weights; scores that are not of these weights are forgotten."""
    weights = hashlib.sha256(content).hexdigest()
    if not scores_of(model, weights):
        model.companions.pop(SCORES, None)
    return weights


def _written(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def _trained(model: "T5ForConditionalGeneration", directory: Path) -> tuple[dict[str, torch.Tensor], Fingerprint]:
    """The tensors to save, and the fingerprint of the rest. Raises ConfigError if a value is not finite."""
    kept = tensors_to_save(model).items()
    tensors = {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in kept}
    fingerprint = Fingerprint.of(model, tensors)
    diverged = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if diverged or not fingerprint.is_valid:
        raise ConfigError(
            f"{directory} was not written: the model has values that are not finite, such as in "
            f"{first(diverged) or 'the backbone'}; lower learning_rate"
        )
    return tensors, fingerprint


def load(model: "T5ForConditionalGeneration", directory: Path) -> None:
    """Copy the saved tensors into `model`, which has its adapters attached already.

    Raises ConfigError, listing the differences, if names, shapes, dtypes, configuration or backbone do not match, or if
    a file is damaged. Nothing is copied then.
    """
    description, saved = read(directory, model.config)
    state = model.state_dict(keep_vars=True)
    check_configuration(model, description, directory)
    check_names(model, description, directory)
    check_tensors(saved, state, directory)
    base = description.base_fingerprint
    if base is not None and not base.matches(Fingerprint.of(model, saved)):
        raise ConfigError(
            f"{directory} was trained on {description.base_model or 'a backbone without a name'}, whose weights differ "
            "from this model's; load the adapters into the backbone that they were trained on"
        )
    for module in model.modules():
        if isinstance(module, AdapterPart):
            module.check_saved({state[name]: tensor for name, tensor in saved.items()})
    for name, tensor in saved.items():
        fill(state[name], tensor)


def read(directory: Path, backbone: T5Config | None = None) -> tuple[Description, dict[str, torch.Tensor]]:
    """Read an adapter, ours or one of peft. Raises ConfigError if it is damaged, or if peft's is none of our methods.

    backbone: the configuration of its backbone, if that is known; it tells which layers peft left out.
    """
    if holds_peft(directory):
        return peft_format.read(directory, backbone)
    description = read_description(directory)
    return description, read_tensors(directory, description)


def read_tensors(directory: Path, description: Description) -> dict[str, torch.Tensor]:
    """Read `adapter_model.safetensors`. Raises ConfigError unless it has what `description` lists, all of it finite."""
    path, listed = directory / WEIGHTS, description_path(directory).name
    try:
        saved = safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}") from None
    for name, shape in description.tensors.items():
        if name in saved and list(saved[name].shape) != shape:
            raise ConfigError(f"{path} does not match {listed}: {name} is {list(saved[name].shape)}, there {shape}")
    absent, unlisted = sorted(description.tensors.keys() - saved.keys()), sorted(saved.keys() - description.tensors)
    if absent or unlisted:
        raise ConfigError(f"{path} does not match {listed}: missing {absent}, not listed there {unlisted}")
    strange = [f"{name} is {tensor.dtype}" for name, tensor in saved.items() if tensor.dtype not in FLOATS | INTEGERS]
    if strange:
        raise ConfigError(f"{path} is damaged: {first(strange)}")
    wild = [name for name, tensor in saved.items() if not tensor.isfinite().all()]
    if wild:
        raise ConfigError(f"{path} is damaged: it has values that are not finite, such as in {first(wild)}")
    return saved
