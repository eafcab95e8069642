"""Checks and products of lists of cores, shared by tensor trains and tensor rings.

A core of a tensor has the shape (r, n, r'), a core of a matrix (r, n, m, r'); r and r' are the bonds to its neighbours.
A train is open (first and last bond are 1); a ring is closed (the last bond is the first, and summed over).
"""

from collections.abc import Sequence

import torch

from t3nsor.autocast import without_autocast
from t3nsor.errors import ShapeError

FreezeCores = str | Sequence[int] | None


def check_cores(cores: Sequence[torch.Tensor], closed: bool, what: str) -> None:
    """Raise ShapeError, beginning with `what`, unless `cores` form a train or, if `closed`, a ring."""
    if not all(isinstance(core, torch.Tensor) for core in cores):
        raise ShapeError(f"{what}: cores must be tensors, got {[type(core).__name__ for core in cores]}")
    shapes = [tuple(core.shape) for core in cores]
    if not shapes:
        raise ShapeError(f"{what} needs at least one core")
    if {len(shape) for shape in shapes} not in ({3}, {4}):
        raise ShapeError(f"{what}: cores of shapes {shapes}: all need 3 dimensions (tensor) or all 4 (matrix)")
    if any(0 in shape for shape in shapes):
        raise ShapeError(f"{what}: cores of shapes {shapes}: no rank and no size may be 0")
    if any(left[-1] != right[0] for left, right in zip(shapes, shapes[1:], strict=False)):
        raise ShapeError(f"{what}: cores of shapes {shapes}: the last rank of each must be the first rank of the next")
    if closed and shapes[0][0] != shapes[-1][-1]:
        raise ShapeError(f"{what}: cores of shapes {shapes}: the last rank must equal the first, {shapes[0][0]}")
    if not closed and (shapes[0][0] != 1 or shapes[-1][-1] != 1):
        raise ShapeError(f"{what}: cores of shapes {shapes}: the first and the last rank must be 1")
    for name in ("dtype", "device"):
        kinds = [getattr(core, name) for core in cores]
        if any(kind != kinds[0] for kind in kinds):
            raise ShapeError(f"{what}: cores of shapes {shapes} have the {name}s {kinds}; all need the same")
    if not cores[0].is_floating_point():
        raise ShapeError(f"{what}: cores of shapes {shapes} are {cores[0].dtype}; they must be floating-point")


def frozen_indices(freeze_cores: FreezeCores, d: int, what: str) -> tuple[int, ...]:
    """Return the indices, out of `d`, that `freeze_cores` names: None, "first", "last" or a list (-1: the last).

    Raises ShapeError, beginning with `what`, for anything else.
    """
    named = {"first": (0,), "last": (d - 1,)}
    if freeze_cores is None:
        return ()
    try:
        indices = named[freeze_cores] if isinstance(freeze_cores, str) else tuple(freeze_cores)
    except (KeyError, TypeError):
        raise ShapeError(
            f"{what}: freeze_cores is {freeze_cores!r}; allowed: None, 'first', 'last' or a list of indices"
        ) from None
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not -d <= index < d:
            raise ShapeError(
                f"{what}: freeze_cores {freeze_cores!r} holds {index!r}; {d} cores have the indices {-d} to {d - 1}"
            )
    return tuple(sorted({index % d for index in indices}))


def merge_cores(cores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply adjacent cores into one.

    cores: all (r_{k-1}, n_k, m_k, r_k), with any batch dimensions in front, or all (r_{k-1}, n_k, r_k).

    Returns one core (r_a, prod n_k, prod m_k, r_b), or (r_a, prod n_k, r_b), between the outermost ranks.
    """
    if cores[0].dim() == 3:
        return merge_cores([core.unsqueeze(2) for core in cores]).squeeze(2)
    if len(cores) == 1:
        return cores[0]
    product = _product(cores)
    product = product.reshape(*product.shape[:-2], *modes_of(cores), product.shape[-1])
    return inputs_first(product, len(cores), trailing=1)


def close_cores(cores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply all matrix cores of a train or a ring into the dense matrix.

    cores: (.., r_{k-1}, n_k, m_k, r_k) with any batch dimensions in front. Returns (.., prod n_k, prod m_k).
    """
    if len(cores) == 1:
        return cores[0].diagonal(dim1=-4, dim2=-1).sum(-1)
    half = len(cores) // 2
    left, right = _product(cores[:half]), _product(cores[half:])
    if right.shape[-1] == 1:  # gradients are laid out as their cores then
        left, right = left.flatten(-3, -2), right.flatten(-2)
    else:  # one product sums both bonds between the halves; a merged core (r, N, M, r) would take r^2 times the memory
        left, right = left.movedim(-3, -1).flatten(-2), right.movedim(-1, -2).flatten(-3, -2)
    with without_autocast(left.device):
        product = left @ right
    return inputs_first(product.reshape(*product.shape[:-2], *modes_of(cores)), len(cores), trailing=0)


def _product(cores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply adjacent matrix cores into (.., r_a, n_1 * m_1 * n_2 * .. * m_d, r_b), with the modes as they come."""
    if len(cores) == 1:
        return cores[0].flatten(-3, -2)
    half = len(cores) // 2
    left, right = _product(cores[:half]), _product(cores[half:])
    with without_autocast(left.device):
        product = left.flatten(-3, -2) @ right.flatten(-2)
    return product.reshape(*left.shape[:-1], *right.shape[-2:]).flatten(-3, -2)


def modes_of(cores: Sequence[torch.Tensor]) -> list[int]:
    """n_1, m_1, .., n_d, m_d of matrix cores."""
    return [size for core in cores for size in core.shape[-3:-1]]


def inputs_first(product: torch.Tensor, d: int, trailing: int) -> torch.Tensor:
    """(.., n_1, m_1, .., n_d, m_d, *trailing) -> (.., n_1 * .. * n_d, m_1 * .. * m_d, *trailing)."""
    start = product.dim() - trailing - 2 * d
    inputs, outputs = range(start, start + 2 * d, 2), range(start + 1, start + 2 * d, 2)
    product = product.permute(*range(start), *inputs, *outputs, *range(start + 2 * d, product.dim()))
    return product.flatten(start, start + d - 1).flatten(start + 1, start + d)
