"""Measure what networks can express: python run_expressivity.py configs/expressivity/NAME.json [--key value ..]

or what a trained model does with its backbone: python run_expressivity.py --model outputs/NAME
"""

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from common.boundary import SWITCH, guarded
from common.checksums import sha256_of
from common.command_line import Parser
from common.errors import ConfigError
from common.files import write_json
from common.json_settings import check_keys, describe, read_file, read_overrides
from common.keys import REQUIRED, key, key_fields, key_types
from common.ownership import LOCK, Ownership
from common.requirements import check_installed
from common.secrets import without_secrets
from expressivity.experiments import EXPERIMENTS
from expressivity.experiments.adapted_model import NAME, AdaptedModelExperiment
from seq2seq.finished_run import chosen_task, configuration_of_run
from seq2seq.layout import RESULTS

PROGRAM = "run_expressivity.py"
USAGE = f"usage: python {PROGRAM} FILE.json [--key value ..]    (--help lists the keys)"
MODEL_USAGE = (
    f"python {PROGRAM} --model DIRECTORY [--task TASK] [--inputs 32] [--points 400] [--seed 0] [--out DIRECTORY] "
    "[--overwrite_output_dir] [--traceback]"
)
INTERRUPTED = "interrupted; the same command resumes a comparison and restarts other experiments"
TRUST = "trust_modules"
CONFIGURATION = "resolved_config.json"
RUN_KEYS = ("experiment_name", "output_dir", "overwrite_output_dir", "disable_tqdm")  # they do not affect results


@dataclass
class Run:
    """The experiment to run and where to write its results."""

    experiment: str = key("comparison", "The experiment to run.")
    experiment_name: str | None = key(None, "Name of the run; null: the file's name.")
    output_dir: str | None = key(None, "Output directory; null: outputs/expressivity/experiment_name.")
    overwrite_output_dir: bool = key(
        False, "Replace the results of another configuration of the same experiment_name in output_dir."
    )
    disable_tqdm: bool = key(False, "Hide the progress bar.")

    @property
    def directory(self) -> Path:
        return Path(self.output_dir or Path("outputs", "expressivity", self.experiment_name))


def main(argv: list[str]) -> int:
    return guarded(program, argv, INTERRUPTED)


def program(argv: list[str]) -> None:
    """Do what the command line says. Raises what `guarded` turns into one line."""
    if {"--help", "-h"} & set(argv):
        print_keys()
        return
    of_model = any(argument.partition("=")[0] == "--model" for argument in argv)
    if not argv or argv[0].startswith("--") and not of_model:
        raise ConfigError(USAGE)
    check_installed()
    if of_model:
        run(*load_of_model(argv))
        return
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        run(*load(argv[0], argv[1:]))


def load(path: str, overrides: list[str]) -> tuple[Run, object]:
    """Build the run and its experiment from a file and overrides; `--A.lr 0.1` sets a key inside the object A.

    `--trust_modules` lets the file name modules of others.
    """
    values = read_file(path)
    if TRUST in values:
        raise ConfigError(f"{path} sets {TRUST}, which only the command line may: a file cannot vouch for itself")
    types = known_keys(_experiment_class(values)) | {TRUST: bool}
    given = read_overrides(overrides, types)
    trusted = given.pop(TRUST, False)
    if not isinstance(trusted, bool):
        raise ConfigError(f"{TRUST} is {trusted!r}; it must be true or false")
    for name, value in given.items():
        _set_key(values, name.split("."), value)
    cls = _experiment_class(values)
    check_keys(values, known_keys(cls), PROGRAM)
    missing = [f.name for f in key_fields(cls) if f.default is REQUIRED and f.name not in values]
    if missing:
        raise ConfigError(f"{path} does not set {missing[0]}, which this experiment requires")
    values.setdefault("experiment_name", Path(path).stem)
    parts = [{f.name: values[f.name] for f in key_fields(each) if f.name in values} for each in (Run, cls)]
    experiment = cls(**parts[1])
    experiment.trust_modules = trusted
    return Run(**parts[0]), experiment


def load_of_model(argv: list[str]) -> tuple[Run, AdaptedModelExperiment]:
    """Build the measurement of a trained model from a command line with --model. Loads no model yet."""
    parser = Parser(usage=MODEL_USAGE, allow_abbrev=False, add_help=False)
    parser.add_argument("file", nargs="?")
    for name in ("--model", "--task"):
        parser.add_argument(name)
    for name in ("inputs", "points", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(AdaptedModelExperiment, name))
    parser.add_argument("--out", "--output_dir", dest="out")
    parser.add_argument("--overwrite_output_dir", action="store_true")
    given = parser.parse_args(argv)
    if given.file is not None:
        raise ConfigError(f"--model measures a trained model, and takes no configuration file such as {given.file!r}")
    directory = Path(given.model)
    configuration = configuration_of_run(directory, "--model")
    task = chosen_task(configuration, given.task)

    def probes():
        from seq2seq.probing import load_probes  # takes seconds to import, which a wrong argument should not

        return load_probes(directory, configuration, task, given.inputs, given.seed)

    identity = sha256_of(directory / RESULTS)
    experiment = AdaptedModelExperiment(probes, identity, str(directory), task, given.inputs, given.points, given.seed)
    name, out = configuration.get("experiment_name"), given.out or str(directory / "expressivity")
    return Run(NAME, name, out, given.overwrite_output_dir), experiment


