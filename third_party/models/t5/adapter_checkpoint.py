"""Small checkpoints: the tensors that cannot be rebuilt from the backbone, and a description of them.

`adapter_model.safetensors` contains every trained parameter and every tensor of the adapters, trained or frozen.
`adapter_config.json` contains the method, the base model with a fingerprint of its weights, and library versions.
`README.md` is a model card with the same information.
"""

import hashlib
import json
import math
import os
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from adapters import AdapterConfig, AdapterPart
from common.errors import ConfigError, one_line
from common.files import replacing, write_file, write_json

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

WEIGHTS = "adapter_model.safetensors"
DESCRIPTION = "adapter_config.json"
CARD = "README.md"
LIBRARY_TAG = "library_name: t5-tensor-lab"  # marks a model card as ours
LOADING_EXAMPLE = (
    "```python",
    "from third_party.models.t5 import T5ForConditionalGeneration",
    "",
    'model = T5ForConditionalGeneration.from_pretrained("THIS DIRECTORY")',
    "```",
)


@dataclass
class Description:
    """The content of `adapter_config.json`.

    adapter_config: the configuration of the adapters.
    base_model: name of the backbone, if it has one.
    base_fingerprint: fingerprint of the backbone's weights.
    tensors: names of the tensors in `adapter_model.safetensors`.
    """

    adapter_config: AdapterConfig
    base_model: str | None
    base_fingerprint: "Fingerprint"
    tensors: list[str]


def holds_adapter(directory: str | os.PathLike) -> bool:
    """True if `directory` was written by `save`."""
    return (Path(directory) / WEIGHTS).is_file() and (Path(directory) / DESCRIPTION).is_file()


def tensor_names(model: PreTrainedModel) -> dict[torch.Tensor, str]:
    """The name of each parameter and buffer; for shared or tied ones, which have several names, the first."""
    names: dict[torch.Tensor, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(tensor, name)
    return names


def added_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors that adapters added to the model, trained or frozen, by name."""
    names = tensor_names(model)
    parts = [module for module in model.modules() if isinstance(module, AdapterPart)]
    return {names[tensor]: tensor for part in parts for tensor in part.state_dict(keep_vars=True).values()}


def tensors_to_save(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors that cannot be restored from the backbone, by name: all trained ones and all of the adapters."""
    names = tensor_names(model)
    trained = {names[parameter]: parameter for parameter in model.parameters() if parameter.requires_grad}
    return dict(sorted((added_tensors(model) | trained).items()))


def save(model: "T5ForConditionalGeneration", directory: Path) -> None:
    """Write all three files, each under a temporary name first, so that no reader sees an incomplete one.

    Raises ConfigError if the model has no adapters or a file cannot be written.
    """
    if model.adapter_config is None:
        raise ConfigError("the model has no adapters; save the whole model with save_pretrained")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors_to_save(model).items()}
    description = {
        "method": model.adapter_config.method,
        "base_model": model.name_or_path or None,
        "base_fingerprint": asdict(Fingerprint.of(model, tensors)),
        "tasks": list(model.adapter_config.tasks),
        "adapter_config": model.adapter_config.to_dict(),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    try:
        with replacing(directory / WEIGHTS) as unfinished:
            save_file(tensors, unfinished, metadata={"format": "pt"})
    except SafetensorError as error:  # of a full disk, say
        raise ConfigError(f"{directory / WEIGHTS} cannot be written: {one_line(error)}") from None
    if not (directory / CARD).exists() or LIBRARY_TAG in (directory / CARD).read_text(errors="replace"):
        write_file(directory / CARD, model_card(model, description))
    write_json(directory / DESCRIPTION, description)


def model_card(model: "T5ForConditionalGeneration", description: dict[str, Any]) -> str:
    """The model card in Markdown."""
    base, defaults = description["base_model"], AdapterConfig().to_dict()
    changed = {key: value for key, value in description["adapter_config"].items() if value != defaults[key]}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        "---",
        *([f"base_model: {base}"] if base else []),
        LIBRARY_TAG,
        "---",
        f"# {description['method'] or 'Trained parts of a T5'}",
        "",
        f"Trained on {base or 'a backbone without a name'}: {trained:,} parameters, "
        f"{100 * trained / model.backbone_size:.3f}% of the backbone's {model.backbone_size:,}. The backbone is not "
        "included.",
        "",
        *(
            LOADING_EXAMPLE
            if base
            else ["Build the same backbone again, attach adapters with the same configuration, and call load_adapter."]
        ),
        "",
        f"Tasks: {', '.join(description['tasks'])}. Keys that differ from their defaults: `{json.dumps(changed)}`.",
        f"Written with torch {torch.__version__} and transformers {transformers.__version__}.",
    ]
    return "\n".join(lines) + "\n"


