"""T5 of transformers, with adapters.

The plain model is built or loaded first, then adapters are attached to it as submodules with state-dict keys such as
`encoder.block.0.layer.1.adapter_controller.adapters.mrpc.down_sampler.weight.cores.0`. The backbone's own modules and
state-dict keys do not change.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.hooks import RemovableHandle

from adapters import AdapterConfig, PerTask, TaskSwitch, is_merged
from common.errors import ConfigError
from third_party.models.t5 import adapter_checkpoint
from third_party.models.t5.adapter_description import holds_peft, try_bases
from third_party.models.t5.adapter_match import check_given, check_plan
from third_party.models.t5.attach import attach
from third_party.models.t5.attached import check_attached
from third_party.models.t5.checkpointing import checkpoint_with_task
from third_party.models.t5.companions import DATA, SCORES, companions_in
from third_party.models.t5.configuration_t5 import SHIPPED, T5Config, resolve_name
from third_party.models.t5.detach import detach
from third_party.models.t5.freezing import freeze_model_params
from third_party.models.t5.guards import Guarded, check_plain
from third_party.models.t5.hub import adapter_directory
from third_party.models.t5.loading import UNLOADABLE, check_finite, check_loaded, without_report
from third_party.models.t5.saved_tensors import added_tensors, loadable_names
from third_party.models.t5.sharing import Sharable


class T5ForConditionalGeneration(Sharable, Guarded, transformers.T5ForConditionalGeneration):
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

    def __init__(self, config: transformers.PreTrainedConfig, adapter_config: AdapterConfig | None = None):
        # Before super().__init__, which enables gradient checkpointing if the configuration says so.
        self.adapter_config: AdapterConfig | None = None
        self.backbone_path: str | None = None
        self.companions: dict[str, bytes] = {}
        self._backbone_size: int | None = None
        self.task_switch = TaskSwitch(("task",))
        self.adapter_hooks: list[RemovableHandle] = []
        super().__init__(T5Config.of(config))
        if adapter_config is not None:
            self.attach_adapters(adapter_config)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        adapter_config: AdapterConfig | None = None,
        dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a backbone and attach new adapters, or load both by a saved adapter, of ours or of peft.

        pretrained_model_name_or_path: hub id or local directory, of a backbone or of an adapter; or "t5-nano"; None
            with `config` and `state_dict`.
        adapter_config: configuration of the adapters; None attaches none to a backbone. Of a saved adapter it may
            change keys that do not affect the stored tensors.
        dtype: dtype of the loaded weights, "auto" for that of the file; None: float32. `torch_dtype` is its older name.
        args, kwargs: passed to `from_pretrained` of transformers, whose result is returned.
        Raises ConfigError if the file is of another architecture, lacks tensors of the model or has others.
        """
        name = pretrained_model_name_or_path
        older_name = kwargs.pop("torch_dtype", None)
        kwargs["dtype"] = next((given for given in (dtype, older_name) if given is not None), torch.float32)
        place = name if name is None or not kwargs.get("subfolder") else os.path.join(name, kwargs["subfolder"])
        adapter = adapter_directory(name, kwargs)
        if adapter is not None:
            of_hub = () if os.path.isdir(name) else ("revision", "force_download")  # those of the adapter
            kwargs = {key: value for key, value in kwargs.items() if key not in ("subfolder", *of_hub)}
            return cls._from_adapter_checkpoint(adapter, *args, adapter_config=adapter_config, **kwargs)
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True  # the other format can execute code
        wants_info, mismatched = kwargs.pop("output_loading_info", False), kwargs.pop("ignore_mismatched_sizes", False)
        with without_report():
            model, info = super().from_pretrained(
                None if name is None else resolve_name(name),
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        check_loaded(info, name or "state_dict", ignore_mismatched_sizes=mismatched)
        check_finite(model, name or "state_dict")
        if name is not None:
            local = os.path.isdir(place) and str(name) not in SHIPPED
            model.name_or_path = str(place if local else name)
            model.backbone_path = os.path.abspath(place) if local else None
            model.companions = companions_in(place) if local else {}
        if adapter_config is not None:
            model.attach_adapters(adapter_config)
        return (model, info) if wants_info else model

    @classmethod
    def _from_adapter_checkpoint(
        cls, directory: Path, *args: Any, adapter_config: AdapterConfig | None, **kwargs: Any
    ) -> Any:
        base_config = cls._base_config(directory) if holds_peft(directory) else None
        saved, _ = adapter_checkpoint.read(directory, base_config)  # what is wrong there is no fault of the backbone
        config = adapter_config or saved.adapter_config
        check_given(config, saved, directory)

        def load(base: str) -> Any:
            loaded = cls.from_pretrained(base, *args, **kwargs)
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            check_plan(model, config, saved, directory)
            model.attach_adapters(config)
            model.load_adapter(directory)
            model.companions = companions_in(directory) or model.companions
            return loaded

        return try_bases(directory, load, UNLOADABLE)

    @classmethod
    def _base_config(cls, directory: Path) -> T5Config:
        """The backbone's configuration, as the files of an adapter of peft do not say which layers it leaves out."""
        adapter_checkpoint.read(directory)
        return try_bases(directory, T5Config.from_pretrained, UNLOADABLE)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: transformers skips modules without own parameters when it initialises custom classes."""
        return False

    def attach_adapters(self, adapter_config: AdapterConfig) -> None:
        """Attach adapters, with the dtype and device of the backbone, and freeze the rest.

        Raises ConfigError if the model has adapters already, if a method finds nothing to adapt or trains nothing, or
        if the backbone is not an ordinary T5.
        """
        if self.adapter_config is not None:
            raise ConfigError("the model has adapters already; remove them with detach_adapters() first")
        check_plain(self)
        self._forget_training()
        self._backbone_size = self.backbone_size
        self.task_switch.set_tasks(adapter_config.adapter_names)  # in place: gradient checkpointing has a reference
        attach(self, adapter_config, self.task_switch)
        self.adapter_config = adapter_config
        freeze_model_params(self)
        check_attached(self)
        self.train(self.training)  # sets the mode of the new modules, and merges them in evaluation

    def _forget_training(self) -> None:
        for name in (DATA, SCORES):
            self.companions.pop(name, None)

    def detach_adapters(self) -> None:
        """Remove the adapters: the model is its backbone again, all of whose parameters require gradients.

        What was trained of the backbone itself stays trained, in the backbone's dtype; as no file has these weights
        then, the model forgets the name it was loaded by. Without adapters, nothing happens.
        """
        if self.adapter_config is None:
            return
        if loadable_names(self) - added_tensors(self).keys():
            self.name_or_path, self.backbone_path = "", None
        detach(self)
        self._forget_training()
        self.adapter_config = self._backbone_size = None
        self.task_switch.set_tasks(("task",))

    def rename_task(self, task: str) -> None:
        """Rename the model's only task to `task`, keeping its adapters."""
        if self.adapter_config is None or self.adapter_config.tasks == (task,):
            return
        self.adapter_config.tasks = (task,)
        self.task_switch.set_tasks((task,))
        for module in self.modules():
            if isinstance(module, PerTask):
                module.rename_task(task)

    def adapters_disabled(self) -> AbstractContextManager[None]:
        """Compute as the plain backbone within a `with` block, in forward passes and in `generate`.

        Nothing that was attached takes part, be it merged or not, and no task need be named. What was trained of the
        backbone itself, such as its layer norms with `unfreeze_layer_norms`, stays trained. It holds in this thread
        only, and backward passes may follow after the block.

        >>> with model.adapters_disabled():
        ...     logits = model(**batch).logits
        """
        return self.task_switch.disabled()

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Tie what is tied. An output layer of its own, as T5 v1.1 has, stays one, though config.json calls it tied."""
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=False)

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
        if "encoder_outputs" in kwargs:
            kwargs["encoder_outputs"] = copy(kwargs["encoder_outputs"])  # with beams, it is repeated in place
        with self.task_switch.pinned(task, self._copies_in_generation(args, kwargs)):
            return super().generate(*args, **kwargs)

    def _copies_in_generation(self, args: Sequence[Any], options: dict[str, Any]) -> int:
        """How often `generate` repeats each row: for each beam, or for each sequence that it returns."""
        given = args[1] if len(args) > 1 else options.get("generation_config")
        places = [options.get, *(partial(getattr, config) for config in (given, self.generation_config) if config)]

        def setting(name: str) -> int:
            return next((value for place in places if isinstance(value := place(name), int)), 1)

        return max(setting("num_beams"), setting("num_return_sequences"))

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = torch.utils.checkpoint.checkpoint,
        **kwargs: Any,
    ) -> None:
        checkpoint = partial(checkpoint_with_task, self.task_switch, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, checkpoint, **kwargs)
