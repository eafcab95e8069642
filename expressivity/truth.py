"""Exact optima of families that are linear in their input, to judge fits and optimisers by.

On given rows the least squares solution is known for full matrices, for n-diagonal ones (a regression of each output on
the inputs that its column may use) and for those of low rank (reduced-rank regression: Izenman 1975, "Reduced-rank
regression for the multivariate linear model"). For white inputs it follows from the weights: Eckart and Young 1936 for
low rank, and Van Loan and Pitsianis 1993, "Approximation with Kronecker products", for trains and rings of two cores.
"""

import torch
from torch import nn

from expressivity.errors import ExpressivityError
from expressivity.networks import AdaptedNetwork, DeepNetwork
from expressivity.networks.layers import FullLinear, LowRankLinear, NDiagonalLinear, StructuredLinear
from t3nsor import linear_shape


def closed_form_errors(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, fresh_x: torch.Tensor, fresh_y: torch.Tensor
) -> float | None:
    """Error, on fresh rows, of the member of the network's family with the least mean square error on (x, y).

    network: its structure is used and, of an AdaptedNetwork, its frozen part; not what it has been trained to.
    x, y: the rows of the fit, each (rows, .., width).
    fresh_x, fresh_y: the rows of the evaluation, likewise.

    Returns the error relative to the variance of fresh_y, as in `scoring.relative_errors`, computed in float64. If
    several members fit the rows equally well, as with fewer rows than inputs, it is that of the one with the smallest
    weights. None for networks without a closed form: all but a DeepNetwork or an AdaptedNetwork of depth 1 with layers
    or updates that are full, low_rank or n_diagonal. A train of two cores has one for exactly white inputs, see
    `optimal_errors`, but not on sampled rows.
    """
    found = _linear_part(network)
    if found is None:
        return None
    layer, frozen, free_bias = found
    x, y, fresh_x, fresh_y = (rows.detach().cpu().double() for rows in (x, y, fresh_x, fresh_y))
    rest, fresh_rest = (  # what the frozen part leaves to the update
        out if frozen is None else out - _outputs(frozen, rows) for rows, out in ((x, y), (fresh_x, fresh_y))
    )
    x, rest = x.flatten(0, -2), rest.flatten(0, -2)
    x_mean, rest_mean = (rows.mean(0) * free_bias for rows in (x, rest))
    weight = _least_squares(layer, x - x_mean, rest - rest_mean)
    left = fresh_rest - rest_mean - (fresh_x - x_mean) @ weight
    return (left.square().mean() / (fresh_y - fresh_y.mean(0)).square().mean()).item()


def optimal_errors(
    target: torch.Tensor, structure: str, rank: int | None = None, frozen: torch.Tensor | None = None
) -> torch.Tensor:
    """The least relative errors with which matrices of a structure imitate linear maps, for white inputs.

    target: weights (.., width, width) to imitate, with inputs as rows.
    structure: "full", "low_rank", or "tt" or "tr" for trains or rings of two cores.
    rank: rank of the structure; unused for "full".
    frozen: weights (.., width, width) to which the structure is added, as in AdaptedNetwork; None: nothing.

    Returns (..,) in float64: the sum of the squared singular values of target - frozen beyond the rank, relative to the
    sum of all those of target. For "tt" they are those of the `rearranged` matrix, whose rank is that of the train; for
    "tr" it is the square of that of the ring. Biases play no part, as if they were zero or trained. For deep networks
    without activations and an update of low rank in each layer, give the products of their matrices and depth * rank
    (Zeng and Lee 2023, https://arxiv.org/abs/2310.17513, for matrices in general position).

    Raises ExpressivityError for another structure.
    """
    target = target.detach().cpu().double()
    missing = target if frozen is None else target - frozen.detach().cpu().double()
    if structure not in ("full", "low_rank", "tt", "tr"):
        raise ExpressivityError(f"structure is {structure!r}; allowed: full, low_rank, tt, tr")
    if structure == "full":
        return torch.zeros(target.shape[:-2], dtype=torch.float64)
    if rank is None:
        raise ExpressivityError(f"rank is None; for {structure} it must be a whole number, at least 1")
    if structure in ("tt", "tr"):
        missing, rank = rearranged(missing), rank if structure == "tt" else rank**2
    squares = torch.linalg.svdvals(missing).square()
    return squares[..., rank:].sum(-1) / target.square().sum((-2, -1))


def rearranged(matrix: torch.Tensor) -> torch.Tensor:
    """Rearrange matrices (.., width, width) to (.., n_1 m_1, n_2 m_2), where Kronecker products have rank 1.

    n_1 n_2 and m_1 m_2 are the factors of the width that `TensorTrainLinear` chooses for two cores.
    """
    (n1, n2), (m1, m2) = linear_shape(*matrix.shape[-2:], d=2)
    blocks = matrix.unflatten(-1, (m1, m2)).unflatten(-3, (n1, n2))
    return blocks.transpose(-3, -2).flatten(-2).flatten(-3, -2)


def _linear_part(network: nn.Module) -> tuple[StructuredLinear, FullLinear | None, bool] | None:
    """The layer that is fitted, the frozen layer if any, and whether a bias is fitted; None without a closed form."""
    if type(network) is DeepNetwork and len(network.layers) == 1:
        layer = network.layers[0]
        found = layer, None, getattr(layer, "bias", None) is not None
    elif type(network) is AdaptedNetwork and len(network.frozen.layers) == 1 and hasattr(network.updates, "layers"):
        found = network.updates.layers[0], network.frozen.layers[0], network.biases is not None
    else:
        return None
    return found if isinstance(found[0], FullLinear | LowRankLinear | NDiagonalLinear) else None


def _outputs(layer: FullLinear, x: torch.Tensor) -> torch.Tensor:
    """Outputs (.., width) of a layer for x, (.., width), in the precision of x."""
    y = x @ layer.matrix().detach().cpu().to(x)
    return y if layer.bias is None else y + layer.bias.detach().cpu().to(x)


def _least_squares(layer: StructuredLinear, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The W, (width, width), with the structure of `layer` that minimises |y - x W|; x, y: (rows, width)."""
    if isinstance(layer, NDiagonalLinear):
        weight = x.new_zeros(layer.width, layer.width)
        inside = weight.bool().flatten().index_fill(0, layer.place.cpu(), True).view_as(weight)
        for column, used in enumerate(inside.T):
            weight[used, column] = _solution(x[:, used], y[:, column, None])[:, 0]
        return weight
    weight = _solution(x, y)
    if isinstance(layer, LowRankLinear):
        top = torch.linalg.svd(x @ weight, full_matrices=False).Vh[: layer.U.shape[1]]
        weight = weight @ top.T @ top
    return weight


def _solution(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The smallest of the solutions of least squares; x may have any rank."""
    return torch.linalg.lstsq(x, y, driver="gelsd").solution
