"""Cores with an activation between them: no longer a matrix, but a narrow network over the modes."""

import torch

from t3nsor.cores import without_autocast


def activated_chain(x: torch.Tensor, cores, closed: bool, activation) -> torch.Tensor:
    """Multiply rows by one core after the other, from left to right, with `activation` after each but the last.

    x: (.., in_features) -> (.., out_features). The state between cores k and k + 1 has the axes
    (rows, r_0, m_1 .. m_k, r_k, n_{k+1} .. n_d), of which a step turns (r_k, n_{k+1}) into (m_{k+1}, r_{k+1}); the last
    one of a ring sums over r_0 as well.
    """
    with without_autocast(x.device):
        cores = [core.to(x.dtype) for core in cores]
        ring, n, m, right = cores[0].shape
        rows, done, rest = x.shape[:-1].numel(), 1, x.shape[-1] // n
        state = x.reshape(rows, n, rest)
        if len(cores) == 1:
            return x @ cores[0].diagonal(dim1=0, dim2=3).sum(-1)
        state = torch.matmul(cores[0].permute(0, 2, 3, 1).reshape(ring * m * right, n), state)
        for core in cores[1:]:
            done, (left, n, m, right) = done * m, core.shape
            rest //= n
            state = activation(state).reshape(rows * ring * done, left * n, rest)
            if core is cores[-1]:
                break
            state = torch.matmul(core.permute(2, 3, 0, 1).reshape(m * right, left * n), state)
        state = state.reshape(rows, ring, done, left * n).transpose(1, 2).reshape(rows * done, ring * left * n)
        last = core.permute(3, 0, 1, 2) if closed else core[..., 0]
        y = state @ last.reshape(ring * left * n, m)
    return y.reshape(*x.shape[:-1], done * m)
