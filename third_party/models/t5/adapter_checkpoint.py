"""Small checkpoints: the tensors that cannot be rebuilt from the backbone, and what they belong to.

`adapter_model.safetensors` holds every parameter that is trained and every tensor of the adapters, trained or frozen;
`adapter_config.json` the method, the base model with a fingerprint of its weights, and the versions of the libraries;
`README.md` the same in words.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapters import AdapterConfig, AdapterPart
from common.errors import ConfigError
from common.files import replacing, write_file, write_json

WEIGHTS = "adapter_model.safetensors"
DESCRIPTION = "adapter_config.json"
CARD = "README.md"
LIBRARY = "library_name: t5-tensor-lab"  # by which a card of ours is known
LOADING = (
    "```python",
    "from third_party.models.t5 import T5ForConditionalGeneration",
    "",
    'model = T5ForConditionalGeneration.from_pretrained("THIS DIRECTORY")',
    "```",
)


@dataclass
class Description:
    """What `adapter_config.json` says: the configuration, the backbone's name if it has one, the tensors beside it."""

    adapter_config: AdapterConfig
    base_model: str | None
    base_fingerprint: "Fingerprint"
    tensors: list[str]


def holds_adapter(directory) -> bool:
    """Whether `directory` is one that `save` wrote."""
    return (Path(directory) / WEIGHTS).is_file() and (Path(directory) / DESCRIPTION).is_file()


def first_names(model) -> dict[torch.Tensor, str]:
    """Parameter or buffer -> its name; one that is shared or tied has several, of which this is the first."""
    names = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(tensor, name)
    return names


def part_tensors(model) -> dict[str, torch.Tensor]:
    """Name -> tensor of all that the adapters added, trained or not."""
    names = first_names(model)
    parts = [module for module in model.modules() if isinstance(module, AdapterPart)]
    return {names[tensor]: tensor for part in parts for tensor in part.state_dict(keep_vars=True).values()}


def adapter_tensors(model) -> dict[str, torch.Tensor]:
    """Name -> tensor of all that the backbone's file does not give back: what is trained, and all of the adapters."""
    names = first_names(model)
    trained = {names[parameter]: parameter for parameter in model.parameters() if parameter.requires_grad}
    return dict(sorted((part_tensors(model) | trained).items()))


def save(model, directory: Path):
    """Write all three files, each under another name first, so that a reader never meets half of one."""
    if model.adapter_config is None:
        raise ConfigError("the model has no adapters; save it whole with save_pretrained")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{str(directory)!r} cannot be a directory: {error.strerror}") from None
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_tensors(model).items()}
    description = {
        "method": model.adapter_config.method,
        "base_model": model.name_or_path or None,
        "base_fingerprint": asdict(Fingerprint.of(model, tensors)),
        "tasks": list(model.adapter_config.tasks),
        "adapter_config": model.adapter_config.to_dict(),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    with replacing(directory / WEIGHTS) as unfinished:
        save_file(tensors, unfinished, metadata={"format": "pt"})
    if not (directory / CARD).exists() or LIBRARY in (directory / CARD).read_text(errors="replace"):
        write_file(directory / CARD, card(model, description))
    write_json(directory / DESCRIPTION, description)


def card(model, description: dict) -> str:
    """The model card, in Markdown."""
    base, defaults = description["base_model"], AdapterConfig().to_dict()
    changed = {key: value for key, value in description["adapter_config"].items() if value != defaults[key]}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        "---",
        *([f"base_model: {base}"] if base else []),
        LIBRARY,
        "---",
        f"# {description['method'] or 'Trained parts of a T5'}",
        "",
        f"What was trained on {base or 'a backbone that has no name'}: {trained:,} parameters, "
        f"{100 * trained / model.backbone_size:.3f}% of the backbone's {model.backbone_size:,}. The backbone is not "
        "here.",
        "",
        *(
            LOADING
            if base
            else ["Build that backbone again, attach adapters of the same configuration, and call load_adapter."]
        ),
        "",
        f"Tasks: {', '.join(description['tasks'])}. Keys that differ from their defaults: `{json.dumps(changed)}`.",
        f"Written with torch {torch.__version__} and transformers {transformers.__version__}.",
    ]
    return "\n".join(lines) + "\n"


