"""transformers' training arguments with our additional keys and checks."""

import os
from dataclasses import dataclass

import torch
from transformers import Seq2SeqTrainingArguments

from common.errors import ConfigError, require
from seq2seq.arguments import SPLIT_SEED, OwnTrainingArguments

# Ranges that transformers does not check, or only once the run is under way.
ALLOWED = {
    "at least 1": (
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "generation_num_beams",
        "save_total_limit",
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
    ),
    "at least 0 and below 2**32": ("seed", "data_seed", "seeds"),
    "at least 0 and below 1": ("adam_beta1", "adam_beta2", "label_smoothing_factor"),
    "a non-empty name": ("experiment_name", "output_dir"),
}


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
        if self.dataloader_drop_last:
            raise ConfigError(
                "dataloader_drop_last is true, which would skip rows of validation and test; set it to false"
            )
        self.output_dir = os.path.normpath(self.output_dir)  # checkpoints are compared by path
        if not torch.accelerator.is_available():
            self.use_cpu = True  # else transformers refuses bf16, which CPUs support
            self.dataloader_pin_memory = False
        super().__post_init__()
