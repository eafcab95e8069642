"""The backward pass of two factors by large GEMMs only.

Rows stand between the modes, x as (n1, rows, n2) and g as (m1, rows, m2), so that no product is done row by row, at the
price of copies of x and g.
"""

from collections.abc import Sequence

import torch

from t3nsor.contraction.gemm import add_product, blocks


def pair_gradients(
    x: torch.Tensor,
    g: torch.Tensor,
    factors: Sequence[torch.Tensor],
    rows_per_block: int,
    expands_g: bool,
    dx: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Return the gradients of the two factors of y[(j1 j2)] = sum over r, i1, i2 of
    x[(i1 i2)] first[i1, j1, r] second[r, i2, j2].

    x, g: (rows, in), and the gradient of y, (rows, out).
    factors: (n1, m1, r) and (r, n2, m2), of the dtype of the rows.
    rows_per_block: rows handled at once.
    expands_g: expand g over the second factor and x over the first, instead of x over the second and g over the
        first. The sums are symmetric in x and g, so it is the same function with the modes of the factors exchanged.
    dx: (rows, in), overwritten; None: the gradient of x is not needed.
    """
    if not expands_g:
        return _pass(x, g, factors, rows_per_block, dx, None)
    exchanged = [factor.transpose(k, k + 1) for k, factor in enumerate(factors)]
    d_factors = _pass(g, x, exchanged, rows_per_block, None, dx)
    return [gradient.transpose(k, k + 1) for k, gradient in enumerate(d_factors)]


def _pass(
    x: torch.Tensor,
    g: torch.Tensor,
    factors: Sequence[torch.Tensor],
    rows_per_block: int,
    dx: torch.Tensor | None,
    dg: torch.Tensor | None,
) -> list[torch.Tensor]:
    """One pass over the rows: x expands over the second factor, g over the first.

    Returns the gradients of the factors, (n1, m1, r) and (r, n2, m2); writes that of x or of g where asked for.
    """
    (n1, m1, r), (_, n2, m2) = (factor.shape for factor in factors)
    first, second = factors[0].permute(2, 0, 1).reshape(r * n1, m1), factors[1].contiguous()
    found: list = [None, None]
    x_modes: torch.Tensor | None = None
    for rows in blocks(len(x), rows_per_block):
        count = rows.stop - rows.start
        if x_modes is None or x_modes.shape[1] != count:
            sizes = (n1, count, n2), (m1, count, m2), (r, n1 * count, m2), (r, n1 * count, m2)
            x_modes, g_modes, x_wide, g_wide = (x.new_empty(size) for size in sizes)
            x_flat, g_flat = x_modes.view(n1 * count, n2).expand(r, -1, -1), g_modes.view(m1, count * m2)
            x_wide_flat, g_wide_flat = x_wide.view(r * n1, count * m2), g_wide.view(r * n1, count * m2)
        x_modes.copy_(x[rows].view(count, n1, n2).transpose(0, 1))
        g_modes.copy_(g[rows].view(count, m1, m2).transpose(0, 1))
        torch.bmm(x_flat, second, out=x_wide)
        torch.mm(first, g_flat, out=g_wide_flat)
        found = [add_product(found[0], x_wide_flat, g_flat.t()), add_product(found[1], x_flat.transpose(1, 2), g_wide)]
        if dx is not None:
            for k, wide in enumerate(g_wide):
                x_flat[0].addmm_(wide, second[k].t(), beta=0 if k == 0 else 1)
            dx[rows].view(count, n1, n2).copy_(x_modes.transpose(0, 1))
        if dg is not None:
            torch.mm(first.t(), x_wide_flat, out=g_flat)
            dg[rows].view(count, m1, m2).copy_(g_modes.transpose(0, 1))
    d_first, d_second = found
    return [d_first.reshape(r, n1, m1).permute(1, 2, 0), d_second]
