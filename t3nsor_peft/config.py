"""The configurations of the methods. Each field says what it means in its help."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from peft.config import PeftConfig
from peft.utils.other import get_pattern_key

from t3nsor import ShapeError, linear_shape, useful_ranks
from t3nsor.cores import FreezeCores, frozen_indices
from t3nsor.shapes import check_matrix_shape
from t3nsor_peft.cores import CoreShape
from t3nsor_peft.model_card import say_how_to_load
from t3nsor_peft.registration import peft_type

SHAPE_MODES = {"square": "ascending", "skewed": "skewed"}
SHAPE_FIELDS = ("r", "d", "tt_shape", "auto_shape_mode", "ring", "rank_pattern", "reduction_factor")


@dataclass
class TTConfig(PeftConfig):
    """What the methods of this package have in common: where they go, and the shape of their trains."""

    target_modules: list[str] | str | None = field(
        default=None,
        metadata={"help": "Names of the modules to adapt, a regular expression, or 'all-linear'."},
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names of modules to leave out, or a regular expression."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Indices of the blocks to adapt; None: all."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of blocks, if layers_to_transform is used."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules that are trained as a whole and saved, such as a classifier."}
    )
    r: int = field(default=8, metadata={"help": "Rank of every bond; cut where a bond cannot use as much."})
    d: int | Literal["auto"] = field(
        default=2, metadata={"help": "Number of cores; 'auto': the one with the fewest parameters."}
    )
    tt_shape: list[list[int]] | None = field(
        default=None,
        metadata={
            "help": "Factors [[in_1, .., in_d], [out_1, .., out_d]] for every adapted layer, swapped for layers that "
            "map the other way. None: factors are chosen for d cores."
        },
    )
    auto_shape_mode: Literal["square", "skewed"] = field(
        default="square",
        metadata={
            "help": "square: factors as equal as possible. skewed: two cores [[in / q, q], [q, out / q]] with q about "
            "8, which have LoRA's parameters and q * q times its matrix rank."
        },
    )
    ring: bool = field(default=False, metadata={"help": "Tensor rings instead of tensor trains."})
    freeze_cores: str | list[int] | None = field(
        default=None, metadata={"help": "Cores that keep their start: 'first', 'last' or a list of indices."}
    )
    layer_shapes: dict[str, list[list[int]]] = field(
        default_factory=dict,
        metadata={
            "help": "Factors and ranks of every adapted layer, [[in factors], [out factors], [ranks]]. Filled in when "
            "layers are adapted, so that a saved adapter depends on no later choice of shapes."
        },
    )
    shapes_chosen_for: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "The fields that layer_shapes were chosen by. Filled in; if they change, so do the shapes."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("`layers_to_transform` cannot be used when `target_modules` is a str.")
        if isinstance(self.target_modules, str) and self.layers_pattern is not None:
            raise ValueError("`layers_pattern` cannot be used when `target_modules` is a str.")
        if self.layers_pattern and not self.layers_to_transform and self.layers_to_transform != 0:
            raise ValueError("When `layers_pattern` is specified, `layers_to_transform` must also be specified.")
        self._check_trains()

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        say_how_to_load(save_directory, self.peft_type.value)  # peft writes its model card before its configuration

    def _check_trains(self) -> None:
        self.layer_shapes = self.layer_shapes or {}
        check_whole("r", self.r)
        check_flag("ring", self.ring)
        if self.d != "auto":
            check_whole("d", self.d)
        if self.auto_shape_mode not in SHAPE_MODES:
            raise ValueError(f"auto_shape_mode is {self.auto_shape_mode!r}; allowed: {', '.join(SHAPE_MODES)}")
        if self.auto_shape_mode == "skewed" and self.d not in (2, "auto"):
            raise ValueError(f"d is {self.d}; a skewed shape has 2 cores")
        if self.tt_shape is not None:
            check_matrix_shape(self.tt_shape)

    def forget_stale_shapes(self) -> None:
        """Empty layer_shapes if a field that they were chosen by has another value now."""
        present = {name: getattr(self, name) for name in SHAPE_FIELDS if hasattr(self, name)}
        present = json.loads(json.dumps(present))  # as in a file, which has lists for tuples
        if self.shapes_chosen_for not in ({}, present):
            self.layer_shapes = {}
        self.shapes_chosen_for = present

    def rank_of(self, layer: str) -> int:
        """The rank that the configuration asks for in a layer."""
        return self.r

    def core_shape(self, layer: str, in_features: int, out_features: int) -> CoreShape:
        """Return the shape of the cores of a layer: the saved one, tt_shape, or an automatic one.

        Raises ShapeError if it does not fit.
        """
        if layer in self.layer_shapes:
            return CoreShape.checked(self.layer_shapes[layer], in_features, out_features, self.ring)
        shape, rank = self._factors(layer, in_features, out_features), self.rank_of(layer)
        return CoreShape(*shape, tuple(useful_ranks(shape, rank, self.ring)))

    def frozen_cores(self, d: int) -> tuple[int, ...]:
        """Indices of the cores of a train of `d` that are never trained. Raises ShapeError for others."""
        frozen: FreezeCores = self.freeze_cores
        return frozen_indices(frozen, d, "freeze_cores")

    def _factors(self, layer: str, in_features: int, out_features: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.tt_shape is None:
            mode, options = SHAPE_MODES[self.auto_shape_mode], {"d": self.d, "ring": self.ring}
            return linear_shape(in_features, out_features, rank=self.rank_of(layer), mode=mode, **options)
        given = check_matrix_shape(self.tt_shape)
        for shape in (given, given[::-1]):
            try:
                return check_matrix_shape(shape, in_features, out_features)
            except ShapeError:
                continue
        return check_matrix_shape(given, in_features, out_features)


@dataclass
class BranchConfig(TTConfig):
    """What updates of a weight have in common: their scale and dropout. Raises ValueError for values out of range."""

    lora_alpha: float = field(default=8, metadata={"help": "The update is scaled by lora_alpha / r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the input of the update, in training."})
    init_weights: bool = field(
        default=True,
        metadata={
            "help": "True: the update starts at zero, its last trained core being zero. False: all cores are random."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("lora_alpha", self.lora_alpha)
        check_number("lora_dropout", self.lora_dropout)
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; it must be from 0 to below 1")
        self._check_init()

    def _check_init(self) -> None:
        check_flag("init_weights", self.init_weights)


@dataclass
class TTLoraConfig(BranchConfig):
    """TT-LoRA (Anjum et al. 2024, https://arxiv.org/abs/2408.01008): x W0^T + s * x W with W a tensor train.

    W: (in_features, out_features) has cores (r_{k-1}, n_k, m_k, r_k); s = lora_alpha / r, or lora_alpha / sqrt(r) with
    use_rslora. The fields say more. Raises ValueError for values out of range.
    """

    use_rslora: bool = field(default=False, metadata={"help": "Scale by lora_alpha / sqrt(r) instead."})
    init_weights: bool | Literal["svd"] = field(
        default=True,
        metadata={
            "help": "True: the update starts at zero, its last trained core being zero. False: all cores are random. "
            "'svd': the cores start from the TT-SVD of the weight, and the update is the difference to that start."
        },
    )
    bias: Literal["none", "all", "tt_lora_only"] = field(
        default="none", metadata={"help": "Biases of the base model to train: none, all, or those of adapted layers."}
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Layer name or regular expression -> rank, where it is not r."}
    )
    alpha_pattern: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "Layer name or regular expression -> alpha, where it is not lora_alpha."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("TT_LORA")
        self.rank_pattern, self.alpha_pattern = self.rank_pattern or {}, self.alpha_pattern or {}
        if self.init_weights == "svd" and self.ring:
            raise ValueError("init_weights is 'svd' and ring is True; only a train can start from an SVD")
        if self.bias not in ("none", "all", "tt_lora_only"):
            raise ValueError(f"bias is {self.bias!r}; allowed: none, all, tt_lora_only")
        for layer, rank in self.rank_pattern.items():
            check_whole(f"rank_pattern[{layer!r}]", rank)
        for layer, alpha in self.alpha_pattern.items():
            check_number(f"alpha_pattern[{layer!r}]", alpha)
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"{pattern!r}, of rank_pattern or alpha_pattern, is no regular expression: {error}"
                ) from None

    def _check_init(self) -> None:
        if self.init_weights not in (True, False, "svd"):
            raise ValueError(f"init_weights is {self.init_weights!r}; allowed: True, False, 'svd'")

    def rank_of(self, layer: str) -> int:
        return self._of(layer, self.rank_pattern, self.r)

    def scale_of(self, layer: str) -> float:
        """s, the factor of the update in a layer."""
        rank = self.rank_of(layer)
        return self._of(layer, self.alpha_pattern, self.lora_alpha) / (rank**0.5 if self.use_rslora else rank)

    @staticmethod
    def _of(layer: str, pattern: dict[str, Any], default: Any) -> Any:
        return pattern.get(get_pattern_key(pattern.keys(), layer), default)


def check_number(name: str, value: object) -> None:
    """Raise ValueError unless a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be a finite number")


def check_whole(name: str, value: object) -> None:
    """Raise ValueError unless a value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")


def check_flag(name: str, value: object) -> None:
    """Raise ValueError unless a value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be True or False")
