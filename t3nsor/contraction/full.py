"""Rows times a full matrix, dW built from its cores or weight^T + dW, which is never kept.

dW is given as two factors, dW[(i1 i2), (j1 j2)] = sum_r first[i1, j1, r] second[r, i2, j2].
"""

from collections.abc import Iterator, Sequence

import torch

from t3nsor.contraction.gemm import add_product, blocks


class FullMatrix:
    """weight^T + dW, or dW alone, built a few output columns at a time, as rows of nn.Linear's (out, in) layout.

    factors: (n1, m1, r) and (r, n2, m2), of the dtype of the rows.
    weight: (m1 * m2, n1 * n2), or None.
    modes_per_block: how many of the m1 output modes are built at a time.
    """

    def __init__(self, factors: Sequence[torch.Tensor], weight: torch.Tensor | None, modes_per_block: int) -> None:
        first, second = factors
        (self.n1, self.m1, self.r), (_, self.n2, self.m2) = first.shape, second.shape
        # A CPU copies runs of n2 numbers faster than single ones; elsewhere it is calls that count.
        self.turned = first.device.type in ("cpu", "meta")
        if self.turned:
            first, second = first.transpose(0, 1).contiguous(), second.transpose(1, 2).contiguous()
        self.first, self.second = first, second.reshape(self.r, -1)
        self.weight, self.modes_per_block = weight, modes_per_block

    def forward(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Set y (rows, out) = x (rows, in) W + bias."""
        for columns, w in self._blocks():
            if bias is None:
                torch.mm(x, w.t(), out=y[:, columns])
            else:
                torch.addmm(bias[columns], x, w.t(), out=y[:, columns])

    def input_gradient(self, g: torch.Tensor, dx: torch.Tensor) -> None:
        """Set dx (rows, in) = g (rows, out) W^T."""
        for k, (columns, w) in enumerate(self._blocks()):
            dx.addmm_(g[:, columns], w, beta=0 if k == 0 else 1)

    def factor_gradients(self, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        """The gradients of the two factors, from that of the matrix, g^T x."""
        d_first: list[torch.Tensor] = []
        d_second: torch.Tensor | None = None
        for modes in blocks(self.m1, self.modes_per_block):
            dw = torch.mm(g[:, modes.start * self.m2 : modes.stop * self.m2].t(), x)
            dw = dw.view(-1, self.m2, self.n1, self.n2)
            dw = (dw.transpose(1, 2) if self.turned else dw.permute(2, 0, 3, 1)).reshape(-1, self.second.shape[1])
            d_first.append(dw @ self.second.t())  # narrow, but over so few terms faster than its transpose
            d_second = add_product(d_second, self._first(modes).t(), dw)
        assert d_second is not None  # there is at least one block
        if self.turned:
            d_second = d_second.view(self.r, self.m2, self.n2).transpose(1, 2)
            return [torch.cat(d_first).view(self.m1, self.n1, self.r).transpose(0, 1), d_second]
        parts = [part.view(self.n1, -1, self.r) for part in d_first]
        return [parts[0] if len(parts) == 1 else torch.cat(parts, 1), d_second.view(self.r, self.n2, self.m2)]

    def _first(self, modes: slice) -> torch.Tensor:
        """The first factor of these output modes, (.., r)."""
        return (self.first[modes] if self.turned else self.first[:, modes]).reshape(-1, self.r)

    def _blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (slice of columns, their rows of W); the memory of one W may serve for the next."""
        batched = None
        # Small products that add the weight, or one product and a copy that permutes runs of n2 numbers.
        if self.turned and self.r <= min(8, self.n2 // 2):
            second = self.second.view(self.r, self.m2, self.n2).transpose(0, 1)
            size = min(self.modes_per_block, self.m1)
            batched = second.expand(size, *second.shape).reshape(-1, self.r, self.n2)
        out: torch.Tensor | None = None
        for modes in blocks(self.m1, self.modes_per_block):
            columns = slice(modes.start * self.m2, modes.stop * self.m2)
            base = None if self.weight is None else self.weight[columns]
            if batched is None:
                out = self._permuted_product(base, modes, out)
            else:
                out = self._batched_product(base, modes, batched, out)
            yield columns, out.view(-1, self.n1 * self.n2)

    def _batched_product(
        self, base: torch.Tensor | None, modes: slice, second: torch.Tensor, out: torch.Tensor | None
    ) -> torch.Tensor:
        """base + dW for output modes, one product (n1, r) @ (r, n2) for each pair of them, in the memory of `out`."""
        first = self.first[modes]
        pairs = len(first) * self.m2
        left = first[:, None].expand(-1, self.m2, -1, -1).reshape(pairs, self.n1, self.r)
        out = left.new_empty(pairs, self.n1, self.n2) if out is None else out[:pairs]
        if base is None:
            return torch.bmm(left, second[:pairs], out=out)
        base = base.view(out.shape)
        if base.dtype == out.dtype:
            return torch.baddbmm(base, left, second[:pairs], out=out)
        return torch.bmm(left, second[:pairs], out=out).add_(base)

    def _permuted_product(self, base: torch.Tensor | None, modes: slice, out: torch.Tensor | None) -> torch.Tensor:
        """base + dW for output modes, one product whose modes are permuted, in the memory of `out`."""
        dw = torch.mm(self._first(modes), self.second)
        if self.turned:
            dw = dw.view(-1, self.n1, self.m2, self.n2).transpose(1, 2)
        else:
            dw = dw.view(self.n1, -1, self.n2, self.m2).permute(1, 3, 0, 2)
        out = torch.empty(dw.shape, dtype=dw.dtype, device=dw.device) if out is None else out[: len(dw)]
        if base is None:
            return out.copy_(dw)
        base = base.view(dw.shape)
        if out.dtype.itemsize == 2:  # a strided sum in half precision takes longer than a copy and a plain sum
            return out.copy_(dw).add_(base)
        return torch.add(base, dw, out=out)
