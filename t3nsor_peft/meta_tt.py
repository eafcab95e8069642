"""MetaTT (Lopez-Piqueres et al. 2025, https://arxiv.org/abs/2506.09105): one tensor train for many layers.

y = x W0^T + s * x W[l, t], where l is the block of a layer and t its type, such as self_attn.q_proj. Layers whose two
sizes are equal, in either order, share one set of cores; those that map from the larger to the smaller size use the
transpose. A set has the parameters of one TT-matrix and r^2 (layers + types); see `t3nsor.cross_layer`. s = lora_alpha
/ r. The last core of the TT-matrix starts at zero.

The first layer of a set owns the cores, as peft sees what layers own: it trains, casts, saves and deletes them there.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft.utils import get_quantization_kwargs
from torch import nn

from t3nsor import ShapeError
from t3nsor.cross_layer import near_identity, selected_cores
from t3nsor_peft.config import BranchConfig
from t3nsor_peft.cores import CoreShape, NamedCores, converted, initial_cores
from t3nsor_peft.model import TrainTuner
from t3nsor_peft.registration import peft_type
from t3nsor_peft.updated_linear import UpdatedLinear, dropout_layer


@dataclass
class MetaTTConfig(BranchConfig):
    """MetaTT: one set of cores for all layers of equal sizes. The fields say more. Raises ValueError for bad values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("META_TT")

    def core_shape(self, layer: str, in_features: int, out_features: int) -> CoreShape:
        small, large = sorted((in_features, out_features))
        shape = super().core_shape(sizes_key(small, large), small, large)
        if len(shape.rows) < 2:
            raise ShapeError("d is 1; MetaTT puts modes between cores: d must be at least 2")
        return shape


class Place(NamedTuple):
    """The place of a layer among those that share its cores.

    block, kind: its indices; blocks, kinds: how many there are.
    """

    block: int
    blocks: int
    kind: int
    kinds: int


class CrossLayerCores(NamedCores):
    """`core_0`, .. from the smaller to the larger size, and L and T as `core_layer` and `core_kind`."""

    def __init__(self, cores: Sequence[torch.Tensor], frozen: Sequence[int], rank: int, place: Place):
        super().__init__(cores, frozen)
        self.core_layer = nn.Parameter(near_identity(rank, place.blocks))
        self.core_kind = nn.Parameter(near_identity(rank, place.kinds))

    def selected(self, place: Place, dtype: torch.dtype | None) -> list[torch.Tensor]:
        """The cores of the matrix of one place, in `dtype`. Raises RuntimeError if a part of them is elsewhere."""
        if self.core_layer.dim() != 3 or hasattr(self.core_layer, "device_mesh"):
            raise RuntimeError(
                "MetaTT's cores are sharded, as those of another layer, while this layer needs them; wrap the model as "
                "a whole, without its blocks"
            )
        layers, kinds, *cores = converted([self.core_layer, self.core_kind, *self], dtype)
        return selected_cores(cores, layers, kinds, place.block, place.kind)


