"""All keys that say which method adapts the model, and how: each defined once, here."""

from dataclasses import asdict, dataclass, field, fields

from adapters.activations import ACTIVATIONS
from adapters.errors import ConfigError, require
from t3nsor.automatic_shape import SHAPE_MODES
from t3nsor.shapes import check_matrix_shape

AFTER_SUBLAYER = "after_sublayer"


def key(default, text: str, **metadata):
    """A configuration key: its default, its help text and, for a flag that chooses a method, its `site`."""
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class AdapterConfig:
    """The configuration of the adapters; it goes whole into controllers and layers.

    Raises ConfigError when keys contradict each other or hold values out of range.
    """

    # Which method, and where it stands.
    train_task_adapters: bool = key(
        False, "Train adapters after the sublayers: the plain bottleneck unless a flag says."
    )
    tensor_train_adapters: bool = key(False, "The adapter's matrices are tensor trains.", site=AFTER_SUBLAYER)
    tensor_train_single: bool = key(
        False, "With tensor_train_adapters: one TT-matrix d_model -> d_model, no bottleneck."
    )
    low_rank_adapters: bool = key(False, "The adapter's matrices are low-rank products.", site=AFTER_SUBLAYER)
    add_adapter_in_self_attention: bool = key(True, "Put an adapter after self-attention.")
    add_adapter_in_feed_forward: bool = key(True, "Put an adapter after the feed-forward sublayer.")
    task_adapter_layers_encoder: list[int] | None = key(None, "Encoder layers that get adapters; null: all.")
    task_adapter_layers_decoder: list[int] | None = key(None, "Decoder layers that get adapters; null: all.")
    task_adapter_in_decoder: bool = key(True, "Put adapters into the decoder too.")

    # The adapter itself.
    task_reduction_factor: int = key(32, "The bottleneck is d_model / task_reduction_factor wide.")
    task_expansion_factor: int | None = key(None, "If set, the hidden layer is d_model * task_expansion_factor wide.")
    non_linearity: str = key("gelu_new", f"Activation of the adapter, one of {', '.join(ACTIVATIONS)}.")
    use_bias: bool = key(True, "Biases in the adapter's linear layers.")
    add_layer_norm_before_adapter: bool = key(False, "A LayerNorm before the adapter.")
    add_layer_norm_after_adapter: bool = key(False, "A LayerNorm after the adapter.")

    # Tensor trains.
    tt_rank: int = key(8, "All inner ranks of the tensor trains.")
    tt_d: int = key(3, "Number of cores of a tensor train.")
    tt_shape: list[list[int]] | None = key(
        None, "Factors [[in], [out]] of the down matrix (the up matrix takes them swapped); null: chosen from tt_d."
    )
    auto_shape_mode: str = key(
        "ascending",
        f"Order of automatic factors, one of {', '.join(SHAPE_MODES)}. skewed: [[in/q, q], [q, out/q]], which has the "
        "parameters of LoRA of the same rank and q * q times its matrix rank (q: the common divisor nearest to 8).",
    )
    reverse_out_shape: bool = key(False, "Reverse the order of the automatic out factors.")
    factorize_smaller_dim: bool = key(True, "false: keep the smaller of the two dimensions whole, in the last core.")

    # Low rank.
    low_rank_rank: int = key(1, "Rank of the low-rank adapter's matrices.")

    # What is trained besides.
    freeze_backbone: bool | None = key(None, "Train only what other keys name; null: exactly when a method is chosen.")
    unfreeze_layer_norms: bool = key(False, "Train the backbone's layer norms.")
    freeze_embedding: bool = key(False, "Without freeze_backbone: train all but the embedding (and the head, if tied).")
    unfreeze_lm_head: bool = key(False, "Train the output layer (in T5 v1.0 it is the input embedding as well).")

    # Not a key of any file: the tasks of the run, each with adapters of its own.
    tasks: tuple[str, ...] = field(default=("task",), metadata={"runtime": True})

    def __post_init__(self):
        self.tasks = tuple(self.tasks)
        self._check_method()
        self._check_ranges()
        if self.tt_shape is not None:
            check_shape_key(self.tt_shape)
        elif self.auto_shape_mode == "skewed":
            self._check_skewed()
        if self.freeze_embedding and self.unfreeze_lm_head:
            raise ConfigError("freeze_embedding and unfreeze_lm_head are both true; embedding and head are one tensor")
        if self.freeze_backbone is None:
            self.freeze_backbone = self.method is not None
        elif self.method is not None and not self.freeze_backbone:
            raise ConfigError(f"freeze_backbone is false, but {self.method} trains adapters beside a frozen backbone")

    @property
    def method(self) -> str | None:
        """The registry name of the method after the sublayers; None: no adapters."""
        if not self.train_task_adapters:
            return None
        if self.tensor_train_single:
            return "tensor_train_single"
        chosen = self._flags(AFTER_SUBLAYER)
        return chosen[0] if chosen else "adapters"

    @classmethod
    def key_names(cls) -> list[str]:
        """The names that a configuration file may set."""
        return [f.name for f in fields(cls) if not f.metadata.get("runtime")]

    def to_dict(self) -> dict:
        """All keys with their values, tasks left out."""
        return {name: value for name, value in asdict(self).items() if name != "tasks"}

    def _flags(self, site: str) -> list[str]:
        return [f.name for f in fields(self) if f.metadata.get("site") == site and getattr(self, f.name)]

    def _check_method(self):
        chosen = self._flags(AFTER_SUBLAYER)
        if len(chosen) > 1:
            raise ConfigError(
                f"{' and '.join(chosen)} are both true; one site carries one method: set at most one of them"
            )
        if chosen and not self.train_task_adapters:
            raise ConfigError(f"{chosen[0]} is true but train_task_adapters is false; set train_task_adapters to true")
        if self.tensor_train_single and not self.tensor_train_adapters:
            raise ConfigError(
                "tensor_train_single is a form of tensor_train_adapters; set tensor_train_adapters to true"
            )
        if self.train_task_adapters and not (self.add_adapter_in_self_attention or self.add_adapter_in_feed_forward):
            raise ConfigError(
                "train_task_adapters is true but no sublayer carries an adapter; set add_adapter_in_self_attention or "
                "add_adapter_in_feed_forward to true"
            )
        if not self.tasks:
            raise ConfigError("tasks is empty; the adapters need the name of at least one task")

    def _check_ranges(self):
        sizes = ("task_reduction_factor", "task_expansion_factor", "tt_rank", "tt_d", "low_rank_rank")
        require(self, "at least 1", *sizes)
        require(self, "at most 20", "tt_d")
        for name, allowed in (("non_linearity", ACTIVATIONS), ("auto_shape_mode", SHAPE_MODES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")

    def _check_skewed(self):
        for name, needed in (("tt_d", 2), ("reverse_out_shape", False), ("factorize_smaller_dim", True)):
            if getattr(self, name) != needed:
                raise ConfigError(f"{name} is {getattr(self, name)}; with auto_shape_mode skewed it must be {needed}")


def check_shape_key(shape):
    """Raise ConfigError unless `shape` can be a `tt_shape`, whatever the dimensions it will meet."""
    try:
        check_matrix_shape(shape)
    except ValueError as error:
        raise ConfigError(f"tt_shape: {error}") from None
