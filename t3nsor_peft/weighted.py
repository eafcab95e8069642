"""Weighted sums of adapters, as a further adapter: exact by adding trains, or rounded to a rank."""

import copy
import functools
import operator
from typing import Literal

import torch

from t3nsor import ShapeError
from t3nsor.scaling import relative_error
from t3nsor.tensor_train import CoreChain, TensorRing, TensorTrain
from t3nsor_peft.config import check_number
from t3nsor_peft.cores import CoreShape, exact_dtype
from t3nsor_peft.updated_linear import UpdatedLinear

COMBINATIONS = ("cat", "svd")


class WeightedSums:
    """Gives a tuner whose layers have cores of their own `add_weighted_adapter`."""

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: Literal["cat", "svd"] = "cat",
        svd_rank: int | None = None,
    ) -> dict[str, float]:
        """Add the adapter sum_i weights_i * adapters_i. Its update has the scale 1, whatever theirs is.

        combination_type: "cat": exact, the ranks add up. "svd": rounded to rank `svd_rank`, or to the largest `r` of
            the adapters.

        Returns layer -> relative error of the update in the Frobenius norm; zero up to rounding for "cat".
        Raises ValueError if an adapter does not exist, if the new one does, or if their trains have different shapes.
        """
        self._check_sum(adapters, weights, adapter_name, combination_type, svd_rank)
        layers = {name: module for name, module in self.model.named_modules() if isinstance(module, UpdatedLinear)}
        sums: dict[str, CoreChain] = {}
        errors: dict[str, float] = {}
        for name, layer in layers.items():
            parts = [(a, w) for a, w in zip(adapters, weights, strict=True) if layer.has_adapter(a)]
            if parts:
                try:
                    exact = functools.reduce(operator.add, [c for a, w in parts for c in _chains(layer, a, w)])
                except ShapeError as error:
                    raise ValueError(f"{name}: adapters of different shapes have no sum as a train: {error}") from None
                rank = svd_rank or max(self.peft_config[a].r for a in adapters)
                sums[name] = exact if combination_type == "cat" else exact.round(rank=rank)
                errors[name] = relative_error(sums[name].full(), exact.full())
        self._add_sums(sums, self.peft_config[adapters[0]], adapter_name, layers)
        return errors

    def _add_sums(self, sums: dict[str, CoreChain], like, adapter_name: str, layers: dict[str, UpdatedLinear]) -> None:
        config = copy.deepcopy(like)
        config.target_modules, config.exclude_modules = set(sums), None
        config.layers_to_transform = config.layers_pattern = config.tt_shape = config.freeze_cores = None
        config.rank_pattern, config.alpha_pattern, config.use_rslora, config.init_weights = {}, {}, False, True
        config.r = max(max(chain.ranks) for chain in sums.values())
        config.lora_alpha = config.r
        config.layer_shapes = {name: _shape(chain).to_json() for name, chain in sums.items()}
        config.shapes_chosen_for = {}
        self.peft_config[adapter_name] = config
        try:
            self.inject_adapter(self.model, adapter_name)
        except Exception:
            self.delete_adapter(adapter_name)  # from the layers, too, that have it already
            raise
        with torch.no_grad():
            for name, chain in sums.items():
                for core, value in zip(layers[name].tt_lora_cores[adapter_name], chain.cores, strict=True):
                    core.copy_(value)

    def _check_sum(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str,
        svd_rank: int | None,
    ) -> None:
        if not all(isinstance(each, list | tuple) for each in (adapters, weights)):
            raise ValueError(f"adapters is {adapters!r} and weights is {weights!r}; both must be lists")
        if not adapters or len(adapters) != len(weights):
            raise ValueError(f"{len(adapters)} adapters and {len(weights)} weights; give one weight for each adapter")
        for weight in weights:
            check_number("a weight", weight)
        for adapter in adapters:
            if adapter not in self.peft_config:
                raise ValueError(f"Adapter {adapter} does not exist; there are: {', '.join(self.peft_config)}")
        if "." in adapter_name:
            raise ValueError(f"adapter_name is {adapter_name!r}; the name of a module has no dots")
        if adapter_name in self.peft_config:
            raise ValueError(f"adapter_name is {adapter_name!r}, an adapter that exists; choose another name")
        if combination_type not in COMBINATIONS:
            raise ValueError(f"combination_type is {combination_type!r}; allowed: {', '.join(COMBINATIONS)}")
        if svd_rank is not None and (combination_type != "svd" or svd_rank < 1):
            raise ValueError(f"svd_rank is {svd_rank}; it must be at least 1, with combination_type 'svd'")
        if any(self.peft_config[adapter].modules_to_save for adapter in adapters):
            raise ValueError("adapters with modules_to_save have no weighted sum: those modules are whole, not updates")


def _chains(layer: UpdatedLinear, adapter: str, weight: float) -> list[CoreChain]:
    """The trains whose sum is weight * the update of an adapter, in `exact_dtype`."""
    return [
        (TensorRing if closed else TensorTrain)([core.detach() for core in cores]) * (weight * scale)
        for scale, cores, closed in layer.operands(adapter, exact_dtype(layer.weight.device))
    ]


def _shape(chain: CoreChain) -> CoreShape:
    rows, columns = chain.raw_shape
    return CoreShape(rows, columns, chain.ranks[:-1] if chain.closed else chain.ranks[1:-1])
