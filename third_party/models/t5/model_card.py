"""The model card that is written beside an adapter."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from adapters import AdapterConfig
from third_party.models.t5.configuration_t5 import SHIPPED

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

CARD = "README.md"
LIBRARY_TAG = "library_name: t5-tensor-lab"  # marks a model card as ours
PEFT_TAG = "tags: [t5-tensor-lab]"  # marks a card of ours of an adapter in peft's format
LOADING_EXAMPLE = (
    "```python",
    "from third_party.models.t5 import T5ForConditionalGeneration",
    "",
    'model = T5ForConditionalGeneration.from_pretrained("THIS DIRECTORY")',
    "```",
)


PEFT_EXAMPLE = (
    "```python",
    "from peft import PeftModel",
    "from transformers import T5ForConditionalGeneration",
    "",
    'model = PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained("{base}"), "THIS DIRECTORY")',
    "```",
)


def is_ours(path: Path) -> bool:
    """True unless a file at `path` is a card that somebody else wrote, which is kept."""
    return not path.exists() or any(tag in path.read_text(errors="replace") for tag in (LIBRARY_TAG, PEFT_TAG))


def peft_card(model: "T5ForConditionalGeneration", content: dict[str, Any]) -> str:
    """The model card of an adapter in peft's format. content: that of its `adapter_config.json`."""
    local = model.backbone_path is not None or model.name_or_path in SHIPPED
    base = os.path.basename(model.backbone_path or model.name_or_path) if local else model.name_or_path
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        "---",
        *([] if local else [f"base_model: {base}"]),
        "library_name: peft",
        PEFT_TAG,
        "---",
        f"# {content['peft_type']}",
        "",
        f"Trained on {base}: {trained:,} parameters, {100 * trained / model.backbone_size:.3f}% of the backbone's "
        f"{model.backbone_size:,}. The backbone is not included.",
        "",
        *(line.format(base=base) for line in PEFT_EXAMPLE),
        "",
        f"Written in the format of peft {content['peft_version']}.",
    ]
    return "\n".join(lines) + "\n"


def model_card(model: "T5ForConditionalGeneration", description: dict[str, Any]) -> str:
    """The model card in Markdown. A backbone in a local directory is named by the directory's last part only."""
    base, local = description["base_model"], description["base_path"] is not None
    shown = os.path.basename(description["base_path"]) if local else base
    defaults = AdapterConfig().to_dict()
    changed = {key: value for key, value in description["adapter_config"].items() if value != defaults[key]}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        "---",
        *([f"base_model: {base}"] if base and not local else []),
        LIBRARY_TAG,
        "---",
        f"# {description['method'] or 'Trained parts of a T5'}",
        "",
        f"Trained on {shown or 'a backbone without a name'}: {trained:,} parameters, "
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
