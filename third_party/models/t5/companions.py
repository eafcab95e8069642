"""Files that travel with a trained model beside its weights: its tokenizer, how texts were made of data, its scores.

They are read with an adapter, and written with it or with the merged model. A model that was never trained by
run_seq2seq.py has its backbone's tokenizer.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import cached_file

from common.files import replacing
from common.json_settings import has_type
from third_party.models.t5.configuration_t5 import resolve_name

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

DATA = "data_config.json"
SCORES = "scores.json"  # of the adapter, with the SHA-256 of the weights that they belong to
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),  # of older versions of transformers
)
ROW = {"data": str, "split": str, "metric": str, "rows": int, "score": float}  # of the scores
COMPANIONS = (DATA, SCORES, *TOKENIZER)


def companions_in(directory: str | os.PathLike) -> dict[str, bytes]:
    """Return the companions in a directory, file name -> content."""
    paths = [Path(directory, name) for name in COMPANIONS]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def companions_of(model: "T5ForConditionalGeneration") -> dict[str, bytes]:
    """Return the companions of a model; if it has none, the tokenizer of its backbone, if that is on this machine."""
    if model.companions:
        return model.companions
    name = resolve_name(model.backbone_path or model.name_or_path or "")
    if not name:
        return {}
    if os.path.isdir(name):
        found = companions_in(name)
        return {file: content for file, content in found.items() if file in TOKENIZER}
    options = {"local_files_only": True, "_raise_exceptions_for_missing_entries": False}
    options["_raise_exceptions_for_connection_errors"] = False
    try:
        paths = [cached_file(name, file, **options) for file in TOKENIZER]
    except (OSError, ValueError):  # no id of the hub
        return {}
    return {file: Path(path).read_bytes() for file, path in zip(TOKENIZER, paths, strict=True) if path}


def write_companions(model: "T5ForConditionalGeneration", directory: Path, scores: bool = True) -> None:
    """Write the companions of a model. Raises ConfigError if a file cannot be written.

    scores: False for other weights than those of its adapter.
    """
    for name, content in companions_of(model).items():
        if name == SCORES and not scores:
            continue
        with replacing(directory / name) as unfinished:
            unfinished.write_bytes(content)


def content_of(model: "T5ForConditionalGeneration", name: str) -> dict[str, Any]:
    """The content of a JSON file among the companions of a model; empty if there is none, or no JSON object in it."""
    try:
        content = json.loads(model.companions.get(name, b"{}"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def scores_of(model: "T5ForConditionalGeneration", weights: str) -> list[dict[str, Any]]:
    """The scores that travel with a model, if they were measured with these weights.

    weights: SHA-256 of `adapter_model.safetensors`.
    """
    saved = content_of(model, SCORES)
    rows = saved.get("scores", []) if saved.get("weights") == weights else []
    return [row for row in rows if has_type(row, dict) and all(has_type(row.get(k), t) for k, t in ROW.items())]
