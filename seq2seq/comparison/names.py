"""Names of configurations: what the user called them, and the keys in which those of the same name differ."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from seq2seq.comparison.collection import Run
from seq2seq.comparison.matters import ADAPTER_KEYS
from seq2seq.comparison.numbers import printable

LONGEST = 40  # characters of a name in a legend, where that tells all names apart
LONGEST_VALUE = 24
METHOD = "method"
# Keys that say which methods are chosen; where methods differ, their names say it.
SELECTING = {"freeze_backbone", *(name for name, f in ADAPTER_KEYS.items() if "site" in f.metadata)}
# The keys that researchers vary most, in the order of importance, with their usual names.
USUAL = {
    "model_name_or_path": "model",
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "per_device_train_batch_size": "batch",
    "gradient_accumulation_steps": "accumulation",
    "warmup_steps": "warmup",
    "lr_scheduler_type": "schedule",
    "weight_decay": "weight_decay",
    "max_train_samples": "train_samples",
}
ORDER = {name: place for place, name in enumerate((METHOD, *ADAPTER_KEYS, *USUAL))}
MISSING = object()


@dataclass(frozen=True)
class Name:
    """The name of a configuration.

    text: unique in its section.
    settings: every key in which it differs from configurations of the same experiment_name, with its value.
    """

    text: str
    settings: str


def names_of(runs: Sequence[Run]) -> list[Name]:
    """Name configurations of the same section, each given by one of its runs."""
    same: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        same.setdefault(run.name, []).append(i)
    found = {}
    for experiment, members in same.items():
        words = differences([runs[i] for i in members])
        for i, few, every in zip(members, shortest(words), words, strict=True):
            text = ", ".join(few.values())
            if not text or len(same) > 1:
                text = f"{experiment} ({text})" if text else experiment
            found[i] = Name(text, ", ".join(every.values()))
    return numbered([found[i] for i in range(len(runs))])


def differences(runs: list[Run]) -> list[dict[str, str]]:
    """Return the words that tell runs of the same experiment_name apart, by key, for each run."""
    values = [{METHOD: run.method, **run.config} for run in runs]
    methods = len({run.method for run in runs}) > 1
    known = set().union(*values) - {"low_resource", *(SELECTING if methods else ())}
    keys = []
    for name in sorted(known, key=lambda name: (ORDER.get(name, len(ORDER)), name)):
        readers = [value for value, run in zip(values, runs, strict=True) if reads(run, name, runs)]
        if len({canonical(value[name]) if name in value else "" for value in readers}) > 1:
            keys.append(name)
    return [
        {name: word(name, value.get(name, MISSING)) for name in keys if reads(run, name, runs)}
        for value, run in zip(values, runs, strict=True)
    ]


def reads(run: Run, name: str, runs: list[Run]) -> bool:
    """True if the run reads a key, or, if that is unknown, if any of its method has another value than the default."""
    if name not in ADAPTER_KEYS:
        return True
    if run.read is not None:
        return name in run.read
    default = canonical(ADAPTER_KEYS[name].default)
    return any(canonical(other.config[name]) != default for other in runs if other.method == run.method)


def shortest(words: list[dict[str, str]]) -> list[dict[str, str]]:
    """Leave out the least important keys that are not needed to tell names apart, as long as a name is too long."""
    kept = words
    for name in reversed(list(dict.fromkeys(name for each in words for name in each))):
        if max(len(", ".join(each.values())) for each in kept) <= LONGEST:
            break
        fewer = [{key: text for key, text in each.items() if key != name} for each in kept]
        if distinct(fewer) == distinct(words):
            kept = fewer
    return kept


def distinct(words: list[dict[str, str]]) -> int:
    return len({tuple(each.values()) for each in words})


def word(name: str, value: object) -> str:
    """One word for a key and its value: "tt_rank=2", "use_bias" or "no use_bias"."""
    short = USUAL.get(name, name)
    if name == METHOD:
        return str(value)
    if value is MISSING:
        return f"default {short}"
    if isinstance(value, bool):
        return short if value else f"no {short}"
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else canonical(value)
    if name in ("model_name_or_path", "tokenizer_name"):
        text = text.rstrip("/").rpartition("/")[2] or text
    text = printable(text)
    if len(text) > LONGEST_VALUE:
        text = f"{text[: LONGEST_VALUE - 9]}…{text[-8:]}"
    return f"{short}={text}"


def numbered(names: list[Name]) -> list[Name]:
    """Number the names that occur more than once, as values that were shortened may be the same."""
    times, seen = Counter(name.text for name in names), Counter()
    result = []
    for name in names:
        seen[name.text] += 1
        text = f"{name.text} #{seen[name.text]}" if times[name.text] > 1 else name.text
        result.append(Name(text, name.settings))
    return result


def canonical(value: object) -> str:
    """The value as JSON, with sorted keys."""
    return json.dumps(value, sort_keys=True)
