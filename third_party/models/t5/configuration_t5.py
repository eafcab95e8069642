"""T5Config of transformers, extended by published sizes, shipped models and the places where adapters attach."""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from adapters import AdapterConfig
from common.errors import ConfigError, type_and_line, warn_once

# Sizes of the published T5 v1.0 models, to count parameters without downloading anything.
SHAPES = {
    "t5-small": {"d_model": 512, "d_ff": 2048, "d_kv": 64, "num_heads": 8, "num_layers": 6},
    "t5-base": {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12},
    "t5-large": {"d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_heads": 16, "num_layers": 24},
}

SMALLEST = {"d_model": 1, "d_kv": 1, "d_ff": 1, "num_heads": 1, "vocab_size": 1, "relative_attention_num_buckets": 4}

# Models that come with the project, by name.
SHIPPED = {"t5-nano": Path(__file__).resolve().parents[3] / "checkpoints" / "t5-nano"}


def resolve_name(name: str | os.PathLike) -> str:
    """Return the directory of a shipped model; any other name (hub id, local directory) is returned unchanged."""
    return str(SHIPPED.get(str(name), name))


@dataclass(frozen=True)
class AdapterSite:
    """The place of an adapter after a sublayer.

    stack: "encoder" or "decoder".
    block: index of the block in the stack.
    layer: index of the layer in the block.
    sublayer: name of the sublayer in the layer, "SelfAttention" or "DenseReluDense".
    """

    stack: str
    block: int
    layer: int
    sublayer: str

    @property
    def path(self) -> str:
        """The layer's module path in the model, the prefix of its state-dict keys."""
        return f"{self.stack}.block.{self.block}.layer.{self.layer}"


def as_t5(content: dict[str, Any], source: object) -> dict[str, Any]:
    """Return the fields of a T5 for those of a `config.json`. Raises ConfigError if they are of another architecture.

    An mT5 is a T5 whose decoder outputs are not scaled, whatever its file says about tied embeddings.
    source: where the fields are from, for the message.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: config.json contains a {type(content).__name__}; it must be one JSON object")
    given, architectures = content.get("model_type"), content.get("architectures")
    if given is None and isinstance(architectures, list) and architectures:  # files of the first versions
        given = "t5" if str(architectures[0]).startswith("T5") else architectures[0]
    if given == transformers.MT5Config.model_type:
        fields = transformers.MT5Config.from_dict(content).to_dict()
        return {**fields, "model_type": T5Config.model_type, "scale_decoder_outputs": False}
    if given not in (None, T5Config.model_type):
        raise ConfigError(f"{source} is a {str(given)[:80]!r} by the model_type of its config.json; allowed: t5, mt5")
    return content


def _check_sizes(config: transformers.T5Config) -> None:
    """Raise ConfigError for sizes that transformers takes, but that fail, or mean nothing, once the model computes."""
    for name, smallest in SMALLEST.items():
        if getattr(config, name) < smallest:
            raise ConfigError(f"{name} of the T5 is {getattr(config, name)}; it must be at least {smallest}")
    distance, buckets = config.relative_attention_max_distance, config.relative_attention_num_buckets
    if distance <= buckets // 2:
        raise ConfigError(
            f"relative_attention_max_distance of the T5 is {distance}; it must be above {buckets // 2}, half of "
            "relative_attention_num_buckets"
        )
    if not config.is_encoder_decoder:
        raise ConfigError("is_encoder_decoder of the T5 is false, as in a model without a decoder; it must be true")
    for name in ("pad_token_id", "decoder_start_token_id"):
        token = getattr(config, name, None)
        if token is not None and not 0 <= token < config.vocab_size:
            raise ConfigError(f"{name} of the T5 is {token}; it must be at least 0 and below vocab_size")
    if not 0 <= config.dropout_rate < 1:
        raise ConfigError(f"dropout_rate of the T5 is {config.dropout_rate}; it must be at least 0 and below 1")


class T5Config(transformers.T5Config):
    """A T5Config that knows the published sizes by name and where adapters attach."""

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `config.json` as transformers does; the names of shipped models are accepted as well.

        Raises ConfigError if there is no such file, or it describes another architecture, or is not one JSON object.
        """
        name = resolve_name(pretrained_model_name_or_path)
        try:
            content, kwargs = super().get_config_dict(name, **kwargs)
        except (TypeError, AttributeError) as error:  # of a list, say
            raise ConfigError(f"config.json of {name} is not a configuration: {type_and_line(error)}") from None
        if not content:  # transformers would go on with the sizes of t5-small
            raise ConfigError(f"{pretrained_model_name_or_path} has no config.json, which says what model it is")
        return as_t5(content, pretrained_model_name_or_path), kwargs

    @classmethod
    def of(cls, config: transformers.PreTrainedConfig) -> "T5Config":
        """Return `config` as an object of this class. Raises ConfigError if it is of another architecture."""
        if config.model_type != cls.model_type or not isinstance(config, transformers.T5Config):
            fields = {**config.to_dict(), "model_type": config.model_type}  # to_dict has the model_type of the class
            return cls.of(cls.from_dict(as_t5(fields, type(config).__name__)))
        _check_sizes(config)
        if not isinstance(config, cls):
            config = copy.copy(config)
            config.__class__ = cls  # it adds methods only, and to_dict would lose fields
        return config

    @classmethod
    def from_shape(cls, name: str, **overrides: Any) -> "T5Config":
        """Return the configuration of a published size.

        name: "t5-small", "t5-base" or "t5-large".
        overrides: values of single fields.
        """
        name = name.removeprefix("google-t5/")
        if name not in SHAPES:
            raise ConfigError(f"model_config is {name!r}; built-in sizes: {', '.join(SHAPES)}")
        return cls(**{"decoder_start_token_id": 0, **SHAPES[name], **overrides})

    def adapted_blocks(self, adapter_config: AdapterConfig) -> Iterator[tuple[str, int, int]]:
        """Yield (stack, block, index among all blocks of the model) of the blocks to adapt.

        Warns about blocks that the model does not have. Raises ConfigError for a negative index.
        """
        stacks = [("encoder", self.num_layers, 0, adapter_config.task_adapter_layers_encoder)]
        if adapter_config.task_adapter_in_decoder:
            decoder = self.num_decoder_layers, self.num_layers, adapter_config.task_adapter_layers_decoder
            stacks.append(("decoder", *decoder))
        for stack, depth, first, chosen in stacks:
            wanted = list(range(depth)) if chosen is None else sorted(set(chosen))
            if any(block < 0 for block in wanted):
                raise ConfigError(f"task_adapter_layers_{stack} contains {wanted[0]}; blocks are counted from 0")
            missing = [block for block in wanted if block >= depth]
            if missing:  # a published configuration may be for a deeper model
                warn_once(
                    f"task_adapter_layers_{stack} contains {missing}; the {stack} has blocks 0 to {depth - 1}, so only "
                    f"{[block for block in wanted if block < depth]} are adapted"
                )
            for block in wanted:
                if block < depth:
                    yield stack, block, first + block

    def adapter_sites(self, adapter_config: AdapterConfig) -> Iterator[AdapterSite]:
        """Yield the places of the adapters after sublayers."""
        for stack, block, _ in self.adapted_blocks(adapter_config):
            if adapter_config.add_adapter_in_self_attention:
                yield AdapterSite(stack, block, 0, "SelfAttention")
            if adapter_config.add_adapter_in_feed_forward:
                yield AdapterSite(stack, block, 1 if stack == "encoder" else 2, "DenseReluDense")
