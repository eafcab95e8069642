"""Training all weights of the model in one random subspace (Li et al. 2018, https://arxiv.org/abs/1804.08838;
Aghajanyan et al. 2020, https://arxiv.org/abs/2012.13255).

The l-th tensor of the backbone becomes W_l = W0_l + lambda_l * P_l theta. theta: (d,) is trained and starts at zero;
P_l: (size of W_l, d) is random and fixed. Without intrinsic_said all lambda_l are 1; with it they are trained. As in
the paper, the m lambdas count towards intrinsic_dim: d = intrinsic_dim - m, and exactly intrinsic_dim numbers are
trained.

"fastfood": P_l is never built. It consists of blocks H G_j R H B / sqrt(L size) of L = 2^k >= d rows (Le et al. 2013,
https://proceedings.mlr.press/v28/le13.html), where H is the Walsh-Hadamard transform, B random signs, R a permutation
and G_j a diagonal of normal numbers, one per block. B and R are the same for all blocks, because the G_j already make
the rows independent. So R H B theta is computed once in a pass of the model, and each use of a tensor costs one
transform. The G_j need as much memory as the weights.
"dense": P_l is a stored matrix with entries from N(0, 1 / size).

The random numbers are redrawn from intrinsic_seed when a checkpoint is loaded; a fingerprint in it detects differences.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.merged_weight import Branch, MergedWeight
from adapters.norms import T5Norm, rms_norm
from adapters.parts import AdapterPart
from adapters.precision import trained_dtype
from adapters.task_switch import TaskSwitch
from adapters.walsh_hadamard import Mixing, hadamard_factors, mixed, walsh_hadamard
from common.errors import ConfigError
from t3nsor.autocast import without_autocast

MAX_DENSE_ENTRIES = 2**31


class IntrinsicSubspace(AdapterPart):
    """theta, the lambdas and the projections of all tensors.

    sizes: number of entries of each tensor.
    Raises ConfigError if intrinsic_dim or intrinsic_projection does not fit the sizes.
    """

    fingerprint: torch.Tensor

    def __init__(self, config: AdapterConfig, sizes: list[int]):
        super().__init__()
        self.sizes, self.seed, self.normalize = sizes, config.intrinsic_seed, config.normalize_intrinsic_projections
        scales = len(sizes) if config.intrinsic_said else 0
        if config.intrinsic_dim <= scales:
            raise ConfigError(
                f"intrinsic_dim is {config.intrinsic_dim}; with intrinsic_said it must be above the number of tensors, "
                f"{scales}"
            )
        if config.intrinsic_dim > sum(sizes):
            raise ConfigError(f"intrinsic_dim is {config.intrinsic_dim}; the model has only {sum(sizes)} parameters")
        self.d = config.intrinsic_dim - scales
        self.dense = config.intrinsic_projection == "dense"
        if self.dense and sum(sizes) * self.d > MAX_DENSE_ENTRIES:
            raise ConfigError(
                f'intrinsic_projection is "dense", which would store {sum(sizes) * self.d:.1e} numbers for this model; '
                f'allowed: {MAX_DENSE_ENTRIES:.1e}; set it to "fastfood"'
            )
        self.theta = nn.Parameter(torch.zeros(self.d))
        self.scales = nn.Parameter(torch.ones(scales)) if scales else None
        self.register_buffer("fingerprint", torch.zeros(8))
        self.length = 1 << max(0, self.d - 1).bit_length()
        self._factor_keys = [f"factor {k}" for k in range(len(hadamard_factors(self.length)))]
        self._cache: dict[str | int, torch.Tensor] = {}
        self._shared: dict[Hashable, Any] | None = None
        self._passes = 0  # of the model and its stacks, one inside another
        if not self.fingerprint.is_meta:
            self.fingerprint.copy_(self._normal(-1, 8).to(self.fingerprint))

    def delta(self, number: int, dtype: torch.dtype) -> torch.Tensor:
        """lambda_l * P_l theta for the tensor with index `number`, (size,), computed in `dtype`."""
        size = self.sizes[number]
        with without_autocast(self.theta.device):
            theta = self.theta.to(dtype)
            delta = self._drawn(number).to(theta) @ theta if self.dense else self._fastfood(number, size, theta)
            if self.scales is not None:
                delta = delta * self.once(("scales", dtype), torch.unbind, self.scales.to(dtype))[number]
            return delta

    def check_saved(self, saved: Mapping[torch.Tensor, torch.Tensor]) -> None:
        """Raise ConfigError if the random numbers drawn here differ from those that the adapter was trained with."""
        if not torch.allclose(saved[self.fingerprint].float().cpu(), self._normal(-1, 8), rtol=1e-2):
            raise ConfigError(
                f"the subspace of the saved adapter cannot be reproduced: with intrinsic_seed {self.seed}, torch "
                f"{torch.__version__} draws different numbers; use the torch version named in lab_adapter.json"
            )

    def _fastfood(self, number: int, size: int, theta: torch.Tensor) -> torch.Tensor:
        directions = self._drawn(number).to(theta)
        mixed_theta = self.once(("mixed", theta.dtype), self._mixed, theta)
        delta = walsh_hadamard(directions * mixed_theta, self._factors(theta)).reshape(-1)
        return delta if len(delta) == size else delta[:size]

    def _mixed(self, theta: torch.Tensor) -> torch.Tensor:
        """R H B theta, (L,)."""
        signs, order, factors = self._drawn("signs").to(theta), self._drawn("order"), self._factors(theta)
        if torch.compiler.is_compiling():
            return mixed(theta, signs, order, factors)
        return Mixing.apply(theta, signs, order, self._drawn("back"), factors)

    def _factors(self, theta: torch.Tensor) -> list[torch.Tensor]:
        return [self._drawn(key).to(theta) for key in self._factor_keys]

    def once(self, key: Hashable, compute: Callable[[Any], Any], x: Any) -> Any:
        """compute(x), once for all layers in a pass of the model. key: what tells it apart."""
        shared = self._shared
        if shared is None or torch.compiler.is_compiling():  # the compiler finds what is computed twice
            return compute(x)
        key = key, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        if key not in shared:
            shared[key] = compute(x)
        return shared[key]

    def begin(self, *_: Any) -> None:
        """Begin to share what all layers need; a hook called before the forward pass of the model or of a stack.

        It is shared no longer than until the pass ends, as not every write to theta can be noticed.
        """
        self._passes += 1
        if self._passes == 1:
            self._shared = {}

    def end(self, *_: Any) -> None:
        """End what `begin` began; a hook called after the pass."""
        self._passes -= 1
        if self._passes == 0:
            self._shared = None

    def _draw(self, key: str | int) -> torch.Tensor:
        """The random numbers of the tensor with the index `key`, or by a name what all tensors have in common."""
        if isinstance(key, int):
            return self._projection(key, self.sizes[key]) if self.dense else self._directions(key, self.sizes[key])
        if key in self._factor_keys:
            return hadamard_factors(self.length)[self._factor_keys.index(key)]
        if key == "back":
            return torch.argsort(self._draw("order"))
        generator = torch.Generator().manual_seed(self.seed)
        signs = torch.randint(0, 2, (self.length,), generator=generator, device="cpu") * 2 - 1
        return signs.float() if key == "signs" else torch.randperm(self.length, generator=generator, device="cpu")

    def _directions(self, number: int, size: int) -> torch.Tensor:
        """The diagonals G_j / sqrt(L size), (blocks, L)."""
        length = self.length
        normal = self._normal(number, -(-size // length) * length).view(-1, length)
        if self.normalize:
            normal = normal * math.sqrt(length) / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
        return normal / math.sqrt(length * size)

    def _projection(self, number: int, size: int) -> torch.Tensor:
        """P_l, (size, d)."""
        normal = self._normal(number, size * self.d).view(size, self.d) / math.sqrt(size)
        return normal / torch.linalg.vector_norm(normal, dim=0) if self.normalize else normal

    def _normal(self, number: int, count: int) -> torch.Tensor:
        """`count` normal numbers for the tensor `number`, the same on every device."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number + 2)
        return torch.randn(count, generator=generator, device="cpu")

    def _drawn(self, key: str | int) -> torch.Tensor:
        """What `_draw` draws for `key`, kept on the device of theta."""
        if key not in self._cache:
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = self._draw(key).to(self.theta.device)
        return self._cache[key]

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and draw what is not drawn yet: a compiler that met it in a forward pass could not."""
        if not self.theta.is_meta:
            shared = [] if self.dense else ["signs", "order", "back", *self._factor_keys]
            for key in (*shared, *range(len(self.sizes))):
                self._drawn(key)
        return super().train(mode)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        device = self.theta.device
        self._cache = {} if device.type == "meta" else {key: kept.to(device) for key, kept in self._cache.items()}
        return self

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickling and deepcopy, without what can be redrawn."""
        return {**self.__dict__, "_cache": {}, "_shared": None, "_passes": 0}


