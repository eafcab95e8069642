"""`lab_adapter.json`: what the files of a saved adapter contain, and where its backbone is.

Up to version 0.1.0 the file was called `adapter_config.json`, which is also peft's name for a file of its own.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import AdapterConfig
from common.checksums import KEY, damage, is_sealed
from common.errors import ConfigError, type_and_line, warn_once
from common.json_settings import check_keys, describe, has_type, read_file
from common.keys import key_types
from third_party.models.t5.configuration_t5 import SHIPPED
from third_party.models.t5.fingerprint import Fingerprint
from third_party.models.t5.shared_branches import with_shared_branches

WEIGHTS = "adapter_model.safetensors"
DESCRIPTION = "lab_adapter.json"
PEFT_CONFIG = "adapter_config.json"  # also the name of our own descriptions up to version 0.1.0
TYPES = {
    "adapter_config": dict,
    "base_model": str | None,
    "base_path": str | None,
    "base_fingerprint": dict,
    "tasks": list[str],
    "tensors": dict,
}
FINGERPRINT_TYPES = {"dtype": str, "digest": str, "sums": list[float]}


@dataclass
class Description:
    """The content of `lab_adapter.json`.

    adapter_config: the configuration of the adapters.
    base_model: name of the backbone as it was given, if it has one.
    base_path: where the backbone was, if it was a local directory; None also in files of the first version.
    base_fingerprint: fingerprint of the backbone's weights; None if an adapter of peft has none.
    tensors: name -> shape of the tensors in `adapter_model.safetensors`.
    """

    adapter_config: AdapterConfig
    base_model: str | None
    base_path: str | None
    base_fingerprint: Fingerprint | None
    tensors: dict[str, list[int]]


def holds_adapter(directory: str | os.PathLike | None) -> bool:
    """True if `directory` has a file of an adapter, even if another is missing."""
    return directory is not None and any(
        os.path.isfile(os.path.join(directory, file)) for file in (WEIGHTS, DESCRIPTION, PEFT_CONFIG)
    )


def description_path(directory: Path) -> Path:
    """The description of the adapter in `directory`, under its present name unless only the older one is there."""
    path, older = directory / DESCRIPTION, directory / PEFT_CONFIG
    return older if older.is_file() and not path.is_file() else path


def holds_peft(directory: Path) -> bool:
    """True if `directory` has a description of peft, which our own never resemble: theirs alone have a peft_type.

    Raises ConfigError if there is one of ours as well, as one of the two does not describe the weights.
    """
    path = directory / PEFT_CONFIG
    try:
        found = path.is_file() and "peft_type" in read_file(path)
    except ConfigError:  # damaged; whoever reads it says so
        found = False
    if found and (directory / DESCRIPTION).is_file():
        raise ConfigError(
            f"{directory} contains an adapter of peft ({PEFT_CONFIG}) and one of this project ({DESCRIPTION}), with "
            "one file of weights; keep each in a directory of its own"
        )
    return found


def read_description(directory: Path) -> Description:
    """Read `lab_adapter.json` and compare the adapter's files with their checksums.

    Raises ConfigError if it was not written by `save_adapter`, or if a file was changed since.
    """
    path = description_path(directory)
    if holds_peft(directory):
        raise ConfigError(f"{directory} contains an adapter of peft, not one that save_adapter wrote")
    try:
        content = read_file(path)
        _check_damage(content, path)
        found = _description(content)
        found.adapter_config = with_shared_branches(found.adapter_config, found.tensors, directory)
        return found
    except ConfigError as error:
        text = " ".join(str(error).split())  # a name in the file may have a line break
        raise ConfigError(text if str(error).startswith(str(directory)) else _refusal(path, text)) from None
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ConfigError(_refusal(path, type_and_line(error))) from None


def _refusal(path: Path, why: str) -> str:
    return f"{path} is not an adapter description of this project: {why}"


def _check_damage(content: dict[str, Any], path: Path) -> None:
    directory, name = path.parent, path.name
    if not is_sealed(content):
        warn_once(f"{path} has no checksums, so damage to the adapter cannot be noticed")
        return
    found = damage(content, directory, name)
    if found is not None:
        own = f'; if that was intended, remove its "{KEY}" entry to load it without the check'
        other = "; copy the adapter again"
        raise ConfigError(
            f"{directory} is damaged and cannot be read: {found}{own if found.startswith(name) else other}"
        )


def _description(content: dict[str, Any]) -> Description:
    content = {"base_path": None, **content}
    _check_types(content, TYPES)
    config, fingerprint, tensors = content["adapter_config"], content["base_fingerprint"], content["tensors"]
    check_keys(config, key_types(AdapterConfig), "run_seq2seq.py")
    base = read_fingerprint(fingerprint)
    for name in ("base_model", "base_path"):
        if content[name] is not None and not content[name].isprintable():
            raise ConfigError(f"{name} is {content[name][:80]!r}; it must be a name or a path")
    if not content["tasks"] or not all(content["tasks"]):
        raise ConfigError("tasks is empty or contains an empty name")
    for name, shape in tensors.items():
        if not has_type(shape, list[int]):
            raise ConfigError(f"tensors: {name} is {str(shape)[:80]}; it must be the shape, a list of whole numbers")
    adapter_config = AdapterConfig(tasks=tuple(content["tasks"]), **config)
    return Description(adapter_config, content["base_model"], content["base_path"], base, tensors)


def read_fingerprint(content: dict[str, Any]) -> Fingerprint:
    """Return the fingerprint of a description. Raises ConfigError if it cannot be one."""
    _check_types(content, FINGERPRINT_TYPES)
    base = Fingerprint(**{name: content[name] for name in FINGERPRINT_TYPES})
    if not base.is_valid:
        raise ConfigError("base_fingerprint is not that of a backbone: its dtype or sums cannot be right")
    return base


def _check_types(content: dict[str, Any], types: dict[str, Any]) -> None:
    for name, annotation in types.items():
        if name not in content:
            raise ConfigError(f"it has no {name}")
        if not has_type(content[name], annotation):
            raise ConfigError(f"{name} is {str(content[name])[:80]!r}; it must be {describe(annotation)}")


def named_base(directory: Path) -> tuple[str | None, str | None]:
    """The backbone of an adapter, of ours or of peft: its name as given, and where it was if it was a local directory.

    Raises ConfigError if the description cannot be read.
    """
    if not holds_peft(directory):
        description = read_description(directory)
        return description.base_model, description.base_path
    content, path = read_file(directory / PEFT_CONFIG), directory / PEFT_CONFIG
    name, revision = content.get("base_model_name_or_path"), content.get("revision")
    if name is not None and not (isinstance(name, str) and name.isprintable()):
        raise ConfigError(f"{path}: base_model_name_or_path is {str(name)[:80]!r}; it must be a name or a path")
    if revision not in (None, "main"):
        raise ConfigError(
            f"{path}: revision is {str(revision)[:80]!r}; load that backbone with from_pretrained(.., revision=..), "
            "attach the same adapters and call load_adapter"
        )
    shipped = [known for known, place in SHIPPED.items() if name and os.path.realpath(name) == os.path.realpath(place)]
    return (shipped or [name])[0], None


def bases(directory: Path) -> list[str]:
    """Return the names under which the backbone may be loaded, the likeliest first.

    A local directory is looked for as given, where it was when the adapter was saved, and relative to the adapter.
    directory: that of the adapter.
    Raises ConfigError, saying where it looked, if there is none.
    """
    given, recorded = named_base(directory)
    if not given:
        raise ConfigError(
            f"{directory} was trained on a backbone that was never saved; build that backbone and call load_adapter"
        )
    if given in SHIPPED:
        return [given]
    looked: dict[str, str] = {}
    for path in (given, recorded, os.path.join(directory, given)):
        if path:
            looked.setdefault(os.path.realpath(path), path)
    found = [path for path in looked.values() if os.path.isdir(path)]
    usable = [path for path in found if not holds_adapter(path)]
    if usable or not found and recorded is None:
        return usable or [given]  # an id of the hub
    why = {path: "an adapter, not a backbone" if path in found else "not a directory" for path in looked.values()}
    raise ConfigError(missing_base(directory, given, why))


def missing_base(directory: Path, given: str, looked: dict[str, str]) -> str:
    """Say that an adapter's backbone was not found. looked: where -> why it is not the backbone."""
    places = "; ".join(f"{place} ({why})" for place, why in looked.items())
    return (
        f"the backbone {given!r} of the adapter in {directory} was not found; looked at: {places}; put it there, or "
        "attach the adapter to it with load_adapter"
    )


def try_bases(directory: Path, load: Callable[[str], Any], errors: tuple) -> Any:
    """Return `load(base)` of the first backbone that it accepts. Raises ConfigError with all reasons if there is none.

    errors: the exceptions by which `load` refuses a backbone.
    """
    reasons = {}
    for base in bases(directory):
        try:
            return load(base)
        except errors as error:
            reasons[base] = type_and_line(error) if not isinstance(error, ConfigError) else str(error)
    raise ConfigError(missing_base(directory, str(named_base(directory)[0]), reasons))
