"""transformers' Seq2SeqTrainer with small checkpoints that are never left half-written."""

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
RUN_FACTS = "run_facts.json"


class CheckpointTrainer(Seq2SeqTrainer):
    """Saves and loads only the adapter where the backbone is frozen.

    A checkpoint is written under `output_dir/.unfinished` and renamed when it is complete. Besides the trainer's own
    state it stores `must_match`, the facts that must be the same when the run is resumed, and the seconds spent so far.
    """

    def __init__(self, *args, **kwargs):
        self.must_match: dict = {}
        self.started, self.seconds_before = perf_counter(), 0.0
        self._saving = False
        super().__init__(*args, **kwargs)

    @property
    def seconds(self) -> float:
        """The seconds spent on the run, including those before the checkpoint that it was resumed from."""
        return self.seconds_before + perf_counter() - self.started

    def resume_from(self, checkpoint: Path) -> None:
        """Check `checkpoint` and take over its elapsed time; `train` loads the rest.

        Raises ConfigError if it cannot be read, or was written with other data or another number of processes.
        """
        try:
            stored = json.loads((checkpoint / RUN_FACTS).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{checkpoint} cannot be resumed ({one_line(error)}); set resume_from_checkpoint to false to start over"
            ) from None
        for name, current in self.must_match.items():
            if stored.get(name) != current:
                raise ConfigError(
                    f"{checkpoint} cannot be resumed: {name} changed from {stored.get(name)} to {current}; resume with "
                    f"the same {name}, or set resume_from_checkpoint to false to start over"
                )
        self.seconds_before = stored["seconds"]

    def save_final(self, dtype: torch.dtype):
        """Save to the output directory: the adapter, or the whole model, which is rounded to `dtype` in memory, too."""
        if self._saves_adapter or dtype == torch.float32:
            self.save_model()
            return
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(parameter.to(dtype))
        rounded = {}  # by address, so that tied weights remain one tensor
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
        self._relocate_best_checkpoint(Path(resume_from_checkpoint))
        if self._saves_adapter:
            self.model.load_adapter(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _relocate_best_checkpoint(self, checkpoint: Path):
        """Update the path of the best checkpoint, as the output directory may have been renamed since."""
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        written = state.best_model_checkpoint
        if written is not None:
            best = Path(self.args.output_dir, Path(written).name)
            if not best.is_dir():
                raise ConfigError(
                    f"{checkpoint} names {best.name} as the best checkpoint, which is missing; "
                    "set resume_from_checkpoint to false to start over"
                )
            state.best_model_checkpoint = str(best)
        self.accelerator.wait_for_everyone()  # all processes have read the state
        if self.args.should_save and state.best_model_checkpoint != written:
            state.save_to_json(str(checkpoint / STATE))
        self.accelerator.wait_for_everyone()  # the base class reads it again

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
        self.accelerator.wait_for_everyone()  # each process writes its random number state
        if self.args.should_save:
            self.state.save_to_json(str(staged / STATE))
            (staged / RUN_FACTS).write_text(json.dumps({**self.must_match, "seconds": self.seconds}))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(staged, final)
            staged.parent.rmdir()
            self._remove_old_checkpoints(directory, keep=final)
        self.accelerator.wait_for_everyone()

    def _remove_old_checkpoints(self, directory: Path, keep: Path):
        """Remove all but the newest `save_total_limit` checkpoints, the one just written and the best one."""
        if not self.args.save_total_limit:
            return
        kept = {str(keep), self.state.best_model_checkpoint}
        for old in checkpoints(directory)[: -self.args.save_total_limit]:
            if str(old) not in kept:
                shutil.rmtree(old)


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("checkpoint-*") if path.name[len("checkpoint-") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len("checkpoint-") :]))