class IntrinsicDelta(Branch):
    """The update of one tensor. tied: several modules compute with the tensor, as T5's with the embedding."""

    def __init__(self, subspace: IntrinsicSubspace, number: int, shape: torch.Size, tied: bool = False):
        super().__init__()
        self.subspace, self.number, self.shape, self.tied = subspace, number, shape, tied

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        compute = partial(self.subspace.delta, self.number)
        delta = self.subspace.once((self.number, dtype), compute, dtype) if self.tied else compute(dtype)
        return delta.view(self.shape)

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed weight in the dtype of `weight`; in half precision it is rounded once, at the end."""
        return (weight + self.delta(trained_dtype(weight.dtype))).to(weight.dtype)

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(x, self.merged(weight), bias)


class AdaptedEmbedding(MergedWeight):
    """An embedding with the table weight + delta; index: (..) -> (.., d_model)."""

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return functional.embedding(index, self.present_weight()).to(self.weight.dtype)

    @property
    def num_embeddings(self) -> int:
        return len(self.weight)


class AdaptedNorm(MergedWeight):
    """T5's layer norm with the vector weight + delta; x: (.., d_model) -> (.., d_model)."""

    def __init__(self, norm: T5Norm, config: AdapterConfig, switch: TaskSwitch):
        super().__init__(norm, config, switch)
        self.eps = norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.present_weight().to(self.weight.dtype), self.eps)
