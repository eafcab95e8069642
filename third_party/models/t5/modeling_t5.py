"""T5 of transformers, with adapters.

The plain model is built or loaded first, then adapters are attached to it as submodules with state-dict keys such as
`encoder.block.0.layer.1.adapter_controller.adapters.mrpc.down_sampler.weight.cores.0`. The backbone's own modules and
state-dict keys do not change.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from adapters import AdapterConfig, AdapterController, TaskSwitch, is_merged, remerge
from adapters.sites import IN_ATTENTION
from common.errors import ConfigError
from third_party.models.t5 import adapter_checkpoint
from third_party.models.t5.attach import attach
from third_party.models.t5.configuration_t5 import T5Config, resolve_name
from third_party.models.t5.export import merge_and_export
from third_party.models.t5.freezing import freeze_model_params


class T5ForConditionalGeneration(transformers.T5ForConditionalGeneration):
    """T5 with adapters; with `adapter_config=None` it is exactly the T5 of transformers.

    >>> model = T5ForConditionalGeneration.from_pretrained("google-t5/t5-base", adapter_config=AdapterConfig(...))

    If the model has adapters for several tasks, pass the task of the batch with each call, `model(**batch,
    task="mrpc")` or `model.generate(input_ids, task="mrpc")`, or one task per row, `task=["mrpc", "mrpc", "rte"]`.
    """

    config: T5Config
    config_class = T5Config
    # forward() accepts **kwargs but does not scale its loss by num_items_in_batch; without this line, the trainer would
    # not divide the loss by the number of accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: T5Config, adapter_config: AdapterConfig | None = None):
        super().__init__(config)
        self.adapter_config: AdapterConfig | None = None
        self._backbone_size: int | None = None
        self.task_switch = TaskSwitch(("task",))
        if adapter_config is not None:
            self.attach_adapters(adapter_config)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *args: Any,
        adapter_config: AdapterConfig | None = None,
        dtype: torch.dtype | str = torch.float32,
        **kwargs: Any,
    ) -> Any:
        """Load a backbone and attach new adapters, or load both from a directory written by `save_adapter`.

        name: hub id, local directory or "t5-nano".
        adapter_config: configuration of the adapters; None attaches none to a backbone.
        dtype: dtype of the loaded weights, whatever that of the file.
        args, kwargs: passed to `from_pretrained` of transformers, whose result is returned.
        """
        if adapter_checkpoint.holds_adapter(name):
            return cls._from_adapter_checkpoint(Path(name), *args, adapter_config=adapter_config, dtype=dtype, **kwargs)
        kwargs.setdefault("use_safetensors", True)  # the other format can execute code
        loaded = super().from_pretrained(resolve_name(name), *args, dtype=dtype, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        model.name_or_path = str(name)
        if adapter_config is not None:
            model.attach_adapters(adapter_config)
        return loaded

    @classmethod
    def _from_adapter_checkpoint(
        cls, directory: Path, *args: Any, adapter_config: AdapterConfig | None, **kwargs: Any
    ) -> Any:
        saved = adapter_checkpoint.read_description(directory)
        if adapter_config is not None and adapter_config != saved.adapter_config:
            raise ConfigError(
                f"{directory} contains adapters of another configuration than adapter_config; leave adapter_config out"
            )
        if saved.base_model is None:
            raise ConfigError(
                f"{directory} was trained on a backbone that was never saved; build that backbone and call load_adapter"
            )
        loaded = cls.from_pretrained(saved.base_model, *args, adapter_config=saved.adapter_config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.load_adapter(directory)
        return loaded

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: transformers skips modules without own parameters when it initialises custom classes."""
        return False

    def attach_adapters(self, adapter_config: AdapterConfig) -> None:
        """Attach adapters, with the dtype and device of the backbone, and freeze the rest.

        Raises ConfigError if the model has adapters already.
        """
        if self.adapter_config is not None:
            raise ConfigError("the model has adapters already; attach new ones to a fresh backbone")
        self._backbone_size = self.backbone_size
        self.task_switch.set_tasks(adapter_config.adapter_names)  # in place: gradient checkpointing has a reference
        attach(self, adapter_config, self.task_switch)
        self.adapter_config = adapter_config
        freeze_model_params(self)
        self.train(self.training)  # sets the mode of the new modules, and merges them in evaluation

    def rename_task(self, task: str) -> None:
        """Rename the model's only task to `task`, keeping its adapters."""
        if self.adapter_config is None or self.adapter_config.tasks == (task,):
            return
        self.adapter_config.tasks = (task,)
        self.task_switch.set_tasks((task,))
        for module in self.modules():
            if isinstance(module, AdapterController):
                module.rename_task(task)

    @property
    def backbone_size(self) -> int:
        """Number of parameters of the backbone, without adapters."""
        return self._backbone_size or sum(parameter.numel() for parameter in self.parameters())

    @property
    def merged(self) -> bool:
        """True if all branches that can be merged are merged."""
        return is_merged(self)

    def __call__(self, *args: Any, task: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        with self.task_switch.pinned(task):
            return super().__call__(*args, **kwargs)

    def generate(self, *args: Any, task: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Call `generate` of transformers with the adapters of `task`."""
        with self.task_switch.pinned(task):
            return super().generate(*args, **kwargs)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any
    ) -> torch.nn.Embedding:
        """Resize as transformers does. Raises ConfigError with adapters, as some depend on the vocabulary size."""
        if new_num_tokens is not None and self.adapter_config is not None:
            raise ConfigError("the model has adapters; resize the embedding first, then attach them")
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """Set it as transformers does. Raises ConfigError with attention_prefix_tuning, which others would ignore."""
        if self.adapter_config is not None and IN_ATTENTION in self.adapter_config.methods:
            raise ConfigError(
                "attention_prefix_tuning needs its own attention implementation, which cannot be replaced"
            )
        super().set_attn_implementation(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does. Raises ConfigError with adapters, which `from_pretrained` could not restore."""
        if self.adapter_config is not None and self.adapter_config.method is not None:
            raise ConfigError(
                "the model has adapters; save them with save_adapter, which refers to the backbone by name"
            )
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.adapter_config is not None and self.dtype.itemsize == 2:  # beside trained weights, which are float32
            self.config.dtype = "float32"
            self.config.save_pretrained(save_directory)

    def save_adapter(self, directory: str | os.PathLike) -> None:
        """Write the adapters and all other trained parameters to `directory`, without the backbone."""
        adapter_checkpoint.save(self, Path(directory))

    def merge_and_export(self, directory: str | os.PathLike) -> None:
        """Write a plain T5, loadable by transformers alone, with everything that was trained folded into its weights.

        Raises ConfigError, with the reason, if a method cannot be folded.
        """
        merge_and_export(self, Path(directory))

    def load_adapter(self, directory: str | os.PathLike) -> None:
        """Load the tensors written by `save_adapter` into a model that has the same adapters attached.

        Raises ConfigError, listing the differences, if they do not match the model.
        """
        adapter_checkpoint.load(self, Path(directory))
        remerge(self)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = torch.utils.checkpoint.checkpoint,
        **kwargs: Any,
    ) -> None:
        checkpoint = partial(_checkpoint_with_task, self.task_switch, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, checkpoint, **kwargs)


def _checkpoint_with_task(
    switch: TaskSwitch, checkpoint: Callable[..., Any], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Checkpoint `function` so that recomputing it in the backward pass uses the task of the forward pass."""
    task = switch.current

    def run(*inputs: Any, **keywords: Any) -> Any:
        with switch.restored(task):
            return function(*inputs, **keywords)

    return checkpoint(run, *args, **kwargs)
