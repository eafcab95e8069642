"""The output directory of a run: whether it may be written, what it can resume, and its results."""

import json
import os
import shutil
from pathlib import Path

from common.checksums import sha256_of
from common.errors import ConfigError
from common.files import check_writable, write_json
from common.json_text import object_in
from common.ownership import Ownership
from seq2seq.checkpoint_files import checkpoints, newest_whole
from seq2seq.checkpoints import STAGING
from seq2seq.divergence import Diverged
from seq2seq.layout import CONFIGURATION, DIVERGED, DRY_RUN, INCIDENTAL, MERGED, PREDICTIONS, RESULTS, SERIES
from seq2seq.settings import own_defaults
from third_party.models.t5.adapter_description import DESCRIPTION, PEFT_CONFIG, WEIGHTS
from third_party.models.t5.companions import DATA, SCORES

# Files that starting a run over replaces. Nothing else is ever removed, nor are these unless the directory holds a run.
OWN_FILES = (
    CONFIGURATION,
    RESULTS,
    DIVERGED,
    WEIGHTS,
    DESCRIPTION,
    PEFT_CONFIG,  # of version 0.1.0
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    DATA,
    SCORES,
    "training_args.bin",
)
DATA_FILES = ("train_file", "validation_file", "test_file", "data_dir")
SOURCES = ("model_name_or_path", "tokenizer_name", "model_config")


class RunDirectory:
    """The directory of one run; nothing is written before `claim`.

    checkpoint: the checkpoint to resume from; None: the run starts from the beginning, and `claim` removes an earlier
        one.
    ownership: the right to write to it, from `claim` to `release`.
    """

    def __init__(self, directory: str, resolved: dict, *, overwrite: bool, resume: bool | None):
        """Read the state of the directory.

        resolved: the resolved configuration.
        overwrite, resume: the keys overwrite_output_dir and resume_from_checkpoint.
        Raises ConfigError if the directory cannot be written, or holds something that must not be replaced.
        """
        self.path = Path(directory)
        self._check_sources(resolved)
        self.resolved = json.loads(json.dumps(resolved))
        self.files = sums_of_files(resolved)
        check_writable(self.path)
        self.ownership = Ownership(self.path)
        self.ownership.refuse_second()
        self._overwrite, self._resume = overwrite, resume
        found = self._checkpoints_to_resume()
        self.checkpoint = newest_whole(found) if found else None

    def claim(self):
        """Take over the directory: remove what an overwritten run left, write the configuration.

        Raises ConfigError if another process owns the directory, or has changed what can be resumed.
        """
        self.ownership.acquire()
        try:
            found = self._checkpoints_to_resume()
            if self.checkpoint is None and found or self.checkpoint is not None and self.checkpoint not in found:
                raise ConfigError(
                    f"another run has written to {str(self.path)!r} in the meantime; start this one again"
                )
            (self.path / DIVERGED).unlink(missing_ok=True)
            shutil.rmtree(self.path / STAGING, ignore_errors=True)
            if self.checkpoint is None and (self.path / CONFIGURATION).exists():
                for old in checkpoints(self.path):
                    shutil.rmtree(old)
                for name in (MERGED, PREDICTIONS):
                    shutil.rmtree(self.path / name, ignore_errors=True)
                for name in OWN_FILES:
                    (self.path / name).unlink(missing_ok=True)
            write_json(self.path / CONFIGURATION, self.resolved, sort_keys=True, key="output_dir")
        except OSError as error:
            raise ConfigError(f"output_dir is {str(self.path)!r}, which cannot be written: {error.strerror}") from None

    def finish(self, results: dict):
        """Write the results, which mark the run as finished."""
        self.ownership.check()
        write_json(self.path / RESULTS, {**results, "files": self.files}, key="output_dir")

    def give_up(self, error: Diverged):
        """Write that the run diverged."""
        facts = {"experiment_name": self.resolved.get("experiment_name"), **error.facts}
        write_json(self.path / DIVERGED, facts, key="output_dir")

    def release(self):
        """Let other processes write to the directory again."""
        self.ownership.release()

    def _check_sources(self, resolved: dict):
        """Raise ConfigError if the run would replace what it reads."""
        for name in SOURCES:
            source, here = resolved.get(name), Path(os.path.realpath(self.path))
            if not isinstance(source, str) or not Path(source).exists():
                continue  # a hub id, or no name
            there = Path(os.path.realpath(source))
            if here in (there, *there.parents):
                raise ConfigError(
                    f"{name} is {source!r}, inside output_dir {str(self.path)!r}; choose another output_dir"
                )

    def _checkpoints_to_resume(self) -> list[Path]:
        """Return the checkpoints of an unfinished run of this configuration, oldest first; [] to start over."""
        resume = self._resume
        if not self.path.is_dir() or all(path.name[0] == "." or path.name == DRY_RUN for path in self.path.iterdir()):
            return self._start_over(resume)
        previous = object_in(self.path / CONFIGURATION)
        finished = (self.path / RESULTS).exists()
        if previous is not None and not finished and _is_same(previous, self.resolved):
            found = checkpoints(self.path)
            if not found:
                return self._start_over(resume)
            return [] if resume is False else found
        self._keep_other_experiment(previous)
        if self._overwrite:
            self._keep_trained_model()
            return self._start_over(resume)
        held = "files of something else" if previous is None else "a finished run" if finished else "another run"
        raise ConfigError(
            f"output_dir is {str(self.path)!r}, which holds {held}; "
            "choose another output_dir or experiment_name, or set overwrite_output_dir to true"
        )

    def _keep_other_experiment(self, previous: dict | None):
        """Raise ConfigError if the directory holds a series, or a run with another experiment_name.

        previous: its configuration; None if that cannot be read, and then the results tell.
        """
        if (self.path / SERIES).exists():
            raise ConfigError(f"output_dir is {str(self.path)!r}, which holds a series of runs; choose another one")
        held = (previous or object_in(self.path / RESULTS) or {}).get("experiment_name")
        wanted = self.resolved.get("experiment_name")
        if held not in (None, wanted):
            raise ConfigError(
                f"output_dir is {str(self.path)!r}, which holds the experiment {held!r}, not {wanted!r}, and is never "
                "replaced by another; choose another output_dir"
            )

    def _keep_trained_model(self):
        """Raise ConfigError if a run that only evaluates would remove a trained model."""
        trained = [name for name in (WEIGHTS, "model.safetensors") if (self.path / name).exists()]
        if trained and not self.resolved.get("do_train"):
            raise ConfigError(
                f"do_train is false, but output_dir {str(self.path)!r} holds a trained model, which would be removed; "
                "to evaluate it, set model_name_or_path to this directory and output_dir to another one"
            )

    def _start_over(self, resume: bool | None) -> list[Path]:
        """Return [], for no checkpoint. Raises ConfigError if `resume` requires one."""
        if resume:
            raise ConfigError(
                f"resume_from_checkpoint is true but {str(self.path)!r} holds no unfinished run of this configuration; "
                "set it to null or false to start one"
            )
        return []


