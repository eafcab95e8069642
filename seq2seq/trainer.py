"""transformers' Seq2SeqTrainer with small checkpoints that are either whole or not there."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import Seq2SeqTrainer, TrainerState

from adapters import ConfigError, one_line, warn_once
from adapters.memory import MemoryReport, measure_memory
from seq2seq.data import Task

STAGING = ".unfinished"
STATE = "trainer_state.json"


class AdapterTrainer(Seq2SeqTrainer):
    """Saves and loads an adapted model's adapter instead of the model; scores generated text by the task's metrics.

    A checkpoint is written under `output_dir/.unfinished` and moved to its name when it is complete.
    """

    def __init__(self, *, task: Task, **kwargs):
        self.task = task
        args = fit_arguments(kwargs["args"], task)
        existed = os.path.isdir(args.output_dir)  # else the base class makes it
        try:
            super().__init__(**kwargs, compute_metrics=self.score if args.predict_with_generate else None)
            if args.do_train:
                self._check_optimizer()
        except (ValueError, TypeError, RuntimeError, ImportError, OSError) as error:
            if not existed and os.path.isdir(args.output_dir):
                os.rmdir(args.output_dir)
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"the trainer cannot be set up: {one_line(error)}") from None

    def _check_optimizer(self):
        """Build optimizer and schedule once, to fail early; training builds its own."""
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ConfigError("do_train is true but these keys leave no parameter to train")
        self.create_optimizer()
        super().create_scheduler(num_training_steps=1000)
        self.optimizer = self.lr_scheduler = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's loss and the task's auxiliary loss."""
        fields = {name: inputs.pop(name) for name in self.task.extra_fields}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = loss + self.task.auxiliary_loss(outputs, inputs, fields)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args, **kwargs):
        """As the base class, with random numbers of its own: every evaluation has the same, training none of them."""
        with torch.random.fork_rng():
            torch.manual_seed(self.args.seed)
            return super().evaluate(*args, **kwargs)

    def score(self, prediction) -> dict[str, float]:
        """Metrics of generated tokens, and their mean as "average_metrics"."""
        scores = self.task.score(self.decode(prediction.predictions), self.decode(prediction.label_ids))
        return {**scores, "average_metrics": float(np.mean(list(scores.values())))}

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Texts of token rows padded with -100."""
        tokenizer = self.processing_class
        return tokenizer.batch_decode(np.where(tokens < 0, tokenizer.pad_token_id, tokens), skip_special_tokens=True)

    def evaluate_split(self, task: Task, split: str, rows) -> dict[str, float]:
        """The metrics of `task` on tokenised rows, and the loss."""
        self.task = task
        logged = self.evaluate(rows, metric_key_prefix=split)
        return {name: logged[f"{split}_{name}"] for name in (*task.metrics, "loss") if f"{split}_{name}" in logged}

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

    def measure_memory(self) -> MemoryReport:
        """The memory of one training step, layer by layer, on the first batch; the training does not change by it."""
        with torch.random.fork_rng():  # drawing a batch uses random numbers of the training
            batch = next(iter(self.get_train_dataloader()))
        optimizer, self.optimizer = self.create_optimizer(), None  # training builds its own
        if self.args.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)

        def step() -> torch.Tensor:
            with self.accelerator.autocast():
                return self.compute_loss(self.model, dict(batch))

        self.model.train()
        return measure_memory(self.model, step, optimizer)

    def export(self, directory: Path):
        """Write the model as a plain T5, with its tokenizer. Raises ConfigError where it cannot be one."""
        if self.args.should_save:
            self.model.merge_and_export(directory)
            self.processing_class.save_pretrained(directory)

    def create_scheduler(self, num_training_steps, optimizer=None):
        """As the base class; a warm-up that would take the whole training takes a tenth of it."""
        if self.args.get_warmup_steps(num_training_steps) >= num_training_steps:
            shorter = num_training_steps // 10
            warn_once(
                f"warmup_steps is {self.args.warmup_steps}, training has {num_training_steps}: taken as {shorter}"
            )
            self.args.warmup_steps = shorter
        return super().create_scheduler(num_training_steps, optimizer)

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
        if state.best_model_checkpoint is not None:
            best = Path(self.args.output_dir, Path(state.best_model_checkpoint).name)
            if not best.is_dir():
                raise ConfigError(
                    f"{checkpoint} names {best.name} as the best, which is missing; "
                    "set resume_from_checkpoint to false to start anew"
                )
            state.best_model_checkpoint = str(best)
            state.save_to_json(str(checkpoint / STATE))

    def _load_best_model(self):
        if self._saves_adapter:
            self.model.load_adapter(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _get_output_dir(self, trial):
        directory = super()._get_output_dir(trial)
        return os.path.join(directory, STAGING) if self._saving else directory

    _saving = False

    def _save_checkpoint(self, model, trial):
        directory, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        staged, final = directory / STAGING / name, directory / name
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving = False
        if self.args.should_save:
            if self.state.best_model_checkpoint == str(staged):
                self.state.best_model_checkpoint = str(final)
            self.state.save_to_json(str(staged / STATE))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(staged, final)
            staged.parent.rmdir()
            self._remove_old_checkpoints(directory, keep=final)

    def _remove_old_checkpoints(self, directory: Path, keep: Path):
        """Keep the newest `save_total_limit` checkpoints, and always the last and the best."""
        if not self.args.save_total_limit:
            return
        kept = {str(keep), self.state.best_model_checkpoint}
        for old in checkpoints(directory)[: -self.args.save_total_limit]:
            if str(old) not in kept:
                shutil.rmtree(old)


def fit_arguments(args, task: Task):
    """Training arguments made to fit the task and adapted models, in place. Raises ConfigError where they cannot."""
    args.predict_with_generate &= bool(task.metrics)
    args.prediction_loss_only = not args.predict_with_generate
    known = (*task.metrics, "average_metrics", "loss") if args.predict_with_generate else ("loss",)
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if args.load_best_model_at_end and best not in known:
        raise ConfigError(f"metric_for_best_model is {best!r}; {task.name} has: {', '.join(known)}")
    args.remove_unused_columns = False  # the data hold nothing but what the collator needs
    args._n_gpu = min(args.n_gpu, 1)  # DataParallel would run every replica with the adapters of the first
    return args


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("checkpoint-*") if path.name[len("checkpoint-") :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len("checkpoint-") :]))
