"""Square linear layers of several structures.

Weights are initialised with mean 0 and variance gain^2 / n, where n is the number of structurally nonzero weights per
output. The mean square of an output is then gain^2 times that of the inputs, for every structure.
"""

import math

import torch
from torch import nn

import t3nsor
from expressivity.networks.activations import activation


class StructuredLinear(nn.Module):
    """y = x W + b with W (width, width) built from few parameters; the bias is initialised as in nn.Linear."""

    def __init__(self, width: int, bias: bool = True):
        super().__init__()
        self.width = width
        self.bias = nn.Parameter(torch.empty(width).uniform_(-1, 1) / math.sqrt(width)) if bias else None

    def matrix(self) -> torch.Tensor:
        """The weight W, (width, width), with inputs as rows."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., width) -> (.., width)."""
        y = x @ self.matrix()
        return y if self.bias is None else y + self.bias


class FullLinear(StructuredLinear):
    def __init__(self, width: int, gain: float, bias: bool = True):
        super().__init__(width, bias)
        self.weight = nn.Parameter(torch.randn(width, width) * gain / math.sqrt(width))

    def matrix(self) -> torch.Tensor:
        return self.weight


class LowRankLinear(StructuredLinear):
    """W = U V with U (width, rank) and V (rank, width), like an update in LoRA (https://arxiv.org/abs/2106.09685)."""

    def __init__(self, width: int, gain: float, rank: int, bias: bool = True):
        super().__init__(width, bias)
        if rank < 1:
            raise ValueError(f"rank is {rank}; it must be at least 1")
        scale = math.sqrt(gain / math.sqrt(width * rank))
        self.U, self.V = nn.Parameter(torch.randn(width, rank) * scale), nn.Parameter(torch.randn(rank, width) * scale)

    def matrix(self) -> torch.Tensor:
        return self.U @ self.V


class NDiagonalLinear(StructuredLinear):
    """W that is zero outside its `diagonals` innermost diagonals: 1 diagonal, 2 upper bidiagonal, 3 tridiagonal, .."""

    def __init__(self, width: int, gain: float, diagonals: int, bias: bool = True):
        super().__init__(width, bias)
        if not 1 <= diagonals <= 2 * width - 1:
            raise ValueError(f"diagonals is {diagonals}; for width {width} it must be from 1 to {2 * width - 1}")
        rows, columns = torch.meshgrid(torch.arange(width), torch.arange(width), indexing="ij")
        offset = columns - rows
        inside = ((2 * offset - 1).clamp_min(0) + (-2 * offset).clamp_min(0)) < diagonals  # 0, 1, -1, 2, -2, ..
        per_output = inside.sum(0)[columns[inside]]
        self.values = nn.Parameter(torch.randn(int(inside.sum())) * gain / per_output.sqrt())
        self.register_buffer("place", inside.flatten().nonzero().squeeze(1), persistent=False)

    def matrix(self) -> torch.Tensor:
        zeros = self.values.new_zeros(self.width * self.width)
        return zeros.scatter(0, self.place, self.values).view(self.width, self.width)


class QuantizedLinear(StructuredLinear):
    """W with 2^bits equally spaced values per entry, trained through real ones: their gradient is that of W.

    Straight-through estimator, https://arxiv.org/abs/1308.3432. The values lie between -2 and 2 standard deviations of
    the initialisation; for 2 bits they are -2, -2/3, 2/3 and 2.
    """

    def __init__(self, width: int, gain: float, bits: int = 2, bias: bool = True):
        super().__init__(width, bias)
        if not 1 <= bits <= 8:
            raise ValueError(f"bits is {bits}; it must be from 1 to 8")
        self.bits, self.scale = bits, 2 * gain / math.sqrt(width)
        self.weight = nn.Parameter(torch.randn(width, width) * gain / math.sqrt(width))

    def matrix(self) -> torch.Tensor:
        steps = 2**self.bits - 1
        between = (self.weight / self.scale).clamp(-1, 1)
        rounded = ((between + 1) / 2 * steps).round() * 2 / steps - 1
        return self.weight + (self.scale * rounded - self.weight).detach()

    def information_bits(self) -> int:
        """Bits of the quantised weight, and of the bias as it is stored."""
        bias = 0 if self.bias is None else 8 * self.bias.element_size() * self.bias.numel()
        return self.bits * self.weight.numel() + bias


class TensorTrainLinear(nn.Module):
    """t3nsor.TTLinear with random cores that give W the same variance as in the other layers."""

    ring = False

    def __init__(self, width: int, gain: float, rank, d: int, activation_between_cores=None, bias: bool = True):
        super().__init__()
        shape = t3nsor.linear_shape(width, width, rank=rank, d=d, mode="ascending", ring=self.ring)
        cores = t3nsor.random_matrix(shape, rank, std=gain / math.sqrt(width), ring=self.ring)
        between = None if activation_between_cores is None else activation(activation_between_cores)
        kind = t3nsor.TRLinear if self.ring else t3nsor.TTLinear
        self.layer = kind(width, width, init=cores, bias=bias, strategy="full", cores_nonlinearity=between)
        if bias:
            nn.init.uniform_(self.layer.bias, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., width) -> (.., width)."""
        return self.layer(x)


class TensorRingLinear(TensorTrainLinear):
    """The same with t3nsor.TRLinear."""

    ring = True
