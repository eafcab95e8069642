"""Recognises the backbone that an adapter was trained on by a sample of its weights."""

import hashlib
import math
from collections.abc import Container
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from third_party.models.t5.sharding import whole

SUMS = 9  # the norm, and eight signed sums


def tensor_names(model: PreTrainedModel) -> dict[torch.Tensor, str]:
    """The name of each parameter and buffer; for shared or tied ones, which have several names, the first."""
    names: dict[torch.Tensor, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(tensor, name)
    return names


@dataclass
class Fingerprint:
    """A fingerprint of a backbone, computed from up to 64 entries of each tensor.

    dtype: dtype of the weights.
    digest: SHA-256 of the bytes of these entries, for an exact comparison.
    sums: their norm and signed sums, for a comparison with weights of another dtype.
    """

    dtype: str
    digest: str
    sums: list[float]

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, excluded: Container[str]) -> "Fingerprint":
        """Compute the fingerprint of `model`. excluded: names of tensors that do not belong to the backbone."""
        digest, sums, square = hashlib.sha256(), [0.0] * (SUMS - 1), 0.0
        for tensor, name in sorted(tensor_names(model).items(), key=lambda item: item[1]):
            if name in excluded or tensor.is_meta:
                continue
            entries = whole(tensor).flatten()[:: max(1, tensor.numel() // 64)][:64].cpu()
            digest.update(entries.contiguous().view(torch.uint8).numpy().tobytes())
            signed = entries.double() * torch.tensor([1.0, -1.0]).repeat(32)[: len(entries)]
            sums[len(name) % len(sums)] += signed.sum().item()
            square += signed.square().sum().item()
        dtype = getattr(model.shared, "compute_dtype", model.dtype)  # its weight may be trained, in float32
        return cls(str(dtype), digest.hexdigest(), [math.sqrt(square), *sums])

    @property
    def is_valid(self) -> bool:
        """True if it can be that of a backbone."""
        finite = len(self.sums) == SUMS and all(math.isfinite(value) for value in self.sums)
        return finite and isinstance(getattr(torch, self.dtype.removeprefix("torch."), None), torch.dtype)

    def matches(self, model_fingerprint: "Fingerprint") -> bool:
        """True if both are of the same backbone: exactly, or up to rounding if the dtypes differ.

        model_fingerprint: that of the model at hand, whose size says what counts as rounding.
        """
        if self.dtype == model_fingerprint.dtype:
            return self.digest == model_fingerprint.digest
        tolerance = 0.02 * model_fingerprint.sums[0]
        return all(abs(a - b) <= tolerance for a, b in zip(self.sums, model_fingerprint.sums, strict=True))
