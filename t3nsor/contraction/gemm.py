"""Matrix products written into given memory, and sums of products over blocks of rows."""

from collections.abc import Iterator

import torch

from t3nsor.contraction.torch_internals import is_exporting

NARROW = 16  # columns below which a CPU's GEMM leaves its vectorised kernels


def blocks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover range(count); one empty slice if `count` is 0."""
    return (slice(start, min(start + size, count)) for start in range(0, max(1, count), size))


def is_narrow(columns: int, a: torch.Tensor) -> bool:
    """True if a CPU's GEMM of the rows of `a` with so few columns would take several times as long as its transpose."""
    few = 1 < columns < NARROW and a.device.type == "cpu" and a.dtype.itemsize >= 4
    return few and not is_exporting() and a.shape[0] >= NARROW  # an exported program is for any number of rows


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b; a narrow product is computed as its transpose."""
    return torch.mm(b.t(), a.t()).t() if is_narrow(b.shape[1], a) else torch.mm(a, b)


def write_product(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, base: torch.Tensor | None) -> None:
    """Set out = base + a @ b; `base` may be `out`, or None for 0."""
    if is_narrow(b.shape[1], a):
        out.copy_(product(a, b)) if base is None else torch.add(base, product(a, b), out=out)
    else:
        torch.mm(a, b, out=out) if base is None else torch.addmm(base, a, b, out=out)


def add_product(total: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return total + a @ b for matrices or batches of them, in place where possible; a `total` of None counts as 0.

    Products in half precision are summed in float32: each product is rounded, the sum is not.
    """
    if total is None:
        return product(a, b) if a.dim() == 2 else torch.bmm(a, b)
    if a.dtype.itemsize == 2:
        return add_term(total, a @ b)
    if total.dim() == 2:
        write_product(total, a, b, base=total)
        return total
    return total.baddbmm_(a, b)


def add_term(total: torch.Tensor | None, term: torch.Tensor) -> torch.Tensor:
    """Return total + term in `sum_dtype`, in place where possible; a `total` of None counts as 0."""
    return term if total is None else total.to(sum_dtype(total)).add_(term)


def sum_dtype(terms: torch.Tensor) -> torch.dtype:
    """The dtype in which to sum `terms`: float32 for half precision, else their own."""
    return torch.float32 if terms.dtype.itemsize == 2 else terms.dtype