def run(settings: Run, experiment) -> None:
    """Run the experiment, write its files and print its tables."""
    directory = settings.directory
    keys = {f.name: getattr(part, f.name) for part in (settings, experiment) for f in key_fields(type(part))}
    resolved = without_secrets(keys)
    experiment.check()
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; output_dir must be a directory")
    with Ownership(directory) as owner:
        _prepare(directory, resolved, experiment, settings.overwrite_output_dir)
        write_json(directory / CONFIGURATION, resolved, key="output_dir")
        try:
            result = experiment.run(directory, not settings.disable_tqdm)
        except BaseException:
            if not (directory / experiment.files[0]).exists():  # nothing to resume from
                (directory / CONFIGURATION).unlink(missing_ok=True)
            raise
        owner.check()
        experiment.write(result, directory)
    for title, rows in experiment.tables(result).items():
        print_table(title, rows)
    for line in experiment.notes(result):
        print(line)
    for name in experiment.files:
        print(directory / name)


def _prepare(directory: Path, resolved: dict, experiment, overwrite: bool) -> None:
    """Make sure that the run may write to `directory`.

    An empty directory, or one from which the same run can resume, is left alone. The files of a run of the same
    experiment_name that differs are deleted if `overwrite` is set.

    Raises ConfigError if `directory` holds anything else.
    """
    if {path.name for path in directory.iterdir()} <= {
        CONFIGURATION,
        LOCK,
    }:  # a run that stopped before its first result
        return
    there = read_file(str(directory / CONFIGURATION)) if (directory / CONFIGURATION).exists() else None
    incidental = {*RUN_KEYS, *experiment.incidental}
    different = [k for k in resolved if k not in incidental and (there is None or there.get(k) != resolved[k])]
    if not different:
        return
    if there is None:
        raise ConfigError(f"{directory} holds files that this program did not write; choose another output_dir")
    if there.get("experiment_name") != resolved["experiment_name"]:
        raise ConfigError(
            f"{directory} holds the experiment {there.get('experiment_name')!r}, not {resolved['experiment_name']!r}, "
            "and is never replaced by another; choose another output_dir"
        )
    if not overwrite:
        raise ConfigError(
            f"{directory} holds a run that differs in {', '.join(different)}; choose another output_dir or set "
            "overwrite_output_dir"
        )
    for name in {name for cls in (*EXPERIMENTS.values(), AdaptedModelExperiment) for name in cls.files}:
        (directory / name).unlink(missing_ok=True)


def _experiment_class(values: dict):
    name = values.get("experiment", "comparison")
    if name not in list(EXPERIMENTS):
        raise ConfigError(f"experiment is {name!r}; allowed: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def known_keys(cls: type) -> dict[str, object]:
    """All keys of an experiment, those of the run included, with their types."""
    return key_types(Run) | key_types(cls)


def _set_key(values: dict, path: list[str], value) -> None:
    """Set the key at `path`, e.g. ["A", "lr"] for the key lr of the object A."""
    for k, name in enumerate(path[:-1], start=1):
        if not isinstance(values.get(name) or {}, dict):
            raise ConfigError(
                f"--{'.'.join(path)} cannot be set: {'.'.join(path[:k])} is not a JSON object in the configuration"
            )
        values[name] = dict(values.get(name) or {})
        values = values[name]
    values[path[-1]] = value


def print_keys() -> None:
    """Print every key with its type, default and help text."""
    print(USAGE)
    print(f"       {MODEL_USAGE}")
    print("\nwith --model: how a trained model differs from its backbone, block by block")
    for f in key_fields(AdaptedModelExperiment):
        print(f"  --{f.name}: {f.metadata['help']}")
    print("\non the command line only")
    print(f"  --{TRUST}: import and run what the file names as module:name\n  {SWITCH}: show errors with tracebacks")
    for name, cls in {"every experiment": Run, **EXPERIMENTS}.items():
        print(f"\n{name}" + (f": {cls.__doc__}" if cls is not Run else ""))
        types = key_types(cls)
        for f in key_fields(cls):
            default = "required" if f.default is REQUIRED else f"default {json.dumps(f.default)}"
            print(f"  {f.name}: {describe(types[f.name])}, {default}\n      {f.metadata['help']}")


def print_table(title: str, rows: list[dict]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in rows[0]:
        table.add_column(
            name, justify="left" if name in ("winner", "activation", "block") else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
