"""Files that travel with a trained model beside its weights: its tokenizer, and how texts were made of data.

They are read with an adapter, and written with it or with the merged model. A model that was never trained by
run_seq2seq.py has its backbone's tokenizer.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import cached_file

from common.files import replacing
from third_party.models.t5.configuration_t5 import resolve_name

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

DATA = "data_config.json"
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),  # of older versions of transformers
)


def companions_in(directory: str | os.PathLike) -> dict[str, bytes]:
    """Return the companions in a directory, file name -> content."""
    paths = [Path(directory, name) for name in (DATA, *TOKENIZER)]
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
        return {file: content for file, content in found.items() if file != DATA}
    options = {"local_files_only": True, "_raise_exceptions_for_missing_entries": False}
    options["_raise_exceptions_for_connection_errors"] = False
    try:
        paths = [cached_file(name, file, **options) for file in TOKENIZER]
    except (OSError, ValueError):  # no id of the hub
        return {}
    return {file: Path(path).read_bytes() for file, path in zip(TOKENIZER, paths, strict=True) if path}


def write_companions(model: "T5ForConditionalGeneration", directory: Path) -> None:
    """Write the companions of a model. Raises ConfigError if a file cannot be written."""
    for name, content in companions_of(model).items():
        with replacing(directory / name) as unfinished:
            unfinished.write_bytes(content)
