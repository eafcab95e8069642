"""Mean-field theory of infinitely wide random networks: variances, and growth of curves.

z_l = phi(h_l) and h_l = W_l z_{l-1} + b_l, with W_l ~ N(0, sigma_w^2 / k), b_l ~ N(0, sigma_b^2) and k the width. As k
grows, each entry of h_l becomes N(0, q_l). Poole et al. 2016, https://arxiv.org/abs/1606.05340.
"""

import math
from collections.abc import Callable

import torch

POINTS, REACH = 100_001, 10.0  # grid on [-REACH, REACH] for expectations over N(0, 1)
TOLERANCE, MAX_STEPS = 1e-10, 2_000  # of the fixed-point iteration


def variances(phi, sigma_w: float, sigma_b: float, depth: int, q0: float = 1.0) -> list[float]:
    """Variances [q_1, .., q_depth] of the entries of h_l, for an input with mean square q0."""
    found = [sigma_w**2 * q0 + sigma_b**2]
    while len(found) < depth:
        found.append(next_variance(phi, sigma_w, sigma_b, found[-1]))
    return found


def next_variance(phi, sigma_w: float, sigma_b: float, q: float) -> float:
    """sigma_w^2 E[phi(h)^2] + sigma_b^2 with h ~ N(0, q)."""
    return sigma_w**2 * gaussian_mean(lambda h: phi(h).square(), q) + sigma_b**2


def fixed_point(phi, sigma_w: float, sigma_b: float) -> float:
    """The variance q* to which deep layers converge; 0 or inf where activations vanish or explode.

    At the edge of chaos (hard-tanh at sigma_w = 1) q falls to 0 as slowly as 1 / depth; the variance of layer MAX_STEPS
    is returned there.
    """
    q = 1.0
    for _ in range(MAX_STEPS):
        q, before = next_variance(phi, sigma_w, sigma_b, q), q
        if abs(q - before) <= TOLERANCE * q or q > 1e12:
            break
    return math.inf if q > 1e12 else 0.0 if q < 1e-12 else q


def chi(phi, sigma_w: float, q: float) -> float:
    """sigma_w^2 E[phi'(h)^2] with h ~ N(0, q), the squared factor by which a layer stretches a short curve."""
    return sigma_w**2 * gaussian_mean(lambda h: slope(phi, h).square(), q)


def growth(phi, sigma_w: float, sigma_b: float, depth: int, q0: float = 1.0) -> list[float]:
    """Expected growth sqrt(chi) of the length of a curve in each layer; q0: mean square of the points' entries."""
    return [math.sqrt(chi(phi, sigma_w, q)) for q in variances(phi, sigma_w, sigma_b, depth, q0)]


def gaussian_mean(f: Callable[[torch.Tensor], torch.Tensor], q: float) -> float:
    """E[f(h)] with h ~ N(0, q)."""
    z = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(f(z * math.sqrt(q)) * density, z).item()


def slope(phi, h: torch.Tensor) -> torch.Tensor:
    """Elementwise derivative phi'(h)."""
    with torch.enable_grad():
        h = h.detach().requires_grad_()
        return torch.autograd.grad(phi(h).sum(), h)[0]
