"""Linear layers whose weight is a tensor train or a tensor ring."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.functional import pad as pad_with_zeros
from torch.utils.checkpoint import checkpoint

from t3nsor.autocast import in_autocast_dtype, without_autocast
from t3nsor.automatic_shape import linear_shape
from t3nsor.contraction.ops import check_operands, tt_matmul
from t3nsor.contraction.plans import Plan, check_strategy
from t3nsor.cores import FreezeCores, frozen_indices
from t3nsor.errors import ShapeError
from t3nsor.excess import warn_if_larger
from t3nsor.initializers import glorot_initializer, kaiming, zero_delta
from t3nsor.shapes import MatrixShape, Rank, check_matrix_shape
from t3nsor.tensor_train import CoreChain, TensorRing, TensorTrain

INITIALIZERS: dict[str, Callable[..., CoreChain]] = {
    "glorot": glorot_initializer,
    "kaiming": kaiming,
    "zero": zero_delta,
}


class TTLinear(nn.Module):
    """y = x W + b with W a TT-matrix (Novikov et al. 2015, https://arxiv.org/abs/1509.06569).

    in_features: size of the last dimension of x.
    out_features: size of the last dimension of y.
    rank: one inner rank or the list of d - 1 inner ranks.
    d: number of cores, used if `shape` is None, see `linear_shape`.
    shape: ((n_1, .., n_d), (m_1, .., m_d)) whose products are in_features and out_features.
    auto_shape_mode: used if `shape` is None, see `linear_shape`.
    pad: True to allow a shape whose products are larger than in_features and out_features, and to choose one where the
        two split badly, as primes do. x is then padded with zeros and y is cut: W is the upper left part of the
        matrix of the cores.
    bias: False for y = x W.
    init: "glorot"; "kaiming"; "zero", where one core is zero and the others are random, so that W = 0 and training can
        leave it; or a TensorTrain, which is copied, and decides shape and ranks.
    freeze_cores: None, "first", "last" or a list of indices of cores that are never trained.
    strategy: the contraction order, see `tt_matmul`.
    save: "fast" or "least": what is kept for the backward pass, see `tt_matmul`.
    cores_nonlinearity: an activation between the cores, such as torch.relu; the layer then has no matrix.
    activate_last: with such an activation, apply it behind the last core too, before the bias.
    use_checkpointing: with such an activation, recompute the states between the cores in the backward pass.

    State-dict keys: `weight.cores.0` .. , each (r_{k-1}, n_k, m_k, r_k), and `bias` (out_features,).
    Raises ShapeError for sizes that do not fit. Warns, with ShapeWarning, if W has more parameters than a dense matrix.
    """

    ring = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: Rank = 8,
        d: int | str | None = None,
        shape: MatrixShape | None = None,
        auto_shape_mode: str = "ascending",
        pad: bool = False,
        bias: bool = True,
        init: str | CoreChain = "glorot",
        freeze_cores: FreezeCores = None,
        strategy: str | Plan = "auto",
        save: str = "fast",
        cores_nonlinearity: Callable[[torch.Tensor], torch.Tensor] | None = None,
        activate_last: bool = False,
        use_checkpointing: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.strategy, self.save = strategy, save
        self.cores_nonlinearity, self.activate_last = cores_nonlinearity, activate_last
        self.use_checkpointing = use_checkpointing
        self.init = None if isinstance(init, CoreChain) else init
        if isinstance(init, CoreChain):
            self.weight = self._copied(init, freeze_cores, device, dtype, pad)
        else:
            if shape is None:
                options: dict[str, Any] = {"d": d, "mode": auto_shape_mode, "ring": self.ring, "pad": pad}
                shape = linear_shape(in_features, out_features, rank=rank, **options)
            shape = check_matrix_shape(shape, in_features, out_features, pad)
            self.weight = self._initialized(init, shape, rank, freeze_cores=freeze_cores, device=device, dtype=dtype)
        check_strategy(strategy, self.weight.d, self.ring, save)
        warn_if_larger(type(self).__name__, self.weight, (in_features, out_features))
        cores = self.weight
        self.padded = cores.shape != (in_features, out_features)
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=cores.dtype, device=cores.device)) if bias else None

    def forward(self, x: torch.Tensor, matrix: torch.Tensor | None = None) -> torch.Tensor:
        """x: (.., in_features) -> (.., out_features).

        matrix: W, what `full` returns, from whoever has built it already; only where `takes_matrix`, and not checked.
        """
        if matrix is not None:
            return linear(x, matrix.to(x.dtype).t(), None if self.bias is None else self.bias.to(x.dtype))
        if not self.padded:
            return self._product(x, self.bias)
        rows, columns = self.weight.shape
        if x.shape[-1:] != (self.in_features,):
            raise ShapeError(f"x has shape {tuple(x.shape)}; its last dimension must be {self.in_features}")
        bias = None if self.bias is None else widened(self.bias, columns)
        return cut(self._product(widened(x, rows), bias), self.out_features)

    def takes_matrix(self, rows: int) -> bool:
        """True if `forward` may be given W, and keep it for the backward pass, with so many rows.

        No order of contraction must have been asked for, and W must be no larger than what goes in and comes out.
        """
        if self.in_features * self.out_features > rows * (self.in_features + self.out_features):
            return False
        left_open = self.strategy == "auto" and self.save == "fast"
        return left_open and self.cores_nonlinearity is None and not self.padded

    def reset_parameters(self) -> None:
        """Draw the cores again, as at the start, and set the bias to zero. Raises ShapeError if they were given."""
        if self.init is None:
            raise ShapeError(f"{type(self).__name__}: it started from a train, which it does not keep; build it again")
        frozen = list(self.weight.frozen_cores)
        drawn = self._initialized(self.init, self.weight.raw_shape, self.weight.inner_ranks, freeze_cores=frozen)
        self.weight.copy_(drawn)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def full(self) -> torch.Tensor:
        """W as a dense matrix (in_features, out_features). Raises ShapeError with an activation between the cores."""
        if self.cores_nonlinearity is not None:
            raise ShapeError(f"{type(self).__name__}: with an activation between its cores the layer has no matrix")
        return self.weight.full()[: self.in_features, : self.out_features]

    def extra_repr(self) -> str:
        activation = self.cores_nonlinearity
        name = getattr(activation, "__name__", type(activation).__name__)
        where = "behind every core" if self.activate_last else "between the cores"
        between = "" if activation is None else f", {name} {where}"
        padding = ", padded to {} -> {}".format(*self.weight.shape) if self.padded else ""
        return f"{self.in_features} -> {self.out_features}{padding}, bias={self.bias is not None}{between}"

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x: (.., rows of the cores) -> (.., columns of the cores)."""
        activation = self.cores_nonlinearity
        if activation is None:
            return tt_matmul(x, self.weight, self.strategy, bias=bias, save=self.save)
        cores = self.weight.cores.forward()
        check_operands(x, None, bias, cores)
        x = in_autocast_dtype(x)
        bias = None if bias is None else bias.to(x.dtype)

        def chain(x, *cores):
            y = activated_chain(x, cores, self.ring, activation)
            return activation(y) if self.activate_last else y

        if self.use_checkpointing and torch.is_grad_enabled():
            y = checkpoint(chain, x, *cores, use_reentrant=False)
        else:
            y = chain(x, *cores)
        return y if bias is None else y + bias

    def _initialized(self, init: str, shape: MatrixShape, rank: Rank, **options: Any) -> CoreChain:
        if init not in INITIALIZERS:
            raise ShapeError(
                f"{type(self).__name__}: init is {init!r}; allowed: {', '.join(INITIALIZERS)} or a tensor train"
            )
        if init == "zero":
            options["zero"] = self._zero_core(len(shape[0]), options["freeze_cores"])
        return INITIALIZERS[init](shape, rank, ring=self.ring, trainable=True, **options)

    def _zero_core(self, d: int, freeze_cores: FreezeCores) -> int:
        """Choose the core that starts as zero: the last of those that are trained."""
        trained = set(range(d)) - set(frozen_indices(freeze_cores, d, type(self).__name__))
        if not trained:
            raise ShapeError(
                f"{type(self).__name__}: init is 'zero' and freeze_cores {freeze_cores!r} freezes all {d} cores; one "
                "must be trained, as it starts as zero"
            )
        activation = self.cores_nonlinearity
        if activation is not None and d - 1 not in trained and not passes_zero(activation):
            raise ShapeError(
                f"{type(self).__name__}: init is 'zero' and freeze_cores {freeze_cores!r} freezes the last core; "
                "another one may start as zero only if the activation is 0 at 0 and has a gradient there"
            )
        return max(trained)

    def _copied(
        self,
        chain: CoreChain,
        freeze_cores: FreezeCores,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        pad: bool,
    ) -> CoreChain:
        wanted = TensorRing if self.ring else TensorTrain
        if not isinstance(chain, wanted) or not chain.is_matrix:
            raise ShapeError(f"{type(self).__name__}: init is {chain!r}; it must be the matrix of a {wanted.__name__}")
        check_matrix_shape(chain.raw_shape, self.in_features, self.out_features, pad)
        cores = [core.detach().to(device=device, dtype=dtype) for core in chain.cores]
        return wanted(cores, trainable=True, freeze_cores=freeze_cores)


class TRLinear(TTLinear):
    """y = x W + b with W a tensor ring (Zhao et al. 2016, https://arxiv.org/abs/1606.05535).

    Like `TTLinear`, but `rank` is one rank for all bonds or the list r_0 .. r_{d-1}, and `init` may be a TensorRing.
    """

    ring = True


def widened(x: torch.Tensor, size: int) -> torch.Tensor:
    """Return x with its last dimension padded with zeros to `size`; x itself if it has that size."""
    return x if x.shape[-1] == size else pad_with_zeros(x, (0, size - x.shape[-1]))


def cut(x: torch.Tensor, size: int) -> torch.Tensor:
    """Return the first `size` entries of the last dimension, contiguous; x itself if it has no more."""
    return x if x.shape[-1] == size else x[..., :size].contiguous()


def passes_zero(activation: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """True if f(0) = 0 and f'(0) != 0: behind a core that is zero, f then leaves output and training as they are."""
    with torch.enable_grad():
        x = torch.zeros(1, device="cpu", requires_grad=True)
        y = activation(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    return not y.any() and bool(slope.any())


def activated_chain(
    x: torch.Tensor,
    cores: Sequence[torch.Tensor],
    closed: bool,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Multiply rows by core after core, from left to right, with `activation` after each but the last.

    x: (.., in_features) -> (.., out_features). The state between cores k and k + 1 has the axes
    (rows, r_0, m_1 .. m_k, r_k, n_{k+1} .. n_d), of which a step turns (r_k, n_{k+1}) into (m_{k+1}, r_{k+1}); the last
    step of a ring sums over r_0 as well.
    """
    with without_autocast(x.device):
        cores = [core.to(x.dtype) for core in cores]
        ring, n, m, right = cores[0].shape
        done, rest = 1, x.shape[-1] // n
        state = x.reshape(-1, n, rest)
        if len(cores) == 1:
            return x @ cores[0].diagonal(dim1=0, dim2=3).sum(-1)
        state = torch.matmul(cores[0].permute(0, 2, 3, 1).reshape(ring * m * right, n), state)
        for core in cores[1:]:
            done, (left, n, m, right) = done * m, core.shape
            rest //= n
            state = activation(state).reshape(-1, left * n, rest)
            if core is cores[-1]:
                break
            state = torch.matmul(core.permute(2, 3, 0, 1).reshape(m * right, left * n), state)
        state = state.reshape(-1, ring, done, left * n).transpose(1, 2).reshape(-1, ring * left * n)
        last = core.permute(3, 0, 1, 2) if closed else core[..., 0]
        y = state @ last.reshape(ring * left * n, m)
    return y.reshape(*x.shape[:-1], done * m)
