"""transformers' training arguments with our additional keys and checks."""

import json
import os
from dataclasses import dataclass, fields

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import FSDPOption

from common.errors import ConfigError, require
from common.json_settings import has_type
from common.json_text import not_finite, parse_json, read_json
from common.secrets import is_secret, without_secrets
from seq2seq.arguments import SPLIT_SEED, OwnTrainingArguments

# Ranges that transformers does not check, or only once the run is under way.
ALLOWED = {
    "at least 1": (
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "generation_num_beams",
        "save_total_limit",
        "early_stopping_patience",
        "eval_accumulation_steps",
        "torch_empty_cache_steps",
    ),
    "at least 2": ("generation_max_length",),  # the start token and one more
    "above 0": ("num_train_epochs", "logging_steps", "eval_steps", "save_steps"),
    "at least 0": (
        "learning_rate",
        "weight_decay",
        "max_grad_norm",
        "warmup_steps",
        "dataloader_num_workers",
        "adam_epsilon",
        "eval_delay",
        "neftune_noise_alpha",
    ),
    "at most 1,000": ("generation_num_beams",),
    "at most 10,000": ("generation_max_length",),
    "at most 10,000,000": ("max_steps",),
    "at most 1,000,000": ("per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs"),
    "at least 0 and below 2**32": ("seed", "data_seed", "seeds"),
    "at least 0 and below 1": ("adam_beta1", "adam_beta2", "label_smoothing_factor"),
    "a non-empty name": ("experiment_name", "output_dir", "metric_for_best_model"),
}
# Keys that work at one value only: that value, and why.
ONLY = {
    "dataloader_drop_last": (False, "rows of validation and test would be skipped"),
    "eval_do_concat_batches": (True, "the predictions of a split are scored together"),
    "batch_eval_metrics": (False, "the predictions of a split are scored together"),
    "label_names": (["labels"], "a batch has no other labels"),
    "debug": ("", "its checks fail on the masks of T5"),
    "use_liger_kernel": (False, "there are no such kernels for T5"),
    "enable_jit_checkpoint": (False, "SIGTERM writes a checkpoint anyway"),
}
RENAMED_BY_TRANSFORMERS = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
OBJECTS = ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
# An object, or the name of a file that holds one.
OBJECTS_OR_FILES = ("accelerator_config", "fsdp_config", "deepspeed")


@dataclass
class TrainingArguments(OwnTrainingArguments, Seq2SeqTrainingArguments):
    """All training keys: transformers' and ours."""

    @property
    def device(self) -> torch.device:
        """The base class's device, but "cpu" for "cpu:0" (several processes): torch loads no checkpoint onto that."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def split_seed(self) -> int:
        """The seed of the shuffles that cut splits and limit rows; it does not depend on `seed`."""
        return SPLIT_SEED if self.data_seed is None else self.data_seed

    def __post_init__(self):
        for allowed, names in ALLOWED.items():
            require(self, allowed, *names)
        if not self.fsdp:
            self.fsdp_config = None
        self._check_values()
        self._check_combinations()
        self.output_dir = os.path.normpath(self.output_dir)  # checkpoints are compared by path
        if not torch.accelerator.is_available():
            self.use_cpu = True  # else transformers refuses bf16, which CPUs support
            self.dataloader_pin_memory = False
            self.tf32 = None  # which has no effect there, and which transformers would refuse
        super().__post_init__()

    def __getstate__(self) -> dict:
        """Return what is pickled, without secrets."""
        return without_secrets(vars(self)) | {name: None for name in vars(self) if is_secret(name)}

    def _check_values(self):
        self.debug = self.debug or ""
        for name, (value, why) in ONLY.items():
            given = getattr(self, name, value)
            if given not in (value, None):
                raise ConfigError(f"{name} is {json.dumps(given)}, but {why}; set it to {json.dumps(value)}")
        for name in (*OBJECTS, *OBJECTS_OR_FILES):
            given = getattr(self, name, None)
            if isinstance(given, str):
                given = _object_of(given, name)
                setattr(self, name, given)
            if not has_type(given, dict | None):
                raise ConfigError(f"{name} is {json.dumps(given)}; it must be an object")
        for f in fields(self):
            if not_finite(getattr(self, f.name, None)) is not None:
                raise ConfigError(f"{f.name} is {getattr(self, f.name)}; it must be finite")
        options = [option.value for option in FSDPOption]
        if isinstance(self.fsdp, str) and not {*self.fsdp.split()} <= {*options}:
            raise ConfigError(f"fsdp is {self.fsdp!r}; allowed: {', '.join(options)}, separated by spaces")
        if self.optim_args and any(part.count("=") != 1 for part in self.optim_args.split(",")):
            raise ConfigError(f'optim_args is {self.optim_args!r}; it must be written "name=value, name=value"')
        if self.max_steps < 1 and self.max_steps != -1:
            raise ConfigError(f"max_steps is {self.max_steps}; it must be at least 1, or -1 for num_train_epochs")

    def _check_combinations(self):
        """Raise ConfigError for keys that exclude each other; set those aside that would only do harm."""
        if self.save_only_model and self.save_strategy != "no":
            raise ConfigError(
                "save_only_model is true, but a checkpoint without its optimizer cannot be resumed, as every "
                'interrupted run is; set it to false, or save_strategy to "no"'
            )
        if self.dataloader_persistent_workers and not self.dataloader_num_workers:
            raise ConfigError(
                "dataloader_persistent_workers is true, but dataloader_num_workers is 0; set it to at least 1"
            )
        if not self.dataloader_num_workers:
            self.dataloader_multiprocessing_context = None
        if "RANK" not in os.environ:
            self.ddp_backend = None
        if self.early_stopping_patience is not None:
            self._check_early_stopping()
        if not self.compares_models:  # transformers would look the metric up without need, and fail
            self.metric_for_best_model = self.greater_is_better = None
        self._use_newer_names()
        for name in ("adam_beta1", "adam_beta2"):  # torch takes no whole numbers
            setattr(self, name, float(getattr(self, name)))

    def _check_early_stopping(self):
        patience = f"early_stopping_patience is {self.early_stopping_patience}, but"
        if self.eval_strategy == "no":
            raise ConfigError(
                f'{patience} eval_strategy is "no", so no evaluation can show that training stopped improving; set '
                'eval_strategy and save_strategy to "epoch" or "steps"'
            )
        if not self.load_best_model_at_end:
            raise ConfigError(
                f"{patience} load_best_model_at_end is false, so the run would end with a model that it found to be "
                "worse; set load_best_model_at_end to true"
            )

    @property
    def compares_models(self) -> bool:
        """True if a metric decides which model is the best one, or how to train on."""
        plateau = self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy")
        return self.load_best_model_at_end or plateau or self.save_strategy == "best"

    def _use_newer_names(self):
        """Hand keys on under the names that transformers has given them since, as it warns about the older ones."""
        for old, new in RENAMED_BY_TRANSFORMERS.items():
            if not hasattr(self, new) or getattr(self, old) is None:
                continue
            if getattr(self, new) not in (None, getattr(self, old)):
                raise ConfigError(f"{old} and {new} are the same key; set only {new}")
            setattr(self, new, getattr(self, old))
            setattr(self, old, None)


def _object_of(text: str, name: str) -> object:
    """Return the value of a JSON text, or of the file of that name if the key allows one."""
    if name in OBJECTS or text.lstrip().startswith("{"):
        return parse_json(text, name)
    try:
        return read_json(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
