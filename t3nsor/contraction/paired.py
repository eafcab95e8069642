"""The backward pass of a two-factor form by large GEMMs only.

Rows stand between the modes, x as (n1, rows, n2) and g as (m1, rows, m2), so that no product is done row by row: copies
of x and g pay for it.
"""

from dataclasses import dataclass

import torch

from t3nsor.contraction.gemm import add_product, blocks


@dataclass(frozen=True)
class Pair:
    """y[(j1 j2)] = sum over r, i1, i2 of x[(i1 i2)] first[i1, j1, r] second[r, i2, j2].

    first: (n1, m1, r). second: (r, n2, m2). Both of the dtype of the rows. block: rows at a time.
    exchanged: expand g over the second factor and x over the first, instead of x over the second and g over the
    first. The sums are symmetric in x and g, so this is the same function of factors that are exchanged too.
    """

    first: torch.Tensor
    second: torch.Tensor
    block: int
    exchanged: bool

    def backward(self, x, g, dx: torch.Tensor | None, accumulate: bool) -> list[torch.Tensor]:
        """The gradients of the two factors from that of y, g (rows, out).

        dx: (rows, in), overwritten or added to; None: not wanted.
        """
        if not self.exchanged:
            return _Run(x, g, self.first, self.second, self.block).run(dx, None, accumulate)
        run = _Run(g, x, self.first.transpose(0, 1), self.second.transpose(1, 2), self.block)
        return [gradient.transpose(k, k + 1) for k, gradient in enumerate(run.run(None, dx, accumulate))]


class _Run:
    """One pass over the rows. x expands over the second factor, g over the first."""

    def __init__(self, x, g, first, second, block: int):
        self.x, self.g, self.block = x, g, block
        self.n1, self.m1, self.r = first.shape
        _, self.n2, self.m2 = second.shape
        self.first = first.permute(2, 0, 1).reshape(self.r * self.n1, self.m1)
        self.second = second.contiguous()

    def run(self, dx, dg, accumulate: bool) -> list[torch.Tensor]:
        """The gradients of the first factor (n1, m1, r) and the second (r, n2, m2); put or add that of x or of g."""
        m1, n1, m2, n2, r = self.m1, self.n1, self.m2, self.n2, self.r
        of_first = of_second = x_modes = None
        for rows in blocks(len(self.x), self.block):
            count = rows.stop - rows.start
            if x_modes is None or x_modes.shape[1] != count:
                x_modes, g_modes, x_wide, g_wide = self._memory(count)
                x_flat, g_flat = x_modes.view(n1 * count, n2).expand(r, -1, -1), g_modes.view(m1, count * m2)
                x_wide_flat, g_wide_flat = x_wide.view(r * n1, count * m2), g_wide.view(r * n1, count * m2)
            x_modes.copy_(self.x[rows].view(count, n1, n2).transpose(0, 1))
            g_modes.copy_(self.g[rows].view(count, m1, m2).transpose(0, 1))
            torch.bmm(x_flat, self.second, out=x_wide)
            torch.mm(self.first, g_flat, out=g_wide_flat)
            of_first = add_product(of_first, x_wide_flat, g_flat.t())
            of_second = add_product(of_second, x_flat.transpose(1, 2), g_wide)
            if dx is not None:
                for k, wide in enumerate(g_wide):
                    x_flat[0].addmm_(wide, self.second[k].t(), beta=0 if k == 0 else 1)
                _put(dx[rows].view(count, n1, n2), x_modes, accumulate)
            if dg is not None:
                torch.mm(self.first.t(), x_wide_flat, out=g_flat)
                _put(dg[rows].view(count, m1, m2), g_modes, accumulate)
        return [of_first.reshape(r, n1, m1).permute(1, 2, 0), of_second]

    def _memory(self, count: int):
        """x and g with their rows between the modes, and what they expand to, for `count` rows."""
        wide = (self.r, self.n1 * count, self.m2)
        sizes = ((self.n1, count, self.n2), (self.m1, count, self.m2), wide, wide)
        return [self.x.new_empty(size) for size in sizes]


def _put(out, between, accumulate: bool) -> None:
    """Rows to the front again."""
    by_rows = between.transpose(0, 1)
    out.add_(by_rows) if accumulate else out.copy_(by_rows)
