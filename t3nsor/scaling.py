"""Powers of two taken out of tensors, so that sums of squares and products of norms stay in the range of their dtype.

Multiplication by a power of two is exact. All exponents are tensors of integers without dimensions and are held
constant in derivatives, which is exact too: what is computed between taking a power out and putting it back is
homogeneous. Tensors of ordinary size are left as they are.
"""

import math
from collections.abc import Sequence

import torch


def comfortable(dtype: torch.dtype) -> int:
    """The exponent of two up to which, in either direction, a product of four numbers stays in the range of `dtype`."""
    return math.frexp(torch.finfo(dtype).max)[1] // 4


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return x, in float32 if it is of half precision: decompositions and exact scaling need the range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def exponent(x: torch.Tensor) -> torch.Tensor:
    """Return the e with 2^(e-1) <= max |x| < 2^e; 0 for zeros, and where NaN or infinity leave nothing to measure."""
    return torch.frexp(x.detach().abs().amax())[1]


def times_power(x: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """Return x * 2^power in two steps, of which neither leaves the range of float32 or float64 unless x does."""
    bound = 2 * (math.frexp(torch.finfo(x.dtype).max)[1] - 1)
    power = power.clamp(-bound, bound)
    half = power.div(2, rounding_mode="floor")
    return x * torch.pow(2.0, half.to(x.dtype)) * torch.pow(2.0, (power - half).to(x.dtype))


def normalised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (x / 2^e, e) with entries of at most 1, and x itself with e = 0 where its size is comfortable."""
    e = exponent(x)
    e = torch.where(e.abs() <= comfortable(x.dtype), 0, e)
    return times_power(x, -e), e


def split_number(number: torch.Tensor | float, like: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor]:
    """Return (m, e) with number = m * 2^e and |m| from 0.5 to 1, or 0; `like` decides the device of e."""
    if isinstance(number, torch.Tensor):
        factor = wide(number if number.is_floating_point() else number.to(like.dtype))
        e = exponent(factor)
        return times_power(factor, -e), e
    mantissa, power = math.frexp(number)
    return mantissa, torch.tensor(power, device=like.device)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |found - expected| / |expected| in the Frobenius norm; 0 where both are zero."""
    small, e = normalised(wide(expected))
    size = torch.linalg.vector_norm(small)
    error = torch.linalg.vector_norm(times_power(wide(found), -e) - small)
    return (error / size).item() if size else (math.inf if error else 0.0)


def standard_deviation(x: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of the entries, in the dtype of x, of which no square leaves its range."""
    small, e = normalised(wide(x))
    return times_power(small.std(correction=0), e).to(x.dtype)


def rejoined(cores: Sequence[torch.Tensor], power: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Multiply the product of the cores by 2^power, in the last core if that is comfortable in `dtype`.

    Otherwise the size of all of them is spread evenly. cores: float32 or float64, also returned so.
    """
    peaks = [exponent(core) for core in cores]
    total = sum(peaks[1:], peaks[0]) + power
    fits = (peaks[-1] + power).abs() <= comfortable(dtype)
    share = total.div(len(cores), rounding_mode="floor")
    shares = [share] * (len(cores) - 1) + [total - share * (len(cores) - 1)]
    ordinary = [torch.zeros_like(power)] * (len(cores) - 1) + [power]
    shifts = [torch.where(fits, o, s - peak) for o, s, peak in zip(ordinary, shares, peaks, strict=True)]
    return [times_power(core, shift) for core, shift in zip(cores, shifts, strict=True)]