class MetaTTLinear(UpdatedLinear):
    """x W0^T + b + s * x W[l, t]. State-dict keys, in the first layer of a set: `meta_tt_cores.ADAPTER.core_0`, ..

    owner: the layer that owns the cores; None: this one.
    """

    adapter_layer_names = ("meta_tt_cores",)
    other_param_names = ("meta_tt_dropout", "scaling", "initial_scaling", "rings", "places", "owners")
    dropout_name = "meta_tt_dropout"

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: MetaTTConfig,
        layer: str,
        place: Place,
        owner: "MetaTTLinear | None",
        **quantization: Any,
    ):
        super().__init__(base_layer, adapter_name, **quantization)
        self.meta_tt_cores, self.meta_tt_dropout = nn.ModuleDict(), nn.ModuleDict()
        self.rings: dict[str, bool] = {}
        self.places: dict[str, Place] = {}
        self.owners: dict[str, MetaTTLinear] = {}  # a plain dictionary, so that they are no submodules of this one
        self.update_layer(adapter_name, config, layer, place, owner)

    def update_layer(
        self, adapter_name: str, config: MetaTTConfig, layer: str, place: Place, owner: "MetaTTLinear | None"
    ) -> None:
        """Add an adapter."""
        if owner is None:
            shape = config.core_shape(layer, self.in_features, self.out_features)
            config.layer_shapes[sizes_key(self.in_features, self.out_features)] = shape.to_json()
            frozen = config.frozen_cores(len(shape.rows))
            cores = initial_cores(shape, config.ring, frozen, zero=config.init_weights)
            self.meta_tt_cores[adapter_name] = CrossLayerCores(cores, frozen, cores[0].shape[-1], place)
        self.owners[adapter_name] = owner or self
        self.places[adapter_name] = place
        self.meta_tt_dropout[adapter_name] = dropout_layer(config.lora_dropout)
        self.rings[adapter_name] = config.ring
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = config.lora_alpha / config.r
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def has_adapter(self, adapter: str) -> bool:
        return adapter in self.owners

    def operands(
        self, adapter: str, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[float, Sequence[torch.Tensor], bool]]:
        shared = self.owners[adapter].meta_tt_cores[adapter]
        cores = shared.selected(self.places[adapter], dtype)
        if not self.weight.is_meta:  # as that of an offloaded layer, which computes elsewhere
            cores = [core.to(self.weight.device) for core in cores]
        if self.in_features > self.out_features:
            cores = [core.transpose(1, 2) for core in cores]
        yield self.scaling[adapter], cores, self.rings[adapter]


class MetaTTModel(TrainTuner):
    """The tuner of MetaTT; arguments as for `TTLoraModel`."""

    prefix = "meta_tt_"
    tuner_layer_cls = MetaTTLinear

    def _prepare_model(self, peft_config: MetaTTConfig, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        self._places = places(self.target_sizes(peft_config, model))
        self._owners: dict[str, MetaTTLinear] = {}  # of the adapter that is being added, by sizes

    def new_layer(self, base_layer: nn.Module, adapter_name: str, config: MetaTTConfig, layer: str) -> MetaTTLinear:
        return self._add(config, adapter_name, base_layer, layer)

    def update(self, target: MetaTTLinear, adapter_name: str, config: MetaTTConfig, layer: str) -> None:
        self._add(config, adapter_name, target, layer)

    def _add(self, config: MetaTTConfig, adapter_name: str, target: nn.Module, layer: str) -> MetaTTLinear:
        key, place = self._places[layer]
        arguments = adapter_name, config, layer, place, self._owners.get(key)
        if isinstance(target, MetaTTLinear):
            target.update_layer(*arguments)
        else:
            target = MetaTTLinear(target, *arguments, **get_quantization_kwargs(self))
        self._owners.setdefault(key, target)
        return target


def sizes_key(first: int, second: int) -> str:
    """The name of the set of cores of layers with these two sizes."""
    return "{}x{}".format(*sorted((first, second)))


def places(sizes: dict[str, tuple[int, int]]) -> dict[str, tuple[str, Place]]:
    """Return layer -> (name of its set, place in it).

    sizes: layer -> (in_features, out_features). In "model.layers.3.mlp.up_proj" the block is what ends with the first
    number, and the type is the rest.
    """
    found = {}
    for key in dict.fromkeys(sizes_key(*pair) for pair in sizes.values()):
        parts = {name: _split(name) for name, pair in sizes.items() if sizes_key(*pair) == key}
        blocks, kinds = (list(dict.fromkeys(column)) for column in zip(*parts.values(), strict=True))
        for name, (block, kind) in parts.items():
            found[name] = key, Place(blocks.index(block), len(blocks), kinds.index(kind), len(kinds))
    return found


def _split(layer: str) -> tuple[str, str]:
    match = re.match(r"(.*?\.\d+)\.(.*)", layer)
    return (match[1], match[2]) if match else ("", layer)
