"""What FSDP 2 has spread over several processes, as the tensors of one.

All processes must call `whole` and `fill` for the same tensors in the same order.
"""

from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:  # modeling_t5 imports modules that import this one
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that is spread over the processes as one of this process, and any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Copy `values`, of the shape of the whole tensor, into one that may be spread over the processes."""
    if isinstance(tensor, DTensor):
        values = distribute_tensor(values.to(tensor), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)


def share_embeddings(model: "T5ForConditionalGeneration") -> None:
    """Let both stacks use the module of the tied embedding, which FSDP 2 wants in one group.

    transformers' T5 has a module for each stack, all with the same weight; accelerate groups that of the model with the
    head, and torch refuses the others.
    """
    for stack in (model.encoder, model.decoder):
        if stack.embed_tokens.weight is model.shared.weight:
            stack.embed_tokens = model.shared
