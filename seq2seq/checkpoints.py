"""transformers' Seq2SeqTrainer with small checkpoints that are either whole or not there."""

import json
import os
import shutil
from pathlib import Path
from time import perf_counter

import torch
from transformers import Seq2SeqTrainer, TrainerState

from common.errors import ConfigError, one_line

STAGING = ".unfinished"
STATE = "trainer_state.json"
FACTS = "run_facts.json"


class CheckpointTrainer(Seq2SeqTrainer):
    """Saves and loads an adapted model's adapter instead of the model.

    A checkpoint is written under `output_dir/.unfinished` and moved to its name when it is complete. Beside the
    trainer's own state it holds `facts`, what must be the same when the run goes on, and the seconds it took so far.
    """

    def __init__(self, *args, **kwargs):
        self.facts: dict = {}
        self.started, self.seconds_before = perf_counter(), 0.0
        self._saving = False
        super().__init__(*args, **kwargs)

    @property
    def seconds(self) -> float:
        """Since the run started, with what it took before it was interrupted, up to the checkpoint it goes on from."""
        return self.seconds_before + perf_counter() - self.started

    def resume_from(self, checkpoint: Path) -> None:
        """Raise ConfigError if other data or another number of processes wrote `checkpoint`: the rest would not fit."""
        try:
            there = json.loads((checkpoint / FACTS).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{checkpoint} cannot be gone on with ({one_line(error)}); set resume_from_checkpoint to false"
            ) from None
        for name, here in self.facts.items():
            if there.get(name) != here:
                raise ConfigError(
                    f"{checkpoint} belongs to a run with other {name} ({there.get(name)}, now {here}); go on with the "
                    "same, or set resume_from_checkpoint to false to start anew"
                )
        self.seconds_before = there["seconds"]

    def save_final(self, dtype: torch.dtype):
        """Save to the output directory: the adapter, or the whole model rounded to `dtype`, in memory too."""
        if self._saves_adapter or dtype == torch.float32:
            self.save_model()
            return
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(parameter.to(dtype))
        rounded = {}  # by address, so that tied weights stay one tensor
        state = self.model.state_dict()
        for tensor in state.values():
            rounded.setdefault(tensor.data_ptr(), tensor.to(dtype))
        self._save(self.args.output_dir, {name: rounded[tensor.data_ptr()] for name, tensor in state.items()})

    @property
    def _saves_adapter(self) -> bool:
        config = self.model.adapter_config
        return config is not None and config.freeze_backbone

    def _save(self, output_dir=None, state_dict=None):
        if not self._saves_adapter:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            self.model.save_adapter(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        self._find_best_again(Path(resume_from_checkpoint))
        if self._saves_adapter:
            self.model.load_adapter(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _find_best_again(self, checkpoint: Path):
        """The directory may have another name than when the checkpoint was written: correct the best one's path."""
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        written = state.best_model_checkpoint
        if written is not None:
            best = Path(self.args.output_dir, Path(written).name)
            if not best.is_dir():
                raise ConfigError(
                    f"{checkpoint} names {best.name} as the best, which is missing; "
                    "set resume_from_checkpoint to false to start anew"
                )
            state.best_model_checkpoint = str(best)
        self.accelerator.wait_for_everyone()  # all have read it
        if self.args.should_save and state.best_model_checkpoint != written:
            state.save_to_json(str(checkpoint / STATE))
        self.accelerator.wait_for_everyone()  # and will read it again

    def _load_best_model(self):
        if self._saves_adapter:
            self.model.load_adapter(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _get_output_dir(self, trial):
        directory = super()._get_output_dir(trial)
        return os.path.join(directory, STAGING) if self._saving else directory

    def _save_checkpoint(self, model, trial):
        directory, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        staged, final = directory / STAGING / name, directory / name
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = False
        if self.state.best_model_checkpoint == str(staged):
            self.state.best_model_checkpoint = str(final)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            self.state.save_to_json(str(staged / STATE))
            (staged / FACTS).write_text(json.dumps({**self.facts, "seconds": self.seconds}))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(staged, final)
            staged.parent.rmdir()
            self._remove_old_checkpoints(directory, keep=final)
        self.accelerator.wait_for_everyone()

    def _remove_old_checkpoints(self, directory: Path, keep: Path):
        """Keep the newest `save_total_limit` checkpoints, and always the last and the best."""
        if not self.args.save_total_limit:
            return
        kept = {str(keep), self.state.best_model_checkpoint}
        for old in checkpoints(directory)[: -self.args.save_total_limit]:
            if str(old) not in kept:
                shutil.rmtree(old)


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("checkpoint-*") if path.name[len("checkpoint-") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len("checkpoint-") :]))
