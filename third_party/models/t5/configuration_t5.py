"""T5Config of transformers, extended by published sizes, shipped models and the places where adapters attach."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from adapters import AdapterConfig
from common.errors import ConfigError, warn_once

# Sizes of the published T5 v1.0 models, to count parameters without downloading anything.
SHAPES = {
    "t5-small": {"d_model": 512, "d_ff": 2048, "d_kv": 64, "num_heads": 8, "num_layers": 6},
    "t5-base": {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12},
    "t5-large": {"d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_heads": 16, "num_layers": 24},
}

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


class T5Config(transformers.T5Config):
    """A T5Config that knows the published sizes by name and where adapters attach."""

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike, **kwargs: Any) -> "T5Config":
        """Call `from_pretrained` of transformers; the names of shipped models are accepted as well."""
        return super().from_pretrained(resolve_name(name), **kwargs)

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
