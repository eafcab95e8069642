"""Float32 for everything that is trained, in a backbone of any precision.

Numbers near 1 are 2^-7 apart in bfloat16 and 2^-10 in float16, so a step of 1e-4 on a norm would be rounded away. In a
backbone of half precision the trained tensors, and all others of an adapter, are float32 therefore. They are rounded to
the backbone's dtype where they are used: computation and hidden states keep that dtype.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import nn


def trained_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of what is trained in a backbone of `dtype`: float32 for half precision, otherwise the same."""
    return torch.promote_types(dtype, torch.float32)


def in_trained_dtype(weight: torch.Tensor) -> torch.Tensor:
    """A weight of the backbone as something trained starts from it, without its history."""
    return weight.detach().to(trained_dtype(weight.dtype))


class Float32Tensors(nn.Module):
    """Base class of modules whose tensors stay in float32 when the model is converted to half precision.

    precision: an empty tensor with the dtype that the backbone computes in at this place; it follows all conversions.
    """

    precision: torch.Tensor

    def track_precision(self, like: torch.Tensor) -> None:
        """Begin to track the dtype that the backbone computes in; `like` has it now."""
        self.register_buffer("precision", like.detach().new_empty(0), persistent=False)

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype that the backbone computes in at this place."""
        return self.precision.dtype

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        def convert(tensor: torch.Tensor) -> torch.Tensor:
            converted = fn(tensor)
            if converted.is_floating_point() and converted.dtype.itemsize < 4 and tensor.numel():
                return tensor.to(converted.device, torch.float32)
            return converted

        return super()._apply(convert, recurse)
