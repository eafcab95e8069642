"""transformers' T5Config, extended by what the adapters must know of the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import transformers

from adapters import AdapterConfig
from common.errors import ConfigError, warn_once

# Sizes of the published T5 v1.0 models, so that parameters can be counted without a hub.
SHAPES = {
    "t5-small": {"d_model": 512, "d_ff": 2048, "d_kv": 64, "num_heads": 8, "num_layers": 6},
    "t5-base": {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12},
    "t5-large": {"d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_heads": 16, "num_layers": 24},
}

# Models that come with the project, by name.
SHIPPED = {"t5-nano": Path(__file__).resolve().parents[3] / "checkpoints" / "t5-nano"}


def resolve_name(name) -> str:
    """The directory of a shipped model; any other name (hub id, local directory) unchanged."""
    return str(SHIPPED.get(str(name), name))


@dataclass(frozen=True)
class AdapterSite:
    """A place behind a sublayer: stack ("encoder" or "decoder"), number of the block, position of the layer in it."""

    stack: str
    block: int
    layer: int
    sublayer: str

    @property
    def path(self) -> str:
        """Where the layer stands in the model, as in its state-dict keys."""
        return f"{self.stack}.block.{self.block}.layer.{self.layer}"


class T5Config(transformers.T5Config):
    """A T5Config that knows the published sizes by name and the sites where adapters attach."""

    @classmethod
    def from_pretrained(cls, name, **kwargs) -> "T5Config":
        """transformers' `from_pretrained`, which also knows the shipped models by name."""
        return super().from_pretrained(resolve_name(name), **kwargs)

    @classmethod
    def from_shape(cls, name: str, **overrides) -> "T5Config":
        """The configuration of "t5-small", "t5-base" or "t5-large"; `overrides` replace single fields."""
        name = name.removeprefix("google-t5/")
        if name not in SHAPES:
            raise ConfigError(f"model_config is {name!r}; built-in sizes: {', '.join(SHAPES)}")
        return cls(**{"decoder_start_token_id": 0, **SHAPES[name], **overrides})

    def adapted_blocks(self, adapter_config: AdapterConfig) -> Iterator[tuple[str, int, int]]:
        """(stack, block, number among all blocks) of those that `adapter_config` adapts. Warns of one that lacks."""
        stacks = [("encoder", self.num_layers, 0, adapter_config.task_adapter_layers_encoder)]
        if adapter_config.task_adapter_in_decoder:
            decoder = self.num_decoder_layers, self.num_layers, adapter_config.task_adapter_layers_decoder
            stacks.append(("decoder", *decoder))
        for stack, depth, first, chosen in stacks:
            wanted = range(depth) if chosen is None else sorted(set(chosen))
            if any(block < 0 for block in wanted):
                raise ConfigError(f"task_adapter_layers_{stack} holds {wanted[0]}; layers are counted from 0")
            lacking = [block for block in wanted if block >= depth]
            if lacking:  # a published file may be for a deeper model
                warn_once(
                    f"task_adapter_layers_{stack} holds {lacking}; the {stack} has layers 0 to {depth - 1} and is "
                    f"adapted in {[block for block in wanted if block < depth]}"
                )
            for block in wanted:
                if block < depth:
                    yield stack, block, first + block

    def adapter_sites(self, adapter_config: AdapterConfig) -> Iterator[AdapterSite]:
        """Yield the sites behind sublayers that `adapter_config` asks for."""
        for stack, block, _ in self.adapted_blocks(adapter_config):
            if adapter_config.add_adapter_in_self_attention:
                yield AdapterSite(stack, block, 0, "SelfAttention")
            if adapter_config.add_adapter_in_feed_forward:
                yield AdapterSite(stack, block, 1 if stack == "encoder" else 2, "DenseReluDense")
