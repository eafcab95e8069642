"""Adapters on the Hugging Face hub: found there or in its local cache, and uploaded without their backbone."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import cached_file

from common.errors import ConfigError, one_line
from third_party.models.t5.adapter_description import DESCRIPTION, PEFT_CONFIG, WEIGHTS, holds_adapter
from third_party.models.t5.companions import COMPANIONS
from third_party.models.t5.configuration_t5 import SHIPPED
from third_party.models.t5.model_card import CARD, PLACE

OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
QUIET = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}


def adapter_directory(name: str | os.PathLike | None, options: Mapping[str, Any] | None = None) -> Path | None:
    """Return the directory of an adapter, on the hub that of its files in the local cache; None if it is none.

    name: a local directory or a hub id.
    options: arguments of `from_pretrained`, of which those about places are used.
    """
    used = {key: options[key] for key in OPTIONS if options and options.get(key) is not None}
    place = None if name is None else Path(name, used.get("subfolder", ""))
    if place is None or holds_adapter(place):
        return place
    if os.path.isdir(name) or str(name) in SHIPPED:
        return None
    found = next((path for file in (DESCRIPTION, PEFT_CONFIG) if (path := _cached(name, file, used))), None)
    for file in (WEIGHTS, *COMPANIONS) if found else ():
        _cached(name, file, used)  # into the same directory
    return found and Path(found).parent


def _cached(name: str | os.PathLike, file: str, options: dict[str, Any]) -> str | None:
    try:
        return cached_file(str(name), file, **QUIET, **options)
    except (OSError, ValueError):  # no id of the hub, or no such repository; whoever loads it says so
        return None


def upload(directory: Path, repo_id: str, **options: Any) -> str:
    """Upload the files of an adapter to the hub, into a repository that is made if there is none; return its address.

    options: private, token, revision, create_pr and commit_message, as those of transformers' `push_to_hub`.
    Raises ConfigError if the hub refuses, or cannot be reached.
    """
    card = directory / CARD
    card.write_text(card.read_text().replace(PLACE, repo_id))
    private, token = options.pop("private", None), options.pop("token", None)
    try:
        address = huggingface_hub.create_repo(repo_id, private=private, token=token, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repo_id, folder_path=directory, token=token, **options)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(f"{repo_id} was not uploaded: {one_line(error)}") from None
    return str(address)
