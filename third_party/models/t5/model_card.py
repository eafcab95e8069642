"""The model card that is written beside an adapter: what it is, how to load it, its scores and its data."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from adapters import AdapterConfig
from third_party.models.t5.companions import DATA, content_of, scores_of

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

CARD = "README.md"
TAG = "t5-tensor-lab"
OURS = (f"library_name: {TAG}", f"tags: [{TAG}]")  # marks of a card that this module wrote
PLACE = "THIS DIRECTORY"  # where the adapter is; on the hub, its id takes this place
SHOWN = 20  # labels
LOADING = (
    "```python",
    "from third_party.models.t5 import T5ForConditionalGeneration",
    "",
    f'model = T5ForConditionalGeneration.from_pretrained("{PLACE}")',
    "```",
)
UNNAMED = ("Build the same backbone again, attach adapters with the same configuration, and call load_adapter.",)


def is_ours(path: Path) -> bool:
    """True unless a file at `path` is a card that somebody else wrote, which is kept."""
    return not path.exists() or any(mark in path.read_text(errors="replace") for mark in OURS)


def model_card(model: "T5ForConditionalGeneration", description: dict[str, Any], weights: str) -> str:
    """The card of an adapter in our format, in Markdown.

    description: the content of `lab_adapter.json`.
    weights: SHA-256 of the adapter's tensors, by which its scores are known to be its own.
    """
    defaults = AdapterConfig().to_dict()
    changed = {key: value for key, value in description["adapter_config"].items() if value != defaults[key]}
    return _card(
        model,
        [OURS[0]],
        description["method"] or "Trained parts of a T5",
        LOADING if description["base_model"] else UNNAMED,
        weights,
        [f"Tasks: {', '.join(description['tasks'])}. Keys that differ from their defaults: `{json.dumps(changed)}`."],
    )


def peft_card(model: "T5ForConditionalGeneration", content: dict[str, Any], package: str | None, weights: str) -> str:
    """The card of an adapter in peft's format.

    content: that of its `adapter_config.json`.
    package: what must be imported, as it registers the method with peft; None: nothing.
    weights: as for `model_card`.
    """
    imports = [f"import {package}  # without it, peft ends in KeyError: '{content['peft_type']}'"] if package else []
    loading = [
        "```python",
        *imports,
        "from peft import PeftModel",
        "from transformers import T5ForConditionalGeneration",
        "",
        f'base = T5ForConditionalGeneration.from_pretrained("{_base(model)}")',
        f'model = PeftModel.from_pretrained(base, "{PLACE}")',
        "```",
    ]
    last = f"Written in the format of peft {content['peft_version']}."
    return _card(model, ["library_name: peft", OURS[1]], content["peft_type"], loading, weights, [last])


def _card(
    model: "T5ForConditionalGeneration",
    header: Sequence[str],
    title: str,
    loading: Sequence[str],
    weights: str,
    last: Sequence[str],
) -> str:
    base, size = _base(model), model.backbone_size
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        "---",
        *([f"base_model: {base}"] if base and model.backbone_path is None else []),
        *header,
        "---",
        f"# {title}",
        "",
        f"Trained on {base or 'a backbone without a name'}: {trained:,} parameters, {100 * trained / size:.3f}% of the "
        f"backbone's {size:,}. The backbone is not included.",
        "",
        *loading,
        "",
        *_scores(model, weights),
        *_data(model),
        *last,
        f"Written with torch {torch.__version__} and transformers {transformers.__version__}.",
    ]
    return "\n".join(lines) + "\n"


def _base(model: "T5ForConditionalGeneration") -> str:
    """The name of the backbone; of one in a local directory the directory's last part only."""
    return os.path.basename(model.backbone_path) if model.backbone_path else model.name_or_path


def _scores(model: "T5ForConditionalGeneration", weights: str) -> list[str]:
    """A table of the scores, if they were measured with these weights."""
    rows = [
        f"| {row['data']} | {row['split']} | {row['rows']:,} | {row['metric']} | {row['score']:.2f} |"
        for row in scores_of(model, weights)
    ]
    return ["| data | split | rows | metric | score |", "|---|---|---|---|---|", *rows, ""] if rows else []


def _data(model: "T5ForConditionalGeneration") -> list[str]:
    """How sources and targets are made, if run_seq2seq.py trained the model."""
    saved = content_of(model, DATA)
    lines, data = [], saved.get("data", {})
    if data.get("source_template"):
        lines.append(f"Sources are made by the template `{json.dumps(data['source_template'], ensure_ascii=False)}`.")
    for task, words in saved.get("words", {}).items():
        shown = [f"{label} (as `{word}`)" if word != label else label for label, word in list(words.items())[:SHOWN]]
        more = f" and {len(words) - SHOWN:,} more" if len(words) > SHOWN else ""
        if shown:
            lines.append(f"Labels of {task}: {', '.join(shown)}{more}.")
    if lines and saved.get("tasks"):
        lines.append(f"`python predict.py {PLACE} FILE` answers the rows of a file.")
    return [*lines, ""] if lines else []
