"""The model card that is written beside an adapter."""

import json
import os
from typing import TYPE_CHECKING, Any

import torch
import transformers

from adapters import AdapterConfig

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

CARD = "README.md"
LIBRARY_TAG = "library_name: t5-tensor-lab"  # marks a model card as ours
LOADING_EXAMPLE = (
    "```python",
    "from third_party.models.t5 import T5ForConditionalGeneration",
    "",
    'model = T5ForConditionalGeneration.from_pretrained("THIS DIRECTORY")',
    "```",
)


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
