"""Train on the rows of one or several tasks, and score each task with its own metrics."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from adapters.merging import conversions_undone
from common.errors import ConfigError, one_line, warn_once
from seq2seq.arguments import DataTrainingArguments
from seq2seq.checkpoints import CheckpointTrainer
from seq2seq.data.batches import TaskRows, collator_for, concatenate_tokens
from seq2seq.data.mixing import TaskSampler
from seq2seq.data.parts import parts_of
from seq2seq.data.tasks import Task, average_of
from seq2seq.divergence import DivergenceGuard
from seq2seq.early_stopping import EarlyStopping
from seq2seq.memory import MemoryReport, measure_memory
from seq2seq.metrics import OLDER_NAMES
from seq2seq.sharded_training import prepare_sharding


class AdapterTrainer(CheckpointTrainer):
    """Trains on one or several tasks and evaluates on one or several tasks.

    The loss of a step is the mean over the target tokens of all its rows, however they are split into accumulated
    batches and processes. With class_weights, each token's loss is multiplied by its row's weight before that.
    """

    def __init__(
        self,
        *,
        training: Sequence[TaskRows],
        validation: Sequence[TaskRows],
        tasks: Sequence[Task],
        data: DataTrainingArguments,
        **kwargs,
    ):
        """Set up the trainer, and check that an optimizer can be built.

        training, validation: the rows of each task; empty if the run does not train or validate.
        tasks: the tasks to train on, given even if the run does not train.
        data: how tasks are mixed.
        kwargs: arguments of transformers' trainer, `model`, `args` and `processing_class` among them.
        Raises ConfigError.
        """
        self.training_rows, self.validation_rows, self.data = training, validation, data
        self.task, self.scored, self.predictions, self.unpadded_rows_left = tasks[0], None, {}, 0
        self.row_weights: torch.Tensor | None = None
        several = len(kwargs["model"].task_switch.tasks) > 1
        args = fit_arguments(kwargs["args"], [rows.task for rows in validation] or tasks, several)
        existed = os.path.isdir(args.output_dir)  # if not, the base class creates it
        try:
            super().__init__(
                **kwargs,
                train_dataset=concatenate_tokens(training) if training else None,
                eval_dataset=validation[0].tokens if validation else None,
                data_collator=collator_for(tasks[0], kwargs["processing_class"], kwargs["model"]),
                compute_metrics=self.score if args.predict_with_generate else None,
                compute_loss_func=self.token_loss,
            )
            if self.is_fsdp_enabled:
                prepare_sharding(self)
            if args.do_train:
                self._check_optimizer()
        except (ValueError, TypeError, ArithmeticError, RuntimeError, ImportError, OSError) as error:
            if not existed:
                with suppress(FileNotFoundError):  # another process may have been faster
                    os.rmdir(args.output_dir)
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"the trainer cannot be set up: {one_line(error)}") from None
        data_hash = hashlib.sha256("".join(str(rows.fingerprint) for rows in (*training, *validation)).encode())
        self.must_match = {"processes": self.args.world_size, "data": data_hash.hexdigest()[:16]}
        if self.is_fsdp_enabled:
            self.must_match["sharded"] = True
        self.sampler, self.splits_batches = None, self._splits_batches()
        self.guard = DivergenceGuard(self)
        self.add_callback(self.guard)
        self.add_callback(_SetSamplerEpoch(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(args.early_stopping_patience))

    def _check_optimizer(self):
        """Build optimizer and schedule once, so that errors show early; training builds its own."""
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ConfigError(
                "do_train is true, but this configuration leaves no parameter to train; choose a method or unfreeze "
                "a part of the model"
            )
        self.create_optimizer()
        schedule = super().create_scheduler(num_training_steps=1000)
        for rate in getattr(schedule, "lr_lambdas", ()):
            for step in (0, 1, 500, 1000):  # lr_scheduler_kwargs may fail at the end only
                float(rate(step))
        self.optimizer = self.lr_scheduler = None

    def _splits_batches(self) -> bool:
        """Return split_by_length; for null True if splitting batches changes nothing but their time and rounding."""
        args = self.args
        if args.split_by_length is not None:
            return args.split_by_length
        dropout = any(isinstance(module, nn.Dropout) and module.p for module in self.model.modules())
        alone_on_cpu = args.world_size == 1 and args.device.type == "cpu"
        return alone_on_cpu and not (dropout or args.neftune_noise_alpha or args.torch_compile)

    def token_loss(self, outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
        """Return the cross entropy summed over target tokens, divided by their number in the whole step, if known."""
        weights = self.row_weights
        total = cross_entropy(
            outputs.logits.flatten(0, 1).float(),
            labels.flatten(),
            reduction="sum" if weights is None else "none",
            label_smoothing=self.args.label_smoothing_factor,
        )
        if weights is not None:
            total = weights @ total.view(labels.shape).sum(1)
        return total / (num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum())

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the token loss, weighted by the task, plus the task's auxiliary loss.

        num_items_in_batch: the number of target tokens in the whole step.
        """
        inputs = dict(inputs)
        fields = {name: inputs.pop(name) for name in self.task.batch_fields}
        self.row_weights = inputs.pop("weight", None)  # for the token loss, which the base class calls
        if "decoder_input_ids" not in inputs:  # the base class removes the labels
            inputs["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(inputs["labels"])
        tokens = num_items_in_batch if model.training else None  # in evaluation, the mean of each batch
        inputs.setdefault("use_cache", False)  # which a loss has no use for
        loss, outputs = super().compute_loss(model, inputs, True, tokens)
        parts = 1 if tokens is None else self.current_gradient_accumulation_steps
        loss = self.task.token_weight * loss + self.task.auxiliary_loss(outputs, inputs, fields) / parts
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Compute gradients as the base class does, part by part if batches are split; return the loss.

        The guard against divergence sees it, too.
        """
        parts = parts_of(inputs) if self.splits_batches else [inputs]
        losses = []
        for part in parts:
            with nullcontext() if part is parts[-1] else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        self.guard.loss = self.guard.loss + loss
        return loss

    def _get_train_sampler(self, train_dataset=None):
        args, data = self.args, self.data
        grouped = args.train_sampling_strategy == "group_by_length"
        self.sampler = TaskSampler(
            [len(rows) for rows in self.training_rows],
            args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            lengths=np.concatenate([rows.lengths for rows in self.training_rows]) if grouped else None,
            mixing=data.mixing,
            limit=data.mixing_limit,
            temperature=data.mixing_temperature,
            mixed=data.mixed_batches,
            shuffled=args.train_sampling_strategy != "sequential",
            seed=args.data_seed if args.data_seed is not None else args.seed,
        )
        return self.sampler

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)  # predictions must be in the order of the texts

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval", rows=None):
        """Return the scores of each task of `rows` (by default the validation rows), and their averages.

        Keys are `eval_accuracy`, or with several tasks `eval_{task}_accuracy`, with `eval_average_metrics` and
        `eval_loss` over all tasks. Every evaluation uses the same random numbers and consumes none of training's.
        """
        rows, logged, self.predictions = self.validation_rows if rows is None else rows, {}, {}
        for each in rows:
            prefix = metric_key_prefix if len(rows) == 1 else f"{metric_key_prefix}_{each.task.name}"
            self.scored = each
            with own_randomness(self.args.device):
                torch.manual_seed(self.args.seed)
                logged |= super().evaluate(each.tokens, ignore_keys, metric_key_prefix=prefix)
        if len(rows) > 1:
            averages = {}
            for name in ("average_metrics", "loss"):
                values = [logged.get(f"{metric_key_prefix}_{each.task.name}_{name}") for each in rows]
                if None not in values:
                    averages[f"{metric_key_prefix}_{name}"] = float(np.mean(values))
            self.log(averages)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, averages)
            logged |= averages
        return logged

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """Evaluate as the base class does; padding rows of the last batch are excluded from loss and metrics.

        With bf16_full_eval or fp16_full_eval the base class converts the model, and leaves it converted.
        """
        self.gather_function = self.accelerator.gather_for_metrics
        self.unpadded_rows_left = len(dataloader.dataset)
        converts = (self.args.bf16_full_eval or self.args.fp16_full_eval) and not self.is_in_train
        with conversions_undone(self.model) if converts else nullcontext():
            return super().evaluation_loop(dataloader, *args, **kwargs)

    def prediction_step(self, model, inputs, *args, **kwargs):
        """Predict with the labels of padding rows masked; the processes receive consecutive batches of equal size."""
        rows = len(inputs["input_ids"])
        unpadded = min(max(self.unpadded_rows_left - self.args.process_index * rows, 0), rows)
        self.unpadded_rows_left -= self.args.world_size * rows
        if unpadded < rows:
            labels = inputs["labels"].clone()
            labels[unpadded:] = -100
            inputs = {**inputs, "labels": labels}
        if self.args.predict_with_generate and not self.is_fsdp_enabled:  # which gathers weights for whole calls only
            inputs = self._encoded(self._prepare_inputs(inputs))
        return super().prediction_step(model, inputs, *args, **kwargs)

    @torch.no_grad()
    def _encoded(self, batch: dict) -> dict:
        """Return the batch with the states of its sources: the base class needs them for the loss and to generate."""
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with self.model.task_switch.pinned(batch.get("task")):
            states = self.model.encoder(**source)
        return {**{name: value for name, value in batch.items() if name != "input_ids"}, "encoder_outputs": states}

    def score(self, prediction) -> dict[str, float]:
        """Return the metrics of generated tokens and their mean, "average_metrics"; keep the texts in `predictions`."""
        task = self.scored.task
        predictions = self.predictions[task.name] = task.answers(self.decode(prediction.predictions))
        scores = task.score(predictions, self.scored.references())
        return {**scores, "average_metrics": average_of(scores)}

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Decode rows of tokens that are padded with -100."""
        tokenizer = self.processing_class
        return tokenizer.batch_decode(np.where(tokens < 0, tokenizer.pad_token_id, tokens), skip_special_tokens=True)

    def measure_memory(self) -> MemoryReport:
        """Measure the memory of one training step on the first batch, layer by layer, without affecting training."""
        with own_randomness(self.args.device):  # drawing a batch consumes random numbers
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
        """Write the model as a plain T5, with its companions. Raises ConfigError if the adapters cannot be merged."""
        if self.args.should_save:
            self.check_directory()
            self.model.merge_and_export(directory)

    def create_scheduler(self, num_training_steps, optimizer=None):
        """Create the scheduler; a warm-up as long as all of training is shortened to a tenth of it."""
        if self.args.get_warmup_steps(num_training_steps) >= num_training_steps:
            shorter = num_training_steps // 10
            warn_once(
                f"warmup_steps is {self.args.warmup_steps}, but training has only {num_training_steps} "
                f"step{'s' * (num_training_steps > 1)}; using {shorter}"
            )
            self.args.warmup_steps = shorter
        return super().create_scheduler(num_training_steps, optimizer)


def own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Restore, at the end, the random states of the CPU and of the device that this process trains on."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng([device], device_type=device.type)


class _SetSamplerEpoch(TrainerCallback):
    """Sets the sampler's epoch, which the base class does not do in every process after resuming."""

    def __init__(self, trainer: AdapterTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.sampler.set_epoch(int(state.epoch))


def fit_arguments(args, tasks: Sequence[Task], several: bool):
    """Adjust training arguments, in place, to the tasks and the model.

    tasks: the tasks to validate on.
    several: True if there are several tasks, each with adapters of its own.
    Raises ConfigError if the arguments do not suit them.
    """
    args.predict_with_generate &= all(bool(task.metrics) for task in tasks)
    args.prediction_loss_only = not args.predict_with_generate
    known = ["average_metrics", "loss"] if args.predict_with_generate else ["loss"]
    for task in tasks if args.predict_with_generate else ():
        known = [*(name if len(tasks) == 1 else f"{task.name}_{name}" for name in task.metrics), *known]
    for older, name in OLDER_NAMES.items() if args.metric_for_best_model else ():
        args.metric_for_best_model = args.metric_for_best_model.replace(older, name)
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if args.compares_models and best not in known:
        names = " and ".join(task.name for task in tasks)
        raise ConfigError(f"metric_for_best_model is {best!r}; allowed for {names}: {', '.join(known)}")
    if args.train_sampling_strategy not in ("random", "sequential", "group_by_length"):
        raise ConfigError(
            f"train_sampling_strategy is {str(args.train_sampling_strategy)!r}; allowed: random, sequential, "
            "group_by_length"
        )
    args.remove_unused_columns = False  # the collator needs every column
    args._n_gpu = min(args.n_gpu, 1)  # DataParallel would run every replica with the adapters of the first
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = several  # a step trains only the adapters of its task
    return args
