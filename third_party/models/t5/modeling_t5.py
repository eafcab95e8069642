"""transformers' T5 with adapters inside.

The stock model is built or loaded first, then adapters are attached to it as submodules named `adapter_controller`, for
example `encoder.block.0.layer.1.adapter_controller.adapters.mrpc.down_sampler.weight.cores.0`. The backbone's own
modules and state-dict keys stay as they are.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

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
    """T5 with adapters; with `adapter_config=None` exactly transformers' T5.

    >>> model = T5ForConditionalGeneration.from_pretrained("google-t5/t5-base", adapter_config=AdapterConfig(...))

    The task of a batch, where the adapters know several, is an argument of the call: `model(**batch, task="mrpc")`,
    `model.generate(input_ids, task="mrpc")`; or of each row, `task=["mrpc", "mrpc", "rte"]`.
    """

    config: T5Config
    config_class = T5Config
    # The forward takes **kwargs but does not scale its loss by num_items_in_batch; without this the trainer would not
    # divide the loss by the number of accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: T5Config, adapter_config: AdapterConfig | None = None):
        super().__init__(config)
        self.adapter_config = None
        self._size_when_attached = None
        self.task_switch = TaskSwitch(("task",))
        if adapter_config is not None:
            self.attach_adapters(adapter_config)

    @classmethod
    def from_pretrained(cls, name, *args, adapter_config: AdapterConfig | None = None, dtype=torch.float32, **kwargs):
        """Load a backbone, then attach new adapters; or, from a directory of `save_adapter`, backbone and adapters.

        name: hub id, local directory or "t5-nano". dtype: of the loaded weights, float32 whatever the file holds.
        """
        if adapter_checkpoint.holds_adapter(name):
            return cls._from_adapter_checkpoint(Path(name), *args, adapter_config=adapter_config, dtype=dtype, **kwargs)
        kwargs.setdefault("use_safetensors", True)  # the other format runs what it holds
        loaded = super().from_pretrained(resolve_name(name), *args, dtype=dtype, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        model.name_or_path = str(name)
        if adapter_config is not None:
            model.attach_adapters(adapter_config)
        return loaded

    @classmethod
    def _from_adapter_checkpoint(cls, directory: Path, *args, adapter_config, **kwargs):
        saved = adapter_checkpoint.read_description(directory)
        if adapter_config is not None and adapter_config != saved.adapter_config:
            raise ConfigError(f"{directory} holds adapters of another configuration than the one that was given")
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
        """False: initialise as the stock class does (custom classes skip modules without parameters of their own)."""
        return False

    def attach_adapters(self, adapter_config: AdapterConfig):
        """Put adapters on every site that `adapter_config` asks for, as the backbone is in dtype and device; freeze the
        rest."""
        if self.adapter_config is not None:
            raise ConfigError("the model has adapters already; attach them to a fresh backbone")
        self._size_when_attached = self.backbone_size
        self.task_switch.take(adapter_config.adapter_names)  # gradient checkpointing holds this object already
        attach(self, adapter_config, self.task_switch)
        self.adapter_config = adapter_config
        freeze_model_params(self)
        self.train(self.training)  # what was attached takes the model's mode, and is merged in evaluation

    def rename_task(self, task: str):
        """Let the adapters of the model's only task be those of `task`."""
        if self.adapter_config is None or self.adapter_config.tasks == (task,):
            return
        self.adapter_config.tasks = (task,)
        self.task_switch.take((task,))
        for module in self.modules():
            if isinstance(module, AdapterController):
                module.rename_task(task)

    @property
    def backbone_size(self) -> int:
        """Number of parameters of the backbone as it was before anything was attached to it."""
        return self._size_when_attached or sum(parameter.numel() for parameter in self.parameters())

    @property
    def merged(self) -> bool:
        """Whether all branches that can be merged are merged into the weights that the model computes with."""
        return is_merged(self)

    def __call__(self, *args, task: str | Sequence[str] | None = None, **kwargs):
        with self.task_switch.pinned(task):
            return super().__call__(*args, **kwargs)

    def generate(self, *args, task: str | Sequence[str] | None = None, **kwargs):
        """transformers' `generate`, under the adapters of `task`."""
        with self.task_switch.pinned(task):
            return super().generate(*args, **kwargs)

    def resize_token_embeddings(self, new_num_tokens=None, *args, **kwargs):
        """transformers' method. Raises ConfigError with adapters, some of which have the vocabulary's size."""
        if new_num_tokens is not None and self.adapter_config is not None:
            raise ConfigError("the model has adapters; resize the embedding first, then attach them")
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def set_attn_implementation(self, *args, **kwargs):
        """transformers' method. Raises ConfigError with prefixes in the attention, which another would not see."""
        if self.adapter_config is not None and IN_ATTENTION in self.adapter_config.methods:
            raise ConfigError("attention_prefix_tuning has an attention of its own; it cannot be replaced")
        super().set_attn_implementation(*args, **kwargs)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """transformers' `save_pretrained`. Raises ConfigError with adapters, which `from_pretrained` would not find."""
        if self.adapter_config is not None and self.adapter_config.method is not None:
            raise ConfigError("the model has adapters; save them with save_adapter, beside their backbone's name")
        super().save_pretrained(save_directory, *args, **kwargs)

    def save_adapter(self, directory):
        """Write the adapters and everything else that is trained to `directory`; the backbone is not written."""
        adapter_checkpoint.save(self, Path(directory))

    def merge_and_export(self, directory):
        """Write a plain T5 with all that was trained folded into its weights, which stock transformers loads.

        Raises ConfigError, naming the reason, for methods that cannot be folded.
        """
        merge_and_export(self, Path(directory))

    def load_adapter(self, directory):
        """Load what `save_adapter` wrote. Raises ConfigError, listing the keys, unless they are those expected."""
        adapter_checkpoint.load(self, Path(directory))
        remerge(self)

    def _set_gradient_checkpointing(
        self, enable=True, gradient_checkpointing_func=torch.utils.checkpoint.checkpoint, **kwargs
    ):
        checkpoint = partial(_checkpoint_with_task, self.task_switch, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, checkpoint, **kwargs)


def _checkpoint_with_task(switch: TaskSwitch, checkpoint, function, *args, **kwargs):
    """Checkpoint `function` so that its second run, in the backward pass, sees the task of the first."""
    task = switch.current

    def run(*inputs, **keywords):
        with switch.set_to(task):
            return function(*inputs, **keywords)

    return checkpoint(run, *args, **kwargs)