def finished_results(directory: str, resolved: dict) -> dict | None:
    """Return the results in `directory` if they are those of this configuration and of unchanged data files, else None.

    resolved: the resolved configuration.
    """
    held, results = object_in(Path(directory, CONFIGURATION)), Path(directory, RESULTS)
    if held is None or not _is_same(held, json.loads(json.dumps(resolved))) or not results.exists():
        return None
    named = [Path(resolved[name]) for name in DATA_FILES if resolved.get(name)]
    files = [file for path in named for file in (path, *path.rglob("*")) if file.exists()]
    if any(file.stat().st_mtime > results.stat().st_mtime for file in files):
        return None
    found = object_in(results)
    return found if found is None or found.get("files", sums_of_files(resolved)) == sums_of_files(resolved) else None


def sums_of_files(resolved: dict) -> dict[str, str]:
    """Return the SHA-256 of each of the user's data files that a configuration names."""
    paths = {name: Path(resolved[name]) for name in DATA_FILES if resolved.get(name)}
    return {name: sha256_of(path) for name, path in paths.items() if path.is_file()}


def _is_same(held: dict, resolved: dict) -> bool:
    """Return True if two configurations are of one run; a key that the program has gained since has its default."""
    gained = {name: value for name, value in own_defaults().items() if name in resolved}
    left, right = {**gained, **held}, resolved
    return all(left.get(name) == right.get(name) for name in left.keys() | right.keys() if name not in INCIDENTAL)
