"""All weights of the model move in one random subspace (Li et al. 2018, https://arxiv.org/abs/1804.08838; Aghajanyan
et al. 2020, https://arxiv.org/abs/2012.13255).

For the l-th tensor of the backbone W_l = W0_l + lambda_l * P_l theta, with theta: (d,) trained and starting from zero
and P_l: (size of W_l, d) random and fixed. The plain model has all lambda_l = 1; with intrinsic_said they are trained.
The m lambdas count among the intrinsic_dim numbers, as in the paper, so that d = intrinsic_dim - m and exactly
intrinsic_dim numbers are trained.

"fastfood": P_l is never built. It stands for blocks H G_j R H B / sqrt(L size) of L = 2^k >= d rows (Le et al. 2013,
https://proceedings.mlr.press/v28/le13.html): H the Walsh-Hadamard transform, B random signs, R a permutation, G_j a
diagonal of normal numbers, one for each block. B and R may be the same for all blocks: the rows are independent
through the G_j. So R H B theta is computed once, and each tensor costs one transform. The G_j take the memory of the
weights once more.
"dense": P_l is a stored matrix with entries from N(0, 1 / size).
All of it is drawn again from intrinsic_seed; a checkpoint holds a fingerprint, and loading compares it.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.merged_weight import Branch, MergedWeight
from adapters.parts import AdapterPart
from common.errors import ConfigError
from t3nsor.autocast import without_autocast

MOST_DENSE_ENTRIES = 2**31


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """x H for the last dimension of x, a power of two: H_ij = (-1)^(number of common binary ones of i and j).

    H is a Kronecker product of small ones, one for each axis of a cube; GEMMs with at most 64 rows do it, axis by axis.
    """
    shape, size = x.shape, x.shape[-1]
    done = min(64, size)
    x = x.reshape(-1, done) @ _hadamard(done, x.dtype, x.device)
    while done < size:
        side = min(64, size // done)
        x = _hadamard(side, x.dtype, x.device) @ x.reshape(-1, side, done)
        done *= side
    return x.reshape(shape)


def _hadamard(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    h = torch.ones(1, 1, dtype=dtype, device=device)
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=dtype, device=device)
    while len(h) < size:
        h = torch.kron(two, h)
    return h


class IntrinsicSubspace(AdapterPart):
    """theta, the lambdas, and the projections to tensors of the given sizes (numbers of entries)."""

    def __init__(self, config: AdapterConfig, sizes: list[int]):
        super().__init__()
        self.sizes, self.seed, self.normalize = sizes, config.intrinsic_seed, config.normalize_intrinsic_projections
        scales = len(sizes) if config.intrinsic_said else 0
        if config.intrinsic_dim <= scales:
            raise ConfigError(
                f"intrinsic_dim is {config.intrinsic_dim}; with intrinsic_said it must be above the {scales} tensors"
            )
        if config.intrinsic_dim > sum(sizes):
            raise ConfigError(f"intrinsic_dim is {config.intrinsic_dim}; the model has only {sum(sizes)} parameters")
        self.d = config.intrinsic_dim - scales
        self.dense = config.intrinsic_projection == "dense"
        if self.dense and sum(sizes) * self.d > MOST_DENSE_ENTRIES:
            raise ConfigError(
                f'intrinsic_projection is "dense", which stores {sum(sizes) * self.d:.1e} numbers here; '
                f'at most {MOST_DENSE_ENTRIES:.1e}: set it to "fastfood"'
            )
        self.theta = nn.Parameter(torch.zeros(self.d))
        self.scales = nn.Parameter(torch.ones(scales)) if scales else None
        self.register_buffer("fingerprint", torch.zeros(8))
        self._drawn: dict = {}
        if not self.fingerprint.is_meta:
            self.fingerprint.copy_(self._normal(-1, 8).to(self.fingerprint))

    def delta(self, number: int, dtype: torch.dtype) -> torch.Tensor:
        """lambda_l * P_l theta for the tensor `number`, flat, computed in `dtype`."""
        size = self.sizes[number]
        with without_autocast(self.theta.device):
            theta = self.theta.to(dtype)
            if self.dense:
                delta = self._projection(number, size).to(theta) @ theta
            else:
                delta = self._fastfood(number, size, theta)
            return delta if self.scales is None else delta * self.scales[number].to(dtype)

    def check_saved(self, saved: Mapping[torch.Tensor, torch.Tensor]) -> None:
        """Raise ConfigError if a saved adapter was trained in a subspace that is drawn otherwise here."""
        if not torch.allclose(saved[self.fingerprint].float().cpu(), self._normal(-1, 8), rtol=1e-2):
            raise ConfigError(
                f"the adapter's subspace cannot be drawn again: intrinsic_seed {self.seed} gives other numbers in "
                f"torch {torch.__version__}; use the torch version that adapter_config.json names"
            )

    def _fastfood(self, number: int, size: int, theta: torch.Tensor) -> torch.Tensor:
        length = 1 << max(0, self.d - 1).bit_length()
        signs, permutation = self._once("mixing", lambda: self._mixing(length))
        mixed = walsh_hadamard(functional.pad(theta, (0, length - self.d)) * signs.to(theta))[permutation]
        normal = self._once(number, lambda: self._directions(number, size, length)).to(theta)
        return walsh_hadamard(normal * mixed).reshape(-1)[:size] / math.sqrt(length * size)

    def _mixing(self, length: int):
        generator = torch.Generator().manual_seed(self.seed)
        signs = torch.randint(0, 2, (length,), generator=generator, device="cpu") * 2 - 1
        permutation = torch.randperm(length, generator=generator, device="cpu")
        return signs.to(self.theta.device), permutation.to(self.theta.device)

    def _directions(self, number: int, size: int, length: int) -> torch.Tensor:
        """The diagonals G_j, (blocks, L)."""
        normal = self._normal(number, -(-size // length) * length).view(-1, length)
        if self.normalize:
            normal = normal * math.sqrt(length) / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
        return normal.to(self.theta.device)

    def _projection(self, number: int, size: int) -> torch.Tensor:
        def draw():
            normal = self._normal(number, size * self.d).view(size, self.d) / math.sqrt(size)
            if self.normalize:
                normal = normal / torch.linalg.vector_norm(normal, dim=0)
            return normal.to(self.theta.device)

        return self._once(number, draw)

    def _normal(self, number: int, count: int) -> torch.Tensor:
        """`count` normal numbers of the tensor `number`, the same on every device."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number + 2)
        return torch.randn(count, generator=generator, device="cpu")

    def _once(self, key, draw):
        if key not in self._drawn:
            with torch.inference_mode(False), torch.no_grad():
                self._drawn[key] = draw()
        return self._drawn[key]

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._drawn = {}
        return self

    def __getstate__(self) -> dict:
        """For pickling and deepcopy: without what can be drawn again."""
        return {**self.__dict__, "_drawn": {}}


class IntrinsicDelta(Branch):
    """The move of one tensor."""

    def __init__(self, subspace: IntrinsicSubspace, number: int, shape: torch.Size):
        super().__init__()
        self.subspace, self.number, self.shape = subspace, number, shape

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        return self.subspace.delta(self.number, dtype).view(self.shape)

    def beside(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(x, self.merged(weight), bias)


class AdaptedEmbedding(MergedWeight):
    """Rows of weight + delta: (..) whole numbers -> (.., d_model)."""

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        weight = self.merged_weight() if self.computes_merged else self.branch.merged(self.weight)
        return functional.embedding(index, weight).to(self.weight.dtype)

    @property
    def num_embeddings(self) -> int:
        return len(self.weight)


class AdaptedNorm(MergedWeight):
    """T5's norm with the vector weight + delta; x: (.., d_model) -> (.., d_model)."""

    def __init__(self, norm: nn.Module, config: AdapterConfig):
        super().__init__(norm, config)
        self.eps = norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        weight = self.merged_weight() if self.computes_merged else self.branch.merged(self.weight)
        weight = weight.to(self.weight.dtype)
        return weight * (normed.to(weight.dtype) if weight.dtype.itemsize == 2 else normed)
