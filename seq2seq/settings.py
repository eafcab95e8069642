"""Reads a run's JSON file and its `--key value` overrides, and checks every key before anything is built."""

import json
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from adapters import AdapterConfig, ConfigError
from adapters.json_settings import check_keys, describe, read_file, read_overrides
from seq2seq.arguments import DataTrainingArguments, ModelArguments, TrainingArguments

# Keys of existing experiment files: the key of today, or None where the key no longer means anything.
LEGACY_KEYS = {
    "evaluation_strategy": "eval_strategy",
    "num_beams": "generation_num_beams",
    "use_tokenizer_fast": None,
    "kronecker_prod": None,
    "max_seq_length": None,
    "adapter_config_name": None,
    "dataset_config_name": None,
    "eval_dataset_config_name": None,
    "test_dataset_config_name": None,
    "split_validation_test": None,
    "pad_to_max_length": None,
    "ignore_pad_token_for_loss": None,
}
CLASSES = (AdapterConfig, ModelArguments, DataTrainingArguments, TrainingArguments)


@dataclass
class Settings:
    """A whole configuration: one object per dataclass, and `given`, the checked keys and values they were made from."""

    adapter: AdapterConfig
    model: ModelArguments
    data: DataTrainingArguments
    training: TrainingArguments
    given: dict

    @property
    def method(self) -> str:
        """What is trained, in a word or two."""
        return self.adapter.method or ("none" if self.adapter.freeze_backbone else "full fine-tuning")

    def resolved(self) -> dict:
        """Our keys with their values, and those of transformers' that were set: a file that repeats the run."""
        return {**_own_defaults(), **self.given}


def load_settings(path: str, overrides: list[str]) -> tuple[Settings, list[str]]:
    """The checked settings of a JSON file with `--key value` overrides, and warnings about legacy keys.

    An override's value is read as JSON, or as a string where it is no JSON. Raises ConfigError.
    """
    known = known_keys()
    in_file, warnings = map_legacy(read_file(path))
    on_line, more = map_legacy(read_overrides(overrides, known))
    values, warnings = {**in_file, **on_line}, warnings + more
    if values.get("load_best_model_at_end") and "eval_strategy" in values and "save_strategy" not in values:
        values["save_strategy"] = values[
            "eval_strategy"
        ]  # older files name one of the two, and transformers wants both
        warnings.append(f"save_strategy is taken to be {values['save_strategy']}, as eval_strategy")
    check_keys(values, known, "run_seq2seq.py")
    values.setdefault("experiment_name", Path(path).stem)
    name = Path(values["experiment_name"])
    if name.is_absolute() or ".." in name.parts:
        raise ConfigError(
            f"experiment_name is {str(name)!r}; it must be a name under outputs, output_dir may be any path"
        )
    values.setdefault("output_dir", str(Path("outputs", name)))
    return build(values), warnings


def map_legacy(values: dict) -> tuple[dict, list[str]]:
    """Replace the keys of older files; one warning line for each."""
    mapped, warnings = {}, []
    for name, value in values.items():
        if name not in LEGACY_KEYS:
            mapped[name] = value
            continue
        today = LEGACY_KEYS[name]
        warnings.append(f"{name} is now {today}" if today else f"{name} is no longer needed and is ignored")
        if today in values:
            raise ConfigError(f"{name} and {today} are the same key; set only {today}")
        if today:
            mapped[today] = value
    return mapped, warnings


def known_keys() -> dict[str, object]:
    """Every key and its type."""
    types_of = {cls: typing.get_type_hints(cls) for cls in CLASSES}
    return {
        f.name: typing.Literal[*f.metadata["choices"], f.default] if "choices" in f.metadata else types_of[cls][f.name]
        for cls in CLASSES
        for f in fields(cls)
        if f.init and not f.metadata.get("runtime")
    }


def own_fields(cls) -> list:
    """The fields of a configuration dataclass that are keys and are defined by this project."""
    return [f for f in fields(cls) if f.name in cls.__annotations__ and not f.metadata.get("runtime")]


def print_keys() -> None:
    """Every key of ours with its type, default and help text."""
    known = known_keys()
    for cls in CLASSES:
        print(
            f"\n{cls.__name__}"
            + (" (and all of transformers' Seq2SeqTrainingArguments)" if cls is TrainingArguments else "")
        )
        for f in own_fields(cls):
            print(f"  {f.name}: {describe(known[f.name])}, default {json.dumps(f.default)}\n      {f.metadata['help']}")


def build(values: dict) -> Settings:
    """The dataclasses from checked values."""
    parts = [_build_one(cls, values) for cls in CLASSES]
    return Settings(*parts, given=values)


def _build_one(cls, values: dict):
    names = {f.name for f in fields(cls)}
    try:
        return cls(**{name: value for name, value in values.items() if name in names})
    except ConfigError:
        raise
    except (ValueError, TypeError, ImportError, OSError) as error:  # transformers' own checks, which name their key
        raise ConfigError(" ".join(str(error).split())) from None


def _own_defaults() -> dict:
    return {f.name: f.default for cls in CLASSES for f in own_fields(cls)}
