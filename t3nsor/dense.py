"""Rows times W = weight + dW, dW from its cores, built for a few output columns at a time and never kept.

dW is held as two factors, dW[(i1 i2), (j1 j2)] = sum_r first[j1, i1, r] second[r, j2, i2], and built as rows of the
(out, in) layout of nn.Linear, so that a frozen weight is added in the same pass.
"""

from dataclasses import dataclass

import torch

from t3nsor.contraction import add_product, blocks

BATCHED_BUILD = 4  # up to this rank, small matrix products with the weight added beat one product and a permuting copy


@dataclass(frozen=True)
class Dense:
    """The two factors, the frozen weight beside them and how much of W is built at a time.

    first: (m1, n1, r). second: (r, m2, n2); for rows of half precision in float32, so that W is rounded once.
    weight: (m1 * m2, n1 * n2), or None for dW alone. block: how many of m1.
    """

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor | None
    block: int

    def forward(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """y (rows, out) = x (rows, in) W^T + bias."""
        for columns, w in self._pieces(x.dtype):
            if bias is None:
                torch.mm(x, w.t(), out=y[:, columns])
            else:
                torch.addmm(bias[columns], x, w.t(), out=y[:, columns])

    def pull(self, g: torch.Tensor, dx: torch.Tensor) -> None:
        """dx (rows, in) = g (rows, out) W."""
        for k, (columns, w) in enumerate(self._pieces(g.dtype)):
            dx.addmm_(g[:, columns], w, beta=0 if k == 0 else 1)

    def gradients(self, x, g, d_first: torch.Tensor, d_second: torch.Tensor) -> None:
        """Add to d_first and d_second, shaped as the factors, what the dense gradient g^T x contracts to."""
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        first, second = self.first, self.second.reshape(r, m2 * n2)
        for start in range(0, m1, self.block):
            size = min(self.block, m1 - start)
            dw = torch.mm(g[:, start * m2 : (start + size) * m2].t(), x)
            dw = dw.view(size, m2, n1, n2).transpose(1, 2).to(d_first.dtype).reshape(size * n1, m2 * n2)
            d_first[start : start + size] += torch.mm(second, dw.t()).t().view(size, n1, r)
            d_second.view(r, m2 * n2).addmm_(first[start : start + size].reshape(size * n1, r).t(), dw)

    def exchanged(self) -> "Dense":
        """The two factors with the roles of input and output exchanged."""
        return Dense(self.first.transpose(0, 1), self.second.transpose(1, 2), None, self.block)

    def paired_gradients(self, x, g, d_first: torch.Tensor, d_second: torch.Tensor, block: int) -> None:
        """The same sums as `gradients` without a dense gradient, for `block` rows at a time.

        Rows stand between the modes, (n1, rows, n2) and (m1, rows, m2), so that every product is a large one.
        """
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        sizes = (n1 * n2, m1 * m2, r * n1 * m2, r * n1 * m2)
        memory = [x.new_empty(min(block, x.shape[0]) * size) for size in sizes]
        first = self.first.to(x.dtype).permute(2, 1, 0).reshape(r * n1, m1)
        second = self.second.to(x.dtype).transpose(1, 2).contiguous()
        sum_first, sum_second = d_first.new_zeros(r * n1, m1), d_second.new_zeros(r, n2, m2)
        for rows in blocks(x.shape[0], block):
            count = rows.stop - rows.start
            x_modes, g_modes, x_wide, g_wide = (m[: count * size] for m, size in zip(memory, sizes, strict=True))
            x_modes.view(n1, count, n2).copy_(x[rows].view(count, n1, n2).transpose(0, 1))
            g_modes.view(m1, count, m2).copy_(g[rows].view(count, m1, m2).transpose(0, 1))
            x_flat, g_flat = x_modes.view(-1, n2).expand(r, -1, -1), g_modes.view(m1, -1)
            torch.bmm(x_flat, second, out=x_wide.view(r, -1, m2))
            torch.mm(first, g_flat, out=g_wide.view(r * n1, -1))
            add_product(sum_first, x_wide.view(r * n1, -1), g_flat.t())
            add_product(sum_second, x_flat.transpose(1, 2), g_wide.view(r, -1, m2))
        d_first += sum_first.view(r, n1, m1).permute(2, 1, 0)
        d_second += sum_second.transpose(1, 2)

    def _pieces(self, dtype: torch.dtype):
        """(slice of columns, their rows of W), in one reused piece of memory."""
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        size = min(self.block, m1)
        memory = self.first.new_empty(size * m2, n1, n2, dtype=dtype)
        batched = r <= BATCHED_BUILD and self.first.dtype == dtype
        if batched:
            right = self.second.transpose(0, 1).expand(size, m2, r, n2).reshape(-1, r, n2)
        else:
            right = self.second.reshape(r, m2 * n2)
        for start in range(0, m1, size):
            first = self.first[start : start + size]
            columns = slice(start * m2, (start + len(first)) * m2)
            w = memory[: len(first) * m2]
            base = None if self.weight is None else self.weight[columns].view(w.shape)
            if batched:
                left = first[:, None].expand(-1, m2, -1, -1).reshape(-1, n1, r)
                _product(base, left, right[: len(left)], w)
            else:
                dw = torch.mm(first.reshape(-1, r), right).view(-1, n1, m2, n2).transpose(1, 2)
                by_factor = w.view(dw.shape)
                by_factor.copy_(dw) if base is None else torch.add(base.view(dw.shape), dw, out=by_factor)
            yield columns, w.view(-1, n1 * n2)


def _product(base, left, right, out):
    return torch.bmm(left, right, out=out) if base is None else torch.baddbmm(base, left, right, out=out)