@dataclass
class Fingerprint:
    """Of a backbone: some entries of each tensor. digest: of their bytes, in `dtype`; sums: for another precision."""

    dtype: str
    digest: str
    sums: list[float]

    @classmethod
    @torch.no_grad()
    def of(cls, model, left_out) -> "Fingerprint":
        """left_out: names of the tensors that are not the backbone's."""
        digest, sums, square = hashlib.sha256(), [0.0] * 8, 0.0
        for tensor, name in sorted(first_names(model).items(), key=lambda item: item[1]):
            if name in left_out or tensor.is_meta:
                continue
            entries = tensor.flatten()[:: max(1, tensor.numel() // 64)][:64].cpu()
            digest.update(entries.contiguous().view(torch.uint8).numpy().tobytes())
            signed = entries.double() * torch.tensor([1.0, -1.0]).repeat(32)[: len(entries)]
            sums[len(name) % 8] += signed.sum().item()
            square += signed.square().sum().item()
        return cls(str(model.dtype), digest.hexdigest(), [math.sqrt(square), *sums])

    def fits(self, other: "Fingerprint") -> bool:
        """Whether both are of one backbone: exactly, or to rounding where the precisions differ."""
        if self.dtype == other.dtype:
            return self.digest == other.digest
        return all(abs(a - b) <= 0.02 * self.sums[0] for a, b in zip(self.sums, other.sums, strict=True))


def read_description(directory: Path) -> Description:
    """Read `adapter_config.json`. Raises ConfigError if it is not one of ours."""
    try:
        content = json.loads((directory / DESCRIPTION).read_text())
        config = AdapterConfig(tasks=tuple(content["tasks"]), **content["adapter_config"])
        base = Fingerprint(**content["base_fingerprint"])
        return Description(config, content["base_model"], base, list(content["tensors"]))
    except ConfigError as error:
        raise ConfigError(f"{directory / DESCRIPTION}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{directory / DESCRIPTION} is no adapter description of this project: {error!r}") from None


def load(model, directory: Path):
    """Copy the saved tensors into `model`, whose adapters are attached. ConfigError lists what does not fit."""
    description = read_description(directory)
    try:
        saved = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{directory / WEIGHTS} cannot be read: {error}") from None
    state = model.state_dict(keep_vars=True)
    required = {*description.tensors, *part_tensors(model)}
    missing, unexpected = sorted(required - saved.keys()), sorted(saved.keys() - state.keys())
    if missing or unexpected:
        raise ConfigError(f"{directory / WEIGHTS} does not fit the model: missing {missing}, unexpected {unexpected}")
    wrong = [f"{n} {tuple(t.shape)} for {tuple(state[n].shape)}" for n, t in saved.items() if t.shape != state[n].shape]
    if wrong:
        raise ConfigError(f"{directory / WEIGHTS} does not fit the model: shapes {', '.join(wrong)}")
    _check_configuration(model, description, directory)
    if not description.base_fingerprint.fits(Fingerprint.of(model, saved)):
        raise ConfigError(
            f"{directory} was trained on {description.base_model or 'a backbone without a name'}, whose weights were "
            "others than those of this model; adapters fit the backbone that they were trained on"
        )
    for module in model.modules():
        if isinstance(module, AdapterPart):
            module.check_saved({state[name]: tensor for name, tensor in saved.items()})
    with torch.no_grad():
        for name, tensor in saved.items():
            state[name].copy_(tensor)


def _check_configuration(model, description: Description, directory: Path) -> None:
    there = description.adapter_config.what_is_trained()
    here = model.adapter_config.what_is_trained() if model.adapter_config else {}
    wrong = [
        f"{key} is {value!r}, in the model {here.get(key)!r}" for key, value in there.items() if here.get(key) != value
    ]
    if wrong:
        raise ConfigError(f"{directory} holds adapters of another configuration than the model's: {'; '.join(wrong)}")
