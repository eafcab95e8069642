"""Mutated configurations: refused in one line with nothing written, or a model with the parameters that it says."""

import json
from pathlib import Path

from attacks.mutations import meant, mutated, mutated_arguments, mutated_text
from attacks.outcome import IDENTICAL, REFUSED, TRACEBACK, WRONG, Campaign, Outcome, Trial
from attacks.processes import ROOT, program, run
from attacks.reference import DATA, SETTINGS

COUNTS = ("trainable_parameters", "total_parameters", "backbone_parameters", "components")


def shipped() -> list[Path]:
    """The configurations of runs in configs/."""
    return sorted(path for path in (ROOT / "configs").rglob("*.json") if path.parent.name != "expressivity")


def keys() -> list[str]:
    """The keys of the program."""
    from seq2seq.settings import known_keys

    return sorted(known_keys())


def dry_run(trial: Trial, name: str, file: Path, arguments: list[str]) -> Outcome | dict:
    """Return the outcome of a dry run that was refused or failed, or what it wrote."""
    out, log = trial.directory / name, trial.directory / f"{name}-log"
    ended = run(program, [str(file), *arguments, "--dry_run", "true", "--output_dir", str(out)], log=log)
    failure = ended.failure()
    if failure is not None:
        written = out.exists()
        return Outcome(WRONG, f"refused, but {out.name} was written") if written else failure
    try:
        return json.loads((out / "dry_run.json").read_text(), parse_constant=_no_json)
    except (OSError, ValueError) as error:
        return Outcome(WRONG, f"status 0, but dry_run.json: {error}")


def _no_json(constant: str):
    raise ValueError(f"{constant} is not JSON")


def dry(trial: Trial) -> Outcome:
    rng, file = trial.random, trial.directory / "mutated.json"
    source = rng.choice(shipped())
    text, arguments = source.read_text(), []
    kind = rng.random()
    if kind < 0.15:
        content, what = mutated_text(rng, text)
    elif kind < 0.3:
        content, arguments = text.encode(), mutated_arguments(rng, keys())
        what = " ".join(arguments)[:120]
    elif kind < 0.65:
        values, what = mutated(rng, json.loads(text), keys())
        content = json.dumps(values).encode()
    else:
        changes = meant(rng)
        content, what = json.dumps({**json.loads(text), **changes}).encode(), str(changes)
    file.write_bytes(content)
    what = f"{source.relative_to(ROOT)} with {what!r}"
    first = dry_run(trial, "first", file, arguments)
    if isinstance(first, Outcome):
        return Outcome(first.verdict, f"{what}: {first.what}")
    again = trial.directory / "resolved.json"
    again.write_text(json.dumps(first["configuration"]))
    second = dry_run(trial, "second", again, [])
    if isinstance(second, Outcome):
        verdict = WRONG if second.verdict == REFUSED else second.verdict
        return Outcome(verdict, f"{what}: accepted, but not what it was resolved to: {second.what}")
    different = [name for name in COUNTS if first[name] != second[name]]
    return Outcome(WRONG, f"{what}: {different} differ when repeated") if different else Outcome(IDENTICAL, what)


def real(trial: Trial) -> Outcome:
    rng, out, log = trial.random, trial.directory / "out", trial.directory / "log"
    source = rng.choice([path for path in shipped() if path.parent.name == "configs" and "multitask" not in path.name])
    values = {**json.loads(source.read_text()), **SETTINGS, "num_train_epochs": 1}
    values |= {"train_file": str(trial.reference / DATA), "max_source_length": 16, "warmup_steps": 0}
    changes = meant(rng)
    file, what = trial.directory / "mutated.json", f"{source.name} with {changes}"
    file.write_text(json.dumps({**values, **changes}))
    counted = dry_run(trial, "dry", file, [])
    failure = run(program, [str(file), "--output_dir", str(out)], log=log).failure()
    if failure is not None:
        if failure.verdict == REFUSED and (out / "results.json").exists():
            return Outcome(WRONG, f"{what}: results of a run that failed")
        return Outcome(failure.verdict, f"{what}: {failure.what}")
    if isinstance(counted, Outcome):
        verdict = TRACEBACK if counted.verdict == TRACEBACK else WRONG
        return Outcome(verdict, f"{what}: it trains, but a dry run says {counted.what}")
    try:
        results = json.loads((out / "results.json").read_text(), parse_constant=_no_json)
    except (OSError, ValueError) as error:
        return Outcome(WRONG, f"{what}: status 0, but results.json: {error}")
    if results["parameters"]["trainable"] != counted["trainable_parameters"]:
        return Outcome(WRONG, f"{what}: trains {results['parameters']['trainable']}, announced {counted[COUNTS[0]]}")
    return Outcome(IDENTICAL, what)


DRY = Campaign("dry", "mutated configurations, dry runs", 1000, 2, dry)
REAL = Campaign("real", "mutated configurations, trained", 60, 1, real)
