"""transformers' Seq2SeqTrainer with small checkpoints that are never left half-written, and checked when read."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch
from transformers import Seq2SeqTrainer, TrainerCallback

from common.checksums import sealed, sha256_of
from common.errors import ConfigError, Terminated, one_line
from common.files import is_full, with_free_space, write_json
from common.ownership import Ownership
from common.termination import termination
from seq2seq.checkpoint_files import RUN_FACTS, STATE, checkpoints, fault_of, read_facts
from seq2seq.sharded_training import load_model, load_states, save_states, without_ties
from third_party.models.t5 import adapter_checkpoint
from third_party.models.t5.companions import write_companions

STAGING = ".unfinished"


class CheckpointTrainer(Seq2SeqTrainer):
    """Saves and loads only the adapter where the backbone is frozen.

    A checkpoint is written under `output_dir/.unfinished` and renamed when it is complete. Besides the trainer's own
    state it stores, in `run_facts.json`, checksums of its files, `must_match`, the facts that must be the same when the
    run is resumed, and what the trainer would otherwise forget: the seconds spent, the running loss, the best
    checkpoint.
    """

    def __init__(self, *args, **kwargs):
        self.must_match: dict = {}
        self.started, self.seconds_before = perf_counter(), 0.0
        self.ownership: Ownership | None = None
        self._resumed: dict | None = None
        self._saving = False
        super().__init__(*args, **kwargs)
        self.add_callback(_CheckpointFlow(self))

    @property
    def seconds(self) -> float:
        """The seconds spent on the run, including those before the checkpoint that it was resumed from."""
        return self.seconds_before + perf_counter() - self.started

    def resume_from(self, checkpoint: Path) -> None:
        """Take over what `checkpoint` knows about the run so far; `train` loads the rest.

        Raises ConfigError if it was written with other data or another number of processes.
        """
        stored = read_facts(checkpoint)
        for name, current in self.must_match.items():
            if stored.get(name) != current:
                raise ConfigError(
                    f"{checkpoint} cannot be resumed: {name} changed from {stored.get(name)} to {current}; resume with "
                    f"the same {name}, or set resume_from_checkpoint to false to start over"
                )
        self.seconds_before = stored["seconds"]
        self.args.eval_on_start = False  # that evaluation is in the history already
        self._resumed = stored

    def restore_progress(self):
        """Take over the running loss and the best checkpoint, which the base class has reset."""
        if self._resumed is None:
            return
        total, recent, last_logged = self._resumed.get("running_loss", (0.0, 0.0, self.state.global_step))
        self._total_loss_scalar, self._globalstep_last_logged = total, last_logged
        self._tr_loss = self._tr_loss + recent
        best = self._resumed["best_checkpoint"]
        if best is not None:  # the output directory may have been renamed since
            self.state.best_model_checkpoint = str(Path(self.args.output_dir, best))
        self._resumed = None

    def log(self, logs, *args, **kwargs):
        """Log as the base class does, with the mean loss of the whole run where it was resumed."""
        if "train_loss" in logs:
            logs = {**logs, "train_loss": self._total_loss_scalar / max(self.state.global_step, 1)}
        super().log(logs, *args, **kwargs)

    def check_directory(self):
        """Raise ConfigError if the output directory was removed or replaced since the run took it over."""
        if self.ownership is not None:
            self.ownership.check()

    def save_final(self, dtype: torch.dtype):
        """Save to the output directory: the adapter, or the whole model, which is rounded to `dtype` in memory, too."""
        with self._writing(Path(self.args.output_dir)):
            if self.saves_adapter or dtype == torch.float32:
                self.save_model()
                self._write_companions()
                return
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.copy_(parameter.to(dtype))
            rounded = {}  # by address, so that tied weights remain one tensor
            state = self.accelerator.get_state_dict(self.model)
            for tensor in state.values():
                rounded.setdefault(tensor.data_ptr(), tensor.to(dtype))
            self._save(self.args.output_dir, {name: rounded[tensor.data_ptr()] for name, tensor in state.items()})
            self._write_companions()

    def _write_companions(self):
        if self.args.should_save:
            write_companions(self.model, Path(self.args.output_dir))

    @property
    def saves_adapter(self) -> bool:
        config = self.model.adapter_config
        return config is not None and config.freeze_backbone

    def _save(self, output_dir=None, state_dict=None):
        directory = Path(output_dir or self.args.output_dir)
        if not self.saves_adapter:
            if self.is_fsdp_enabled:
                state_dict = without_ties(self.model, state_dict)
            super()._save(str(directory), state_dict)
            (directory / "training_args.bin").unlink(missing_ok=True)  # a pickle, which may contain passwords
        elif self.args.should_save or self.is_fsdp_enabled:
            adapter_checkpoint.save(self.model, directory, self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.saves_adapter:
            self.model.load_adapter(resume_from_checkpoint)
        elif self.is_fsdp_enabled:
            load_model(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self):
        best = Path(self.state.best_model_checkpoint)
        fault = fault_of(best)
        if fault is not None:
            raise ConfigError(f"{best}, the best checkpoint, cannot be loaded: {fault}")
        if self.saves_adapter:
            self.model.load_adapter(best)
        elif self.is_fsdp_enabled:
            load_model(self.model, best)
        else:
            super()._load_best_model()

    def _save_optimizer_and_scheduler(self, output_dir):
        if self.is_fsdp_enabled:
            save_states(self, Path(output_dir))
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if self.is_fsdp_enabled and checkpoint is not None:
            load_states(self, Path(checkpoint))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)

    def _run_epoch(self, *args, **kwargs):
        stopped = self.state.global_step >= self.state.max_steps or self.control.should_training_stop
        if not stopped:  # the base class would train one step more after resuming
            super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial):
        directory = super()._get_output_dir(trial)
        return os.path.join(directory, STAGING) if self._saving else directory

    def _save_checkpoint(self, model, trial):
        directory, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        staged, final = directory / STAGING / name, directory / name
        with self._writing(final):
            self._saving = True
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._saving = False
            if self.state.best_model_checkpoint == str(staged):
                self.state.best_model_checkpoint = str(final)
            running_loss = [self._total_loss_scalar, self._mean_recent_loss(), self._globalstep_last_logged]
            self.accelerator.wait_for_everyone()  # each process writes its random number state
            if self.args.should_save:
                self._complete(staged, running_loss)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(staged, final)
                staged.parent.rmdir()
        if self.args.should_save:
            fault = fault_of(final)
            if fault is not None:
                raise ConfigError(f"{final} was not kept as it was written ({fault}); look at the disk")
            self._remove_old_checkpoints(directory, keep=final)
        self.accelerator.wait_for_everyone()

    def _complete(self, staged: Path, running_loss: list):
        """Write the run facts of a checkpoint, after everything else is on the disk."""
        best = self.state.best_model_checkpoint
        facts = {
            **self.must_match,
            "seconds": self.seconds,
            "running_loss": running_loss,
            "best_checkpoint": None if best is None else Path(best).name,
        }
        self.state.best_model_checkpoint = None  # the path would be wrong once the output directory is renamed
        self.state.save_to_json(str(staged / STATE))
        self.state.best_model_checkpoint = best
        files = {}
        for path in sorted(staged.iterdir()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            files[path.name] = sha256_of(path)
        write_json(staged / RUN_FACTS, sealed(facts, files))

    def _mean_recent_loss(self) -> float:
        """Return the loss since the last line of the log, summed over steps, as the mean of all processes."""
        return self.accelerator.gather(self._tr_loss.reshape(1)).mean().item()

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Turn the errors of a full or failing disk into a ConfigError; remove what was not finished."""
        self.check_directory()
        try:
            yield
        except BaseException as error:
            if self.args.should_save:
                shutil.rmtree(Path(self.args.output_dir, STAGING), ignore_errors=True)
            if isinstance(error, ConfigError) or not _of_disk(error):
                raise
            raise ConfigError(
                f"{path} cannot be written: {with_free_space(one_line(error), error, path)}; what was saved before is "
                "whole, and the same command goes on from it"
            ) from None

    def _remove_old_checkpoints(self, directory: Path, keep: Path):
        """Remove all but the newest `save_total_limit` checkpoints, the one just written and the best one."""
        if not self.args.save_total_limit:
            return
        kept = {str(keep), self.state.best_model_checkpoint}
        for old in checkpoints(directory)[: -self.args.save_total_limit]:
            if str(old) not in kept:
                shutil.rmtree(old)


class _CheckpointFlow(TrainerCallback):
    """When checkpoints are written, beyond the default flow.

    At the end of an epoch or of training one is written after the evaluation that belongs there; a run that is resumed
    from an earlier one would skip it. After SIGTERM one is written at once, and then the run ends.
    """

    def __init__(self, trainer: CheckpointTrainer):
        self.trainer, self.postponed = trainer, False

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.restore_progress()

    def on_step_end(self, args, state, control, **kwargs):
        ends = control.should_training_stop or state.epoch == int(state.epoch)
        wanted = control.should_save or termination.requested
        self.postponed = wanted and ends
        control.should_save = wanted and not ends

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save = control.should_save or self.postponed or termination.requested
        self.postponed = False

    def on_save(self, args, state, control, **kwargs):
        if termination.requested:
            raise Terminated(f"terminated; the same command goes on from checkpoint-{state.global_step}")


def _of_disk(error: BaseException) -> bool:
    """Return True if an error of the system, or of a library that reports it in words, is about writing a file."""
    return isinstance(error, OSError) or is_full(error) or "os error" in str(error)
