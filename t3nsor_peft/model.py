"""What the tuners of this package have in common."""

import copy
import math
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers, onload_layer
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn

from t3nsor import ShapeError, ShapeWarning, parameter_count
from t3nsor_peft.config import TTConfig
from t3nsor_peft.layer import AdaptedLayer, linear_sizes
from t3nsor_peft.mixed_batches import copies_in_generation, rows_assigned
from t3nsor_peft.quantised import check_mergeable
from t3nsor_peft.updated_linear import BROKEN, UpdatedLinear

SHOWN = 5
MAMBA_TYPES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
UNCALLED_IN_MAMBA = {"out_proj", "conv1d"}


class TrainTuner(BaseTuner):
    """Base class of tuners whose layers are updated by tensor trains."""

    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        if not self.peft_config[adapter_name].inference_mode:
            # A copy, as the shapes of this model's layers are written into it: it may be used for other models too.
            self.peft_config[adapter_name] = copy.deepcopy(self.peft_config[adapter_name])
            self.peft_config[adapter_name].forget_stale_shapes()
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def new_layer(self, base_layer: nn.Module, adapter_name: str, config: TTConfig, layer: str) -> AdaptedLayer:
        """Return the layer that replaces `base_layer`, whose name in the model is `layer`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement new_layer")

    def update(self, target: AdaptedLayer, adapter_name: str, config: TTConfig, layer: str) -> None:
        """Add an adapter to a layer that has adapters already."""
        target.update_layer(adapter_name, config, layer)

    def target_sizes(self, config: TTConfig, model: nn.Module) -> dict[str, tuple[int, int]]:
        """Return layer -> (in_features, out_features) of all that the configuration adapts, in the model's order."""
        return {
            name: linear_sizes(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module)
            for name, module in model.named_modules()
            if name and self._check_target_module_exists(config, name) and not _is_inside(model, name)
        }

    def _create_and_replace(
        self,
        peft_config: TTConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            self.update(target, adapter_name, peft_config, current_key)
            return
        layer = self.new_layer(target, adapter_name, peft_config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _prepare_model(self, peft_config: TTConfig, model: nn.Module) -> None:
        """Find everything that is wrong with the configuration before a layer of the model is replaced."""
        _maybe_include_all_linear_layers(peft_config, model)
        targets = self.target_sizes(peft_config, model)
        _check_calls(model, targets)
        _check_shapes(peft_config, targets)
        _check_patterns(peft_config, targets)
        _warn_of_excess(peft_config, targets)

    def _check_target_module_compatiblity(self, peft_config: TTConfig, model: nn.Module, target_name: str) -> None:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        if kind in MAMBA_TYPES and target_name in UNCALLED_IN_MAMBA:
            raise ValueError(
                f"{target_name!r} cannot be adapted: {kind} uses its weight without calling it; put it into "
                "exclude_modules"
            )

    # Merging all or nothing.

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        if safe_merge:
            self._check_finite(adapter_names)
        super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        if merge and safe_merge:
            self._check_finite(adapter_names)
        return super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)

    def _check_merge_allowed(self) -> None:
        """Raise ValueError, before any layer is changed, if one cannot be merged into."""
        super()._check_merge_allowed()
        _check_untied(self.model, self.tuner_layer_cls)
        for layer in self._updated_layers():
            check_mergeable(layer)

    def _check_finite(self, adapter_names: list[str] | None) -> None:
        """Raise ValueError, before any layer is changed, if a merged weight would not be finite."""
        self._check_merge_allowed()
        for layer in self._updated_layers():
            names = layer.active_adapters if adapter_names is None else adapter_names
            names = [name for name in names if layer.has_adapter(name)]
            with onload_layer(layer):
                if names and not layer.merged_weight(names).isfinite().all():
                    raise ValueError(BROKEN.format(names[-1]))

    def _updated_layers(self) -> Iterator[UpdatedLinear]:
        return (module for module in self.model.modules() if isinstance(module, self.tuner_layer_cls))

    # Mixed batches.

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        adapter_names = kwargs.pop("adapter_names", None)
        if adapter_names is None:
            yield
            return
        if not isinstance(adapter_names, (list, tuple)):
            raise TypeError(f"Got adapter names of type {type(adapter_names)}, expected a list of str.")
        if self.training:
            raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
        with rows_assigned(self, adapter_names, set(self.peft_config), copies_in_generation(self.model, kwargs)):
            yield


def _is_inside(model: nn.Module, name: str) -> bool:
    """True if a module is a part of a layer with adapters."""
    parents = name.split(".")[:-1]
    return any(
        isinstance(model.get_submodule(".".join(parents[:k])), BaseTunerLayer) for k in range(1, len(parents) + 1)
    )


def _check_calls(model: nn.Module, targets: Collection[str]) -> None:
    """Raise ValueError for layers whose weight modules of torch use without calling the layer."""
    for name in targets:
        path, _, own = name.rpartition(".")
        parent = model.get_submodule(path)
        in_attention = isinstance(parent, nn.MultiheadAttention)
        if in_attention or (isinstance(parent, nn.TransformerEncoderLayer) and own in ("linear1", "linear2")):
            raise ValueError(
                f"{name!r} cannot be adapted: nn.{'MultiheadAttention' if in_attention else 'TransformerEncoderLayer'} "
                "uses its weight without calling it; put it into exclude_modules"
            )


def _check_untied(model: nn.Module, cls: type[AdaptedLayer]) -> None:
    """Raise ValueError if two adapted layers share a weight, which would get the updates of both."""
    owners: dict[nn.Parameter, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, cls):
            first = owners.setdefault(layer.get_base_layer().weight, name)
            if first != name:
                raise ValueError(f"{first} and {name} share one weight, so adapters cannot be merged into it")


def _check_shapes(config: TTConfig, targets: dict[str, tuple[int, int]]) -> None:
    """Raise ValueError, naming layers and sizes, if a given or saved shape fits not all layers."""
    wrong = []
    for name, sizes in targets.items() if config.tt_shape or config.layer_shapes else ():
        try:
            config.core_shape(name, *sizes)
        except ShapeError as error:
            wrong.append(f"{name} ({sizes[0]} -> {sizes[1]}): {error}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        source = "layer_shapes, from an adapter of another base model," if config.layer_shapes else "tt_shape"
        raise ValueError(f"{source} does not fit {'; '.join(wrong[:SHOWN])}{more}")


def _check_patterns(config: TTConfig, targets: Collection[str]) -> None:
    """Raise ValueError for an entry of rank_pattern or alpha_pattern that matches no layer."""
    if config.inference_mode:
        return
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field, None) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in targets):
                raise ValueError(
                    f"{field}: {pattern!r} matches none of the adapted layers, such as {next(iter(targets), None)!r}"
                )


def _warn_of_excess(config: TTConfig, targets: dict[str, tuple[int, int]]) -> None:
    """Warn of layers so small that cores have more entries than the matrix, by the first of them."""
    for name, sizes in targets.items():
        shape = config.core_shape(name, *sizes)
        count, dense = parameter_count(shape.matrix, list(shape.ranks), ring=config.ring), math.prod(sizes)
        if count > dense:
            text = f"{name} ({sizes[0]} -> {sizes[1]}) gets {count:,} parameters, a dense one would have {dense:,}"
            warnings.warn(ShapeWarning(f"{text}; lower r, or put it into exclude_modules"), stacklevel=2)
            return
