"""The model of transformers and ours side by side."""

import torch
import transformers

from tests.conftest import TINY
from third_party.models.t5 import T5ForConditionalGeneration

CLASSES = transformers.T5ForConditionalGeneration, T5ForConditionalGeneration
SIZES = {**TINY, "vocab_size": 120, "decoder_start_token_id": 0}


def pair(**fields):
    """The model of transformers and ours, with the same weights, in evaluation mode."""
    models = []
    for cls in CLASSES:
        torch.manual_seed(0)
        models.append(cls(transformers.T5Config(**{**SIZES, **fields})).eval())
    return models


def equal(a, b):
    """True if two results are the same: tensors, sequences, mappings of them."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or not isinstance(a, str | int | float | bool | None)


def trained(model, batch):
    """Losses and gradients of two steps with dropout."""
    torch.manual_seed(1)
    model.train()
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []
    for _ in range(2):
        optimizer.zero_grad()
        losses.append(model(**batch).loss)
        losses[-1].backward()
        optimizer.step()
    return losses, [parameter.grad for parameter in model.parameters()]
