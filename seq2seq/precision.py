"""Which floating-point formats the CPU is fast in."""

from functools import cache
from time import perf_counter

import torch

SIZE, TIMES = 512, 5
SLOW = 1.5  # times as long as float32


@cache
def bfloat16_slowdown() -> float:
    """Return how many times as long as in float32 a product of matrices takes in bfloat16 on this CPU.

    That is below 1 where the CPU has instructions for bfloat16, and 6 and more where it has none.
    """
    return _seconds(torch.bfloat16) / _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """Return the seconds that a product takes if nothing interferes."""
    matrix, seconds = torch.ones(SIZE, SIZE, dtype=dtype), []
    for _ in range(TIMES):
        begin = perf_counter()
        matrix @ matrix
        seconds.append(perf_counter() - begin)
    return min(seconds)
