"""Read the JSON file of a run and its `--key value` overrides, and check every key before anything is built."""

from __future__ import annotations

import ast
import importlib.util
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import AdapterConfig
from common.errors import ConfigError
from common.json_settings import check_keys, describe, read_file, read_overrides
from common.json_text import not_finite
from common.keys import key_fields, key_types
from common.secrets import without_secrets
from seq2seq.arguments import DataTrainingArguments, ModelArguments, OwnTrainingArguments
from seq2seq.translation import (
    Notes,
    apply_dialect,
    carry_along,
    current_keys,
    current_values,
    dialect_of,
    follow_evaluation,
    remark_on_kaiming_zero,
)

if TYPE_CHECKING:  # transformers takes seconds to import, so the keys are checked first
    from seq2seq.training_arguments import TrainingArguments

PROGRAM = "run_seq2seq.py"
MOST_MEMBERS = 1000  # of a series
OWN_CLASSES = (AdapterConfig, ModelArguments, DataTrainingArguments, OwnTrainingArguments)


@dataclass
class Settings:
    """A complete configuration.

    adapter, model, data, training: the keys of each dataclass.
    given: the checked keys and values that they were built from.
    """

    adapter: AdapterConfig
    model: ModelArguments
    data: DataTrainingArguments
    training: TrainingArguments
    given: dict[str, Any]

    @property
    def method(self) -> str:
        """The name of the trained method, "full fine-tuning" or "none"."""
        return self.adapter.method or ("none" if self.adapter.freeze_backbone else "full fine-tuning")

    def resolved(self) -> dict[str, Any]:
        """Return our keys with their values, and transformers' keys that were set, except secrets.

        As a file, it repeats the run.
        """
        return {**own_defaults(), **without_secrets(self.given)}


def load_settings(path: str, overrides: list[str]) -> tuple[Settings, Notes]:
    """Return the checked settings of a JSON file with `--key value` overrides, and notes on how the keys were read.

    An override's value is read as JSON, or else as a string. Raises ConfigError.
    """
    twice: list[str] = []
    file = read_file(path, twice.append)
    return settings_of(path, file, read_overrides(overrides, transformers_keys() | own_keys()), twice)


def settings_of(
    path: str, file: dict[str, Any], command_line: dict[str, Any], twice: Sequence[str] = ()
) -> tuple[Settings, Notes]:
    """Return the checked settings of the content of a file, with values that override it; see `load_settings`.

    path: of the file; its stem names the experiment if no key does.
    twice: keys that the file sets to several values.
    """
    ours, theirs, notes = own_keys(), transformers_keys(), Notes()
    dialect = dialect_of(file, command_line)
    if twice and dialect is None:  # files of the ancestors, whose parser did not mind, run as they did
        raise ConfigError(f"{path} sets {twice[0]} twice, to different values; set it once")
    notes.changed += [f"{key} is set twice, and the last value counts" for key in twice]
    from_file, from_command_line = current_keys(file, notes), current_keys(command_line, notes)
    carry_along(from_file, from_command_line, notes)
    values = current_values({**from_file, **from_command_line, "dialect": None}, notes)
    check_keys(values, dict.fromkeys(theirs, Any) | ours, PROGRAM)
    check_keys(values, known_keys(), PROGRAM)
    values.setdefault("experiment_name", Path(path).stem)
    name = Path(values["experiment_name"])
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(
            f"experiment_name is {str(name)!r}; it must be a relative path without '..', as it names a directory below "
            "outputs/; for any other path set output_dir"
        )
    if dialect is not None:
        values = apply_dialect(dialect, values, set(from_command_line), notes)
    older = "evaluation_strategy" in {**file, **command_line}
    follow_evaluation(values, set(from_command_line), older, notes)
    values.setdefault("output_dir", str(Path("outputs", name)))
    try:
        settings = build(values)
    except ConfigError as error:  # which may name a key that the user did not write
        raise ConfigError(f"{error} ({notes.dialect})" if notes.dialect else str(error)) from None
    if "kaiming_zero" in (file.get("TTLoRA_init"), command_line.get("TTLoRA_init")):
        remark_on_kaiming_zero(settings.adapter, notes)
    return settings, notes


def own_keys() -> dict[str, Any]:
    """Return this project's keys with their types."""
    return {name: kind for cls in OWN_CLASSES for name, kind in key_types(cls).items()}


def own_defaults() -> dict[str, Any]:
    """Return this project's keys with their defaults."""
    return {f.name: f.default for cls in OWN_CLASSES for f in key_fields(cls)}


@cache
def known_keys() -> dict[str, Any]:
    """Return every key, including transformers', with its type."""
    from seq2seq.training_arguments import TrainingArguments

    types = typing.get_type_hints(TrainingArguments)
    for f in fields(TrainingArguments):
        if "choices" in f.metadata:
            types[f.name] = typing.Literal[*f.metadata["choices"], f.default]
    return {f.name: types[f.name] for f in fields(TrainingArguments) if f.init} | own_keys()


@cache
def transformers_keys() -> dict[str, type]:
    """Return the keys of Seq2SeqTrainingArguments, read from its source: bool for those that may be true, else str.

    Importing the class takes seconds; a misspelt key is reported without it.
    """
    package = importlib.util.find_spec("transformers")
    keys: dict[str, type] = {}
    for module in ("training_args.py", "training_args_seq2seq.py"):
        tree = ast.parse(Path(package.origin).with_name(module).read_text(encoding="utf-8"))
        for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for line in cls.body if cls.name.endswith("TrainingArguments") else ():
                if isinstance(line, ast.AnnAssign) and not line.target.id.startswith("_"):
                    keys[line.target.id] = bool if "bool" in ast.unparse(line.annotation).split(" | ") else str
    return keys


def print_keys() -> None:
    """Print this project's keys with type, default and help text."""
    known = own_keys()
    for cls in OWN_CLASSES:
        more = " (and all of transformers' Seq2SeqTrainingArguments)" if cls is OwnTrainingArguments else ""
        print(f"\n{cls.__name__.removeprefix('Own')}{more}")
        for f in key_fields(cls):
            print(f"  {f.name}: {describe(known[f.name])}, default {json.dumps(f.default)}\n      {f.metadata['help']}")


def build(values: dict[str, Any]) -> Settings:
    """Build the dataclasses from checked values."""
    from seq2seq.training_arguments import TrainingArguments

    data = _build_one(DataTrainingArguments, values)
    adapter = _build_one(AdapterConfig, values, tasks=data.tasks_of("train"))
    model, training = _build_one(ModelArguments, values), _build_one(TrainingArguments, values)
    sizes = data.low_resource if isinstance(data.low_resource, list) else []
    members = max(1, len(sizes)) * max(1, len(training.seeds or []))
    if members > MOST_MEMBERS:
        raise ConfigError(f"seeds and low_resource ask for {members:,} runs; the largest series has {MOST_MEMBERS:,}")
    for name, value in values.items():
        if not_finite(value) is not None:  # the classes know the ranges of single numbers, but not what objects hold
            raise ConfigError(f"{name} contains {not_finite(value)}; numbers must be finite")
    return Settings(adapter, model, data, training, values)


def _build_one(cls: type, values: dict[str, Any], **more: Any) -> Any:
    names = {f.name for f in fields(cls)}
    try:
        return cls(**{name: value for name, value in values.items() if name in names}, **more)
    except ConfigError:
        raise
    except (ValueError, TypeError, ImportError, OSError) as error:  # transformers' own checks, which name the key
        raise ConfigError(" ".join(str(error).split())) from None