@dataclass
class Fingerprint:
    """A fingerprint of a backbone, computed from up to 64 entries of each tensor.

    dtype: dtype of the weights.
    digest: SHA-256 of the bytes of these entries, for an exact comparison.
    sums: their norm and signed sums, for a comparison with weights of another dtype.
    """

    dtype: str
    digest: str
    sums: list[float]

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, excluded: Container[str]) -> "Fingerprint":
        """Compute the fingerprint of `model`. excluded: names of tensors that do not belong to the backbone."""
        digest, sums, square = hashlib.sha256(), [0.0] * 8, 0.0
        for tensor, name in sorted(tensor_names(model).items(), key=lambda item: item[1]):
            if name in excluded or tensor.is_meta:
                continue
            entries = tensor.flatten()[:: max(1, tensor.numel() // 64)][:64].cpu()
            digest.update(entries.contiguous().view(torch.uint8).numpy().tobytes())
            signed = entries.double() * torch.tensor([1.0, -1.0]).repeat(32)[: len(entries)]
            sums[len(name) % 8] += signed.sum().item()
            square += signed.square().sum().item()
        dtype = getattr(model.shared, "compute_dtype", model.dtype)  # its weight may be trained, in float32
        return cls(str(dtype), digest.hexdigest(), [math.sqrt(square), *sums])

    def matches(self, other: "Fingerprint") -> bool:
        """True if both are of the same backbone: exactly, or up to rounding if the dtypes differ."""
        if self.dtype == other.dtype:
            return self.digest == other.digest
        return all(abs(a - b) <= 0.02 * self.sums[0] for a, b in zip(self.sums, other.sums, strict=True))


def read_description(directory: Path) -> Description:
    """Read `adapter_config.json`. Raises ConfigError if it was not written by `save`."""
    try:
        content = json.loads((directory / DESCRIPTION).read_text())
        config = AdapterConfig(tasks=tuple(content["tasks"]), **content["adapter_config"])
        base = Fingerprint(**content["base_fingerprint"])
        return Description(config, content["base_model"], base, list(content["tensors"]))
    except ConfigError as error:
        raise ConfigError(f"{directory / DESCRIPTION}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{directory / DESCRIPTION} is not an adapter description of this project: {error!r}"
        ) from None


def load(model: "T5ForConditionalGeneration", directory: Path) -> None:
    """Copy the saved tensors into `model`, which has its adapters attached already.

    Raises ConfigError, listing the differences, if names, shapes, configuration or backbone do not match.
    """
    description = read_description(directory)
    try:
        saved = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{directory / WEIGHTS} cannot be read: {error}") from None
    state = model.state_dict(keep_vars=True)
    required = {*description.tensors, *added_tensors(model)}
    missing, unexpected = sorted(required - saved.keys()), sorted(saved.keys() - state.keys())
    if missing or unexpected:
        raise ConfigError(f"{directory / WEIGHTS} does not match the model: missing {missing}, unexpected {unexpected}")
    wrong = [
        f"{n} is {tuple(t.shape)}, in the model {tuple(state[n].shape)}"
        for n, t in saved.items()
        if t.shape != state[n].shape
    ]
    if wrong:
        raise ConfigError(f"{directory / WEIGHTS} does not match the model: shape mismatch: {', '.join(wrong)}")
    _check_configuration(model, description, directory)
    if not description.base_fingerprint.matches(Fingerprint.of(model, saved)):
        raise ConfigError(
            f"{directory} was trained on {description.base_model or 'a backbone without a name'}, whose weights differ "
            "from this model's; load the adapters into the backbone that they were trained on"
        )
    for module in model.modules():
        if isinstance(module, AdapterPart):
            module.check_saved({state[name]: tensor for name, tensor in saved.items()})
    with torch.no_grad():
        for name, tensor in saved.items():
            state[name].copy_(tensor)


def _check_configuration(model: "T5ForConditionalGeneration", description: Description, directory: Path) -> None:
    saved = description.adapter_config.structural_keys()
    current = model.adapter_config.structural_keys() if model.adapter_config else {}
    wrong = [
        f"{key} is {value!r}, in the model {current.get(key)!r}"
        for key, value in saved.items()
        if current.get(key) != value
    ]
    if wrong:
        raise ConfigError(
            f"{directory} contains adapters of another configuration than the model's: {'; '.join(wrong)}"
        )
