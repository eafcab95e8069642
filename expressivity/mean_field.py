"""What mean-field theory says of infinitely wide random networks: variances, and how fast curves grow.

z_l = phi(h_l), h_l = W_l z_{l-1} + b_l, W_l of N(0, sigma_w^2 / k), b_l of N(0, sigma_b^2), k the width. As k grows,
each entry of h_l becomes N(0, q_l). Poole et al. 2016, https://arxiv.org/abs/1606.05340.
"""

import math
from collections.abc import Callable

import torch

POINTS, REACH = 100_001, 10.0  # of the grid for expectations over N(0, 1)
SETTLED, MOST_STEPS = 1e-10, 2_000


def variances(phi, sigma_w: float, sigma_b: float, depth: int, q0: float = 1.0) -> list[float]:
    """[q_1, .., q_depth]: variances of the entries of h_l for an input whose entries have the mean square q0."""
    found = [sigma_w**2 * q0 + sigma_b**2]
    while len(found) < depth:
        found.append(next_variance(phi, sigma_w, sigma_b, found[-1]))
    return found


def next_variance(phi, sigma_w: float, sigma_b: float, q: float) -> float:
    """sigma_w^2 E[phi(h)^2] + sigma_b^2, h of N(0, q)."""
    return sigma_w**2 * gaussian_mean(lambda h: phi(h).square(), q) + sigma_b**2


def fixed_point(phi, sigma_w: float, sigma_b: float) -> float:
    """q*, the variance at which deep layers settle; 0 or inf where they vanish or explode.

    At the edge of chaos (hard-tanh at sigma_w = 1) it falls to 0 as 1 / depth: then that of layer MOST_STEPS.
    """
    q = 1.0
    for _ in range(MOST_STEPS):
        q, before = next_variance(phi, sigma_w, sigma_b, q), q
        if abs(q - before) <= SETTLED * q or q > 1e12:
            break
    return math.inf if q > 1e12 else 0.0 if q < 1e-12 else q


def chi(phi, sigma_w: float, q: float) -> float:
    """sigma_w^2 E[phi'(h)^2], h of N(0, q): the squared factor by which a short piece of a curve grows in a layer."""
    return sigma_w**2 * gaussian_mean(lambda h: slope(phi, h).square(), q)


def growth(phi, sigma_w: float, sigma_b: float, depth: int, q0: float = 1.0) -> list[float]:
    """By layer the expected factor sqrt(chi) of the length of a curve, whose points have the mean square q0."""
    return [math.sqrt(chi(phi, sigma_w, q)) for q in variances(phi, sigma_w, sigma_b, depth, q0)]


def gaussian_mean(f: Callable[[torch.Tensor], torch.Tensor], q: float) -> float:
    """E[f(h)], h of N(0, q)."""
    z = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(f(z * math.sqrt(q)) * density, z).item()


def slope(phi, h: torch.Tensor) -> torch.Tensor:
    """phi'(h) entry by entry."""
    with torch.enable_grad():
        h = h.detach().requires_grad_()
        return torch.autograd.grad(phi(h).sum(), h)[0]
