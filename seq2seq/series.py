"""One configuration run with several seeds, and with several numbers of training rows."""

import math
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from common.errors import ConfigError
from common.files import check_writable, write_json
from common.json_text import object_in
from common.ownership import Ownership
from seq2seq.data.batches import load_texts, tasks_of_splits
from seq2seq.layout import CONFIGURATION, SERIES
from seq2seq.pipeline import run
from seq2seq.runs import finished_results
from seq2seq.settings import Settings, build


def is_series(settings: Settings) -> bool:
    """Return True if `seeds` or `low_resource` ask for several runs."""
    return settings.training.seeds is not None or isinstance(settings.data.low_resource, list)


def run_series(settings: Settings) -> dict:
    """Run every member of the series in its own directory, and return the content of `series.json`.

    The results of a finished member are read instead of running it again, unless resume_from_checkpoint is false or
    its data files have changed since.
    """
    members = series_members(settings)
    _check_rows(members)
    directory = Path(settings.training.output_dir)
    _check_directory(directory, settings.training.experiment_name)
    check_writable(directory)
    with Ownership(directory) if settings.training.should_save else nullcontext():
        return _run_members(settings, members, directory)


def _run_members(settings: Settings, members: list[Settings], directory: Path) -> dict:
    """Run the members that are not finished, and write the summary after each of them."""
    results = []
    for number, member in enumerate(members, 1):
        out = member.training.output_dir
        keep = settings.training.resume_from_checkpoint is not False
        finished = finished_results(out, member.resolved()) if keep else None
        state = "already finished, results kept" if finished else "starting"
        print(f"run {number} of {len(members)} ({out}): {state}", flush=True)
        results.append(finished or run(member))
        summary = {
            "experiment_name": settings.training.experiment_name,
            "method": settings.method,
            "scores": statistics(results),
            "runs": [result["output_dir"] for result in results],
            "output_dir": str(directory),
        }
        if settings.training.should_save:
            write_json(directory / SERIES, summary, sort_keys=True, key="output_dir")
    return summary


def series_members(settings: Settings) -> list[Settings]:
    """Return the settings of each run: every number of rows with every seed. Raises ConfigError for invalid lists."""
    sizes, seeds = settings.data.low_resource, settings.training.seeds
    for name, values in (("low_resource", sizes), ("seeds", seeds)):
        if isinstance(values, list) and (not values or len(set(values)) < len(values)):
            raise ConfigError(f"{name} is {values}; it must contain at least one number, and none twice")
    members = []
    for size, seed in product(sizes if isinstance(sizes, list) else [sizes], seeds or [settings.training.seed]):
        parts = [f"rows_{size}"] if isinstance(sizes, list) else []
        parts += [f"seed_{seed}"] if seeds else []
        own = {"low_resource": size, "seed": seed, "output_dir": str(Path(settings.training.output_dir, *parts))}
        members.append(build({**{k: v for k, v in settings.given.items() if k != "seeds"}, **own}))
    return members


def _check_directory(directory: Path, name: str) -> None:
    """Raise ConfigError if the directory holds a single run, or a series with another experiment_name."""
    if (directory / CONFIGURATION).exists():
        raise ConfigError(
            f"output_dir is {str(directory)!r}, which holds a single run; choose another one for a series"
        )
    held = (object_in(directory / SERIES) or {}).get("experiment_name", name)
    if held != name:
        raise ConfigError(
            f"output_dir is {str(directory)!r}, which holds the series {held!r}, not {name!r}, and is never replaced "
            "by another; choose another output_dir"
        )


def _check_rows(members: list[Settings]) -> None:
    """Raise ConfigError if a task has fewer rows than the largest size, before the smaller sizes are trained on."""
    largest = max(members, key=lambda member: member.data.low_resource or 0)
    if largest.data.low_resource is not None and largest.training.do_train:
        load_texts(tasks_of_splits(largest.data, largest.training.split_seed), ["train"], largest.data, 0, prefix=False)


def statistics(results: list[dict]) -> list[dict]:
    """Return mean and sample standard deviation over runs with equally many rows, by split, task and metric."""
    values: dict[tuple, list[float]] = {}
    for result in results:
        for split, entry in result["splits"].items():
            for task, scored in entry["tasks"].items():
                for metric, score in scored["scores"].items():
                    number = math.nan if score is None else score  # JSON has no NaN
                    values.setdefault((result["low_resource"], split, task, metric), []).append(number)
            if len(entry["tasks"]) > 1 and "average_metrics" in entry:
                key = result["low_resource"], split, "average", "average_metrics"
                average = entry["average_metrics"]
                values.setdefault(key, []).append(math.nan if average is None else average)
    return [
        {
            **dict(zip(("low_resource", "split", "task", "metric"), key, strict=True)),
            "mean": mean(scores) if all(map(math.isfinite, scores)) else math.nan,
            "deviation": stdev(scores) if len(scores) > 1 and all(map(math.isfinite, scores)) else None,
            "runs": len(scores),
        }
        for key, scores in values.items()
    ]
