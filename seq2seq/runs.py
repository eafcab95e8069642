"""The output directory of a run: may it be written, is there something to go on with, and what it holds at the end."""

import json
import shutil
from pathlib import Path

from common.errors import ConfigError
from common.files import check_writable, write_json
from seq2seq.checkpoints import STAGING, checkpoints
from seq2seq.layout import CONFIGURATION, DRY_RUN, INCIDENTAL, MERGED, PREDICTIONS, RESULTS

# Files of a run that starting it again replaces; nothing else is ever removed, nor these where there was no run.
OWN_FILES = (
    CONFIGURATION,
    RESULTS,
    "adapter_model.safetensors",
    "adapter_config.json",
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_args.bin",
)
DATA_FILES = ("train_file", "validation_file", "test_file", "data_dir")
SOURCES = ("model_name_or_path", "tokenizer_name", "model_config")


class RunDirectory:
    """Made from the directory and the resolved configuration; reading only, until `claim`.

    `checkpoint` is where to go on, or None. Raises ConfigError where the directory cannot be written or is not to be.
    """

    def __init__(self, directory: str, resolved: dict, *, overwrite: bool, resume: bool | None):
        self.path = Path(directory)
        self._check_sources(resolved)
        self.resolved = json.loads(json.dumps(resolved))
        check_writable(self.path)
        self.checkpoint, self.starts_anew = self._state(overwrite, resume)

    def claim(self):
        """Make the directory this run's: remove what an overwritten run left, write the configuration."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.path / STAGING, ignore_errors=True)
            if self.starts_anew and (self.path / CONFIGURATION).exists():
                for old in checkpoints(self.path):
                    shutil.rmtree(old)
                for name in (MERGED, PREDICTIONS):
                    shutil.rmtree(self.path / name, ignore_errors=True)
                for name in OWN_FILES:
                    (self.path / name).unlink(missing_ok=True)
            write_json(self.path / CONFIGURATION, self.resolved, sort_keys=True)
        except OSError as error:
            raise ConfigError(f"output_dir is {str(self.path)!r}, which cannot be written: {error.strerror}") from None

    def finish(self, results: dict):
        """Write the results: the run is complete."""
        write_json(self.path / RESULTS, results)

    def _check_sources(self, resolved: dict):
        """What the run reads must not be what it replaces."""
        for name in SOURCES:
            source, here = resolved.get(name), self.path.resolve()
            if not isinstance(source, str) or not Path(source).exists():
                continue  # a hub id, or no name
            if here in (Path(source).resolve(), *Path(source).resolve().parents):
                raise ConfigError(
                    f"{name} is {source!r}, inside output_dir {str(self.path)!r}; choose another output_dir"
                )

    def _state(self, overwrite: bool, resume: bool | None) -> tuple[Path | None, bool]:
        """(checkpoint to go on with, whether to start anew)."""
        if not self.path.is_dir() or all(path.name[0] == "." or path.name == DRY_RUN for path in self.path.iterdir()):
            return self._nothing_to_resume(resume)
        previous = _read_json(self.path / CONFIGURATION)
        finished = (self.path / RESULTS).exists()
        if previous is not None and not finished and _comparable(previous) == _comparable(self.resolved):
            found = checkpoints(self.path)
            if not found:
                return self._nothing_to_resume(resume)
            if resume is False:
                return None, True
            return found[-1], False
        if overwrite:
            self._check_training_replaces_training()
            return self._nothing_to_resume(resume)
        held = "files of something else" if previous is None else "a finished run" if finished else "another run"
        raise ConfigError(
            f"output_dir is {str(self.path)!r}, which holds {held}; "
            "choose another output_dir or experiment_name, or set overwrite_output_dir to true"
        )

    def _check_training_replaces_training(self):
        """Raise ConfigError where a run that only evaluates would remove what another one trained."""
        trained = [name for name in ("adapter_model.safetensors", "model.safetensors") if (self.path / name).exists()]
        if trained and not self.resolved.get("do_train"):
            raise ConfigError(
                f"do_train is false, and output_dir {str(self.path)!r} holds a trained model, which would be removed; "
                "to evaluate it set model_name_or_path to this directory, and output_dir to another"
            )

    def _nothing_to_resume(self, resume: bool | None) -> tuple[None, bool]:
        if resume:
            raise ConfigError(
                f"resume_from_checkpoint is true but {str(self.path)!r} holds no unfinished run of this configuration"
            )
        return None, True


def finished_results(directory: str, resolved: dict) -> dict | None:
    """The results in `directory`, if it holds a finished run of this resolved configuration and of today's files."""
    held, results = _read_json(Path(directory, CONFIGURATION)), Path(directory, RESULTS)
    if held is None or _comparable(held) != _comparable(json.loads(json.dumps(resolved))) or not results.exists():
        return None
    named = [Path(resolved[name]) for name in DATA_FILES if resolved.get(name)]
    files = [file for path in named for file in (path, *path.rglob("*")) if file.exists()]
    changed = any(file.stat().st_mtime > results.stat().st_mtime for file in files)
    return None if changed else _read_json(results)


def _read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def _comparable(resolved: dict) -> dict:
    return {name: value for name, value in resolved.items() if name not in INCIDENTAL}
