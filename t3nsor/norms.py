"""The vectors of T5 in tensor-train format: the weight of a layer norm, and a bias."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from t3nsor.cores import FreezeCores
from t3nsor.decompositions import to_tt_tensor
from t3nsor.errors import ShapeError
from t3nsor.excess import warn_if_larger
from t3nsor.initializers import tensor_const
from t3nsor.layers import widened
from t3nsor.scaling import relative_error
from t3nsor.shapes import Rank, auto_shape, check_tensor_shape
from t3nsor.tensor_train import CoreChain, TensorTrain


class TTLayerNorm(nn.Module):
    """y = x / rms(x) * w, the layer norm of T5 (no mean, no bias; Zhang & Sennrich 2019), with w a tensor train.

    size: of the last dimension of x.
    rank: one inner rank or the list of d - 1; with `preinit` None means as much as an exact w takes.
    d: number of cores, used if `shape` is None.
    shape: (n_1, .., n_d) with the product `size`, or with `pad` a larger one.
    pad: True to use the next size that splits well where `size` does not; w is then cut to `size`.
    eps: added to the mean square.
    preinit: a vector (size,) to start from; w is then its TT-SVD approximation, and `preinit_error` the relative error
        in the Euclidean norm. Otherwise w starts as ones, in a way that lets training use the rank.
    freeze_cores: see `TTLinear`.

    It has sum of r_{k-1} n_k r_k parameters: for 768 = 8 x 8 x 12, 672 at rank 8 and 976 when exact.
    State-dict keys: `weight.cores.0` .. , each (r_{k-1}, n_k, r_k).
    Raises ShapeError for sizes that do not fit. Warns, with ShapeWarning, if w has more than `size` parameters.
    """

    preinit_error: float | None

    def __init__(
        self,
        size: int,
        *,
        rank: Rank | None = 4,
        d: int = 3,
        shape: Sequence[int] | None = None,
        pad: bool = False,
        eps: float = 1e-6,
        preinit: torch.Tensor | None = None,
        freeze_cores: FreezeCores = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        shape = _vector_shape(size, d, shape, pad)
        self.size, self.eps, self.preinit_error = size, eps, None
        if preinit is None:
            options: dict[str, Any] = {"freeze_cores": freeze_cores, "device": device, "dtype": dtype}
            if rank is None:
                raise ShapeError("TTLayerNorm: rank is None; without preinit it must be a number or a list")
            self.weight: CoreChain = tensor_const(shape, rank, 1.0, trainable=True, **options)
        else:
            preinit = torch.as_tensor(preinit)
            if tuple(preinit.shape) != (size,):
                raise ShapeError(f"TTLayerNorm: preinit has shape {tuple(preinit.shape)}; it must be ({size},)")
            given = preinit.detach().to(device=device, dtype=dtype)
            cores = list(to_tt_tensor(widened(given, math.prod(shape)).reshape(shape), rank).cores)
            self.weight = TensorTrain(cores, trainable=True, freeze_cores=freeze_cores)
            self.preinit_error = relative_error(self.full().detach(), given)
        warn_if_larger("TTLayerNorm", self.weight, (size,))

    def reset_parameters(self) -> None:
        """Let w start as ones again. Raises ShapeError if it started from a vector."""
        if self.preinit_error is not None:
            raise ShapeError(
                "TTLayerNorm: it started from a vector, which it does not keep; build it again with preinit"
            )
        self.weight.copy_(tensor_const(self.weight.raw_shape[0], self.weight.inner_ranks, 1.0))

    def full(self) -> torch.Tensor:
        """w as a dense vector (size,)."""
        return self.weight.full().flatten()[: self.size]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., size) -> (.., size) in the dtype of x; the mean square is computed in float32."""
        _check_rows(self, x)
        wide = x.float() if x.dtype.itemsize == 2 else x
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (normed * self.full()).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.size}, eps={self.eps}"


class TTBias(nn.Module):
    """y = x + b with b (size,) a tensor train; b starts as zero, in a way that lets training use the rank.

    Arguments, parameters and keys as for `TTLayerNorm`.
    """

    def __init__(
        self,
        size: int,
        *,
        rank: Rank = 4,
        d: int = 3,
        shape: Sequence[int] | None = None,
        pad: bool = False,
        freeze_cores: FreezeCores = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.size = size
        options: dict[str, Any] = {"freeze_cores": freeze_cores, "device": device, "dtype": dtype}
        self.weight = tensor_const(_vector_shape(size, d, shape, pad), rank, 0.0, trainable=True, **options)
        warn_if_larger("TTBias", self.weight, (size,))

    def reset_parameters(self) -> None:
        """Let b start as zero again."""
        self.weight.copy_(tensor_const(self.weight.raw_shape[0], self.weight.inner_ranks, 0.0))

    def full(self) -> torch.Tensor:
        """b as a dense vector (size,)."""
        return self.weight.full().flatten()[: self.size]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., size) -> (.., size)."""
        _check_rows(self, x)
        return x + self.full().to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.size}"


def _check_rows(layer: TTLayerNorm | TTBias, x: torch.Tensor) -> None:
    if x.shape[-1:] != (layer.size,) or not x.is_floating_point():
        raise ShapeError(
            f"{type(layer).__name__}: x of shape {tuple(x.shape)} is {x.dtype}; its last dimension must be "
            f"{layer.size} and its dtype floating-point"
        )


def _vector_shape(size: int, d: int, shape: Sequence[int] | None, pad: bool) -> tuple[int, ...]:
    sizes = auto_shape(size, d, pad=pad) if shape is None else check_tensor_shape(shape)
    if math.prod(sizes) < size or (math.prod(sizes) > size and not pad):
        raise ShapeError(f"shape {list(sizes)} multiplies to {math.prod(sizes)}; the vector has {size} entries")
    return sizes
