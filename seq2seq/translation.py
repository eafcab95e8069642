"""Translates the keys of a file into ours, by the table in dialects.py, and takes notes of all that it changes."""

import json
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from adapters import AdapterConfig
from adapters.sites import BESIDE_LINEAR
from common.errors import ConfigError
from common.json_settings import describe, has_type
from seq2seq.arguments import TASK_KEYS
from seq2seq.dialects import (
    ADAPTER_KEY,
    DROPPED,
    FAMILY_KEY,
    ONE_VALUE,
    OUR_KEYS,
    RENAMED,
    RENAMED_VALUES,
    RULES,
    TRANSLATED,
    TTCOMPACTER_KEYS,
    WITHOUT_ADAPTER_KEY,
)

OLDER = {*RENAMED, *TRANSLATED, *ONE_VALUE, *DROPPED}


@dataclass
class Notes:
    """What the user should know about how the keys were read.

    dialect: how a file of another program was read.
    changed: keys and values that were replaced.
    ignored: keys that have no effect any more.
    unread: who does not read which keys.
    """

    dialect: str = ""
    changed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unread: dict[str, list[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return at most one line about the dialect and one about single keys."""
        parts = list(dict.fromkeys(self.changed))
        if self.ignored:
            parts.append(f"ignored: {', '.join(dict.fromkeys(self.ignored))}")
        for reader, names in self.unread.items():
            left = [name for name in names if name not in self.ignored]
            parts += [f"not read by {reader}: {', '.join(left)}"] if left else []
        return [line for line in (self.dialect, "; ".join(parts)) if line]


def current_keys(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Replace the keys of older files by the current ones.

    Raises ConfigError if both are given, or for a value that has no meaning here.
    """
    current = {name: value for name, value in values.items() if name not in OLDER}
    for name in [name for name in values if name in OLDER]:
        value = values[name]
        if name in RENAMED:
            if RENAMED[name] in values:
                raise ConfigError(f"{name} and {RENAMED[name]} are the same key; set only {RENAMED[name]}")
            current[RENAMED[name]] = value
            notes.changed.append(f"{name} is now called {RENAMED[name]}")
            continue
        meant = _meaning(name, value)
        if not meant or any(values.get(key) for key in meant):
            notes.ignored.append(name)
            continue
        current |= meant
        notes.changed.append(f"{name} is read as {_listed(meant)}")
    return current


def _meaning(name: str, value: Any) -> dict[str, Any]:
    """Return the keys that a key of an older file stands for. Raises ConfigError for a value without a meaning."""
    if name in ONE_VALUE and value != ONE_VALUE[name]:
        raise ConfigError(
            f"{name} is {_shown(value)}; only {_shown(ONE_VALUE[name])} is supported: name a local directory in "
            "model_name_or_path instead"
        )
    if name not in TRANSLATED or not value:
        return {}
    kind, meaning = TRANSLATED[name]
    if not has_type(value, kind):
        raise ConfigError(f"{name} is {_shown(value)}; it must be {describe(kind)}")
    if name == "warmup_ratio" and not 0 <= value < 1:
        raise ConfigError(f"warmup_ratio is {value}; it must be at least 0 and below 1")
    return meaning(value)


def current_values(values: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Replace the values of older files by the current ones."""
    current = dict(values)
    for (name, old), new in RENAMED_VALUES.items():
        if values.get(name) == old:
            current[name] = new
            notes.changed.append(f"{name} {_shown(old)} is now called {_shown(new)}")
    return current


def remark_on_kaiming_zero(adapter: AdapterConfig, notes: Notes) -> None:
    """Note that a file with this start trained nothing: all cores but the first were zero, in each of its trains."""
    d = adapter.tt_d if adapter.tt_shape is None else len(adapter.tt_shape[0])
    if adapter.methods.get(BESIDE_LINEAR) in ("use_TTLoRA", "ttlora_separate") and isinstance(d, int) and d > 2:
        notes.changed.append(
            f"with TTLoRA_init kaiming_zero, {d - 1} of {d} cores started as zero and none would ever have been "
            "trained; here only the last starts as zero"
        )


def dialect_of(file: dict[str, Any], command_line: dict[str, Any]) -> str | None:
    """Return the dialect that is named, or that the keys of a file belong to; None: our own.

    file, command_line: the keys as they were given.
    Raises ConfigError for an unknown dialect, or for keys of two.
    """
    named = command_line.get("dialect", file.get("dialect"))
    if named is not None and named not in (*RULES, "none"):
        raise ConfigError(f"dialect is {_shown(named)}; it must be one of {', '.join(RULES)}, none, or null")
    of_the_fork = sorted(file.keys() & TTCOMPACTER_KEYS)
    if named == "compacter" and of_the_fork:
        raise ConfigError(f'dialect is "compacter", but {of_the_fork[0]} is a key of ttcompacter: set it to that')
    if named is not None:
        return None if named == "none" else named
    adapters = ADAPTER_KEY in file
    if FAMILY_KEY not in file or not (adapters or any(map(file.get, WITHOUT_ADAPTER_KEY))):
        return None
    found = "ttcompacter" if of_the_fork or (adapters and "experiment_name" in file) else "compacter"
    ours = sorted(file.keys() & OUR_KEYS)
    if ours:
        raise ConfigError(
            f"{FAMILY_KEY} is a key of {found}, and {ours[0]} is one of ours, so it is not clear how to read the file: "
            f"set dialect to {found} or none"
        )
    return found


def apply_dialect(dialect: str, values: dict[str, Any], fixed: set[str], notes: Notes) -> dict[str, Any]:
    """Return `values` in our terms.

    values: the keys of the file and of the command line, with current names.
    fixed: the keys of the command line.
    Raises ConfigError if a key of the dialect and the one that it means are both given, or if there is no task.
    """
    if "task_name" not in values:
        raise ConfigError(f"task_name is not set, which a {dialect} file must do: it has no default task")
    read, origins = dict(values), {}
    for rule in [rule for rule in RULES[dialect] if rule.holds(values)]:
        for old, new in rule.renamed.items():
            if old in values and new in values and not (old in fixed and new not in fixed):
                raise ConfigError(
                    f"{old} and {new} are both set; in a {dialect} file {old} means {new}: set only {old}"
                )
            if old in values:
                read[new], origins[new] = read.pop(old), f" from {old}"
        meanings = {key: meaning for key, meaning in rule.defaults.items() if key not in values}
        meanings |= {key: meaning for key, meaning in rule.instead.items() if key not in fixed}
        read |= {key: meaning(values) if callable(meaning) else meaning for key, meaning in meanings.items()}
    changes = {key: value for key, value in read.items() if key not in values or values[key] != value}
    what = ", ".join(f"{key} {_shown(value)}{origins.get(key, '')}" for key, value in changes.items())
    notes.dialect = (
        f"read as a {dialect} file: {what or 'nothing is read differently'}; --dialect none reads it as ours"
    )
    return read


def carry_along(file: dict[str, Any], command_line: dict[str, Any], notes: Notes) -> None:
    """Remove what belongs to a task or a model of the file, if the command line sets another one.

    Of a task, these are its evaluation sets; of a model, the tokenizer of the same name.
    """
    task, model = TASK_KEYS["train"], "model_name_or_path"
    followers = {TASK_KEYS["validation"]: task, TASK_KEYS["test"]: task}
    if file.get("tokenizer_name") == file.get(model):
        followers["tokenizer_name"] = model
    for key, leader in followers.items():
        overridden = leader in command_line and command_line[leader] != file.get(leader)
        if overridden and file.get(key) is not None and key not in command_line:
            del file[key]
            notes.changed.append(f"{key} follows --{leader}")


def follow_evaluation(values: dict[str, Any], fixed: set[str], older: bool, notes: Notes) -> None:
    """Save when the run evaluates, as the best model can be loaded only if it was saved.

    fixed: the keys of the command line.
    older: True for a file that was written for a transformers in which load_best_model_at_end implied this.
    """
    strategy = values.get("eval_strategy")
    if not values.get("load_best_model_at_end") or strategy is None or "save_strategy" in values:
        return
    values["save_strategy"] = strategy
    notes.changed.append(f"save_strategy is set to {strategy}, the value of eval_strategy")
    if strategy != "steps":
        notes.ignored += ["save_steps"] if "save_steps" in values else []
        return
    steps, every = values.get("save_steps", 500), values.get("eval_steps") or values.get("logging_steps", 500)
    if "save_steps" not in fixed and steps != every and (older or not _is_multiple(steps, every)):
        values["save_steps"] = every
        notes.changed.append(f"save_steps is set to {every}, the steps between evaluations")


def _is_multiple(a: float, b: float) -> bool:
    """True for 300 and 100 steps, and for the fractions 0.3 and 0.1 of all steps."""
    return b != 0 and isclose(a / b, round(a / b), rel_tol=1e-6)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
