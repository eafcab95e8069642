"""Matrix products that write into given memory, and add up over blocks of rows."""

from collections.abc import Iterator

import torch

NARROW = 16


def blocks(rows: int, block: int) -> Iterator[slice]:
    """Slices of at most `block` that cover `rows`; an empty one if there are none."""
    return (slice(start, min(start + block, rows)) for start in range(0, max(1, rows), block))


def is_narrow(columns: int, like: torch.Tensor) -> bool:
    """Whether a CPU's GEMM would fall out of its vectorised kernels, which makes it several times slower."""
    return 1 < columns < NARROW and like.device.type == "cpu" and like.dtype.itemsize >= 4


def put_product(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, accumulate: bool) -> None:
    """out = or += a @ b for matrices; a narrow product is made as its transpose."""
    if is_narrow(b.shape[1], a):
        product = torch.mm(b.t(), a.t()).t()
        out.add_(product) if accumulate else out.copy_(product)
    elif accumulate:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)


def add_product(total: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """total + a @ b, for matrices or batches of them, in place where it can be; a total of None is 0.

    Products of half-precision numbers are summed up in float32: each of them is rounded, their sum is not.
    """
    if total is None:
        narrow = a.dim() == 2 and is_narrow(b.shape[1], a)
        return torch.mm(b.t(), a.t()).t() if narrow else a @ b
    if a.dtype.itemsize == 2:
        return accumulated(total, a @ b)
    if total.dim() == 2:
        put_product(total, a, b, accumulate=True)
        return total
    return total.baddbmm_(a, b)


def accumulated(total: torch.Tensor | None, term: torch.Tensor) -> torch.Tensor:
    return term if total is None else total.to(sum_dtype(total)).add_(term)


def sum_dtype(terms: torch.Tensor) -> torch.dtype:
    return torch.float32 if terms.dtype.itemsize == 2 else terms.dtype
