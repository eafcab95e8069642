"""Counts the verdicts of comparisons whose answer is known.

    python benchmarks/verdicts.py [--kinds equal gap] [--pairs 200] [--first 0] [--threads 1]

equal: both families hold the same functions, all matrices between the layers, but differ at random in parametrisation,
optimiser or training routine, learning rate (fixed or automatic), epochs and bound of the gradient. A winner is wrong.
gap: linear families of neighbouring ranks whose optima differ by 0.05 of the target's variance, by construction of
the targets' singular values; automatic learning rate, and 20 epochs as shipped. The higher rank is right.
Prints every wrong verdict, and the counts; "refused" are comparisons of which all fits diverged. Pair k is the same on
every run.
"""

import argparse
import collections
import functools
import math
import random
import sys
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]  # the package before this file

import torch  # noqa: E402
from arguments import Parser, whole  # noqa: E402
from torch import nn  # noqa: E402

from expressivity import ArchitecturalSpace, ArchitectureComparator, ExpressivityError  # noqa: E402
from expressivity.networks import DeepNetwork  # noqa: E402
from expressivity.networks.layers import StructuredLinear  # noqa: E402

WIDTH, GAP = 4, 0.05


class Scaled(StructuredLinear):
    """W in other units, for which other learning rates are right."""

    def __init__(self, width: int, gain: float, factor: float, bias: bool = True):
        super().__init__(width, bias)
        self.factor, self.weight = factor, nn.Parameter(torch.randn(width, width) * gain / math.sqrt(width) / factor)

    def matrix(self) -> torch.Tensor:
        return self.factor * self.weight


class NearIdentity(StructuredLinear):
    """W that starts near the identity, so that its own members are near each other."""

    def __init__(self, width: int, gain: float, spread: float, bias: bool = True):
        super().__init__(width, bias)
        self.weight = nn.Parameter(torch.randn(width, width) * spread / math.sqrt(width))

    def matrix(self) -> torch.Tensor:
        return torch.eye(self.width) + self.weight


class BadlyScaled(StructuredLinear):
    """D W or, rotated, Q D Q' W with a D between 1 and 1/1000: gradients hardly see a part of W."""

    def __init__(self, width: int, gain: float, rotated: bool, bias: bool = True):
        super().__init__(width, bias)
        turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(width)))[0]
        scales = torch.diag(torch.logspace(0, -3, width))
        self.register_buffer("units", turn @ scales @ turn.T if rotated else scales)
        self.weight = nn.Parameter(torch.randn(width, width) * gain / math.sqrt(width))

    def matrix(self) -> torch.Tensor:
        return self.units @ self.weight


class ThreeFactors(StructuredLinear):
    """W as a product of three matrices."""

    def __init__(self, width: int, gain: float, bias: bool = True):
        super().__init__(width, bias)
        self.factors = nn.ParameterList(torch.randn(width, width) / math.sqrt(width) for _ in range(3))

    def matrix(self) -> torch.Tensor:
        first, second, third = self.factors
        return first @ second @ third


class WithSpectrum(nn.Module):
    """x W, where rank + 1 instead of rank explains GAP more of the variance of the output."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        left, right = (torch.linalg.qr(torch.randn(width, width))[0] for _ in range(2))
        after = GAP * torch.rand(width - rank - 1)
        before = GAP + (1 - GAP * (rank + 1) - after.sum()) * torch.randn(rank).softmax(0)
        shares = torch.cat([before, torch.tensor([GAP]), after])
        self.weight = nn.Parameter(left @ torch.diag(shares.sqrt()) @ right)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, width) -> (rows, width)."""
        return x @ self.weight


class Residual(StructuredLinear):
    """I + factor * W: all matrices, but a small factor keeps what it learns, and its own members, near the identity."""

    def __init__(self, width: int, gain: float, factor: float, bias: bool = True):
        super().__init__(width, bias)
        self.factor, self.weight = factor, nn.Parameter(torch.randn(width, width) * gain / math.sqrt(width))

    def matrix(self) -> torch.Tensor:
        return torch.eye(self.width) + self.factor * self.weight


LAYERS = [
    ("full", {}),
    ("n_diagonal", {"diagonals": 2 * WIDTH - 1}),
    ("low_rank", {"rank": WIDTH}),
    ("tt", {"d": 2, "rank": WIDTH}),
    (Scaled, {"factor": 0.1}),
    (Scaled, {"factor": 10.0}),
    (NearIdentity, {"spread": 0.01}),
    (NearIdentity, {"spread": 0.3}),
    (Residual, {"factor": 0.1}),
    (Residual, {"factor": 0.01}),
    (BadlyScaled, {"rotated": False}),
    (BadlyScaled, {"rotated": True}),
    (ThreeFactors, {}),
]
OPTIMIZERS = [
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.SGD,
    functools.partial(torch.optim.SGD, momentum=0.9),
    torch.optim.RMSprop,
]


def descend(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Gradient descent on all rows, as a training routine of one's own."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()
    return network


def any_family(draw: random.Random, depth: int) -> ArchitecturalSpace:
    """All networks of this depth and WIDTH, in a random parametrisation and with a random recipe."""
    layer, options = draw.choice(LAYERS)
    parameters = {"width": WIDTH, "depth": depth, "layer": layer, "activation": "tanh", **options}
    own = draw.random() < 0.05
    return ArchitecturalSpace(
        WIDTH,
        layer if isinstance(layer, str) else layer.__name__,
        DeepNetwork,
        parameters,
        train=descend if own else None,
        lr=0.01 if own else draw.choice(["auto", 0.001, 0.01, 0.1]),
        epoch=draw.choice([2, 5, 10, 20]),
        grad_clamp=draw.choice([1.0, None, 0.1]),
        mini_batch_size=draw.choice([16, 32]),
        optimizer=draw.choice(OPTIMIZERS),
        batch_size=128,
        measure=1,
    )


def equal(number: int) -> tuple[str, list[str]]:
    """What would be right, and the verdicts for both statistics."""
    draw = random.Random(number)
    depth = draw.choice([1, 1, 2])
    a, b = any_family(draw, depth), any_family(draw, depth)
    parameters = {"width": WIDTH, "depth": depth, "activation": "tanh"}
    base = ArchitecturalSpace(WIDTH, "base", DeepNetwork, parameters, batch_size=draw.choice([64, 256]))
    comparator = ArchitectureComparator(a, b, None if draw.random() < 0.25 else base)
    return "none", verdicts(comparator.compare(48, 2, evaluation_rows=256, seed=number, progress=False))


def gap(number: int) -> tuple[str, list[str]]:
    """What would be right, and the verdicts for both statistics."""
    draw = random.Random(number)
    width = draw.choice([6, 8])
    rank = draw.randint(1, width - 2)
    spaces = [
        ArchitecturalSpace(
            width,
            f"rank {each}",
            DeepNetwork,
            {"width": width, "depth": 1, "layer": "low_rank", "rank": each, "bias": False},
            lr="auto",
            epoch=20,
            measure=1,
        )
        for each in (rank, rank + 1)
    ]
    right = draw.choice("AB")
    base = ArchitecturalSpace(width, "base", WithSpectrum, {"width": width, "rank": rank}, batch_size=512)
    comparator = ArchitectureComparator(*(spaces if right == "B" else spaces[::-1]), base)
    return right, verdicts(comparator.compare(64, 3, seed=number, progress=False))


def verdicts(result) -> list[str]:
    return [result.estimates(statistic)[0].winner for statistic in ("min", "mean")]


KINDS = {"equal": equal, "gap": gap}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Count verdicts of comparisons with a known answer.", allow_abbrev=False)
    add = parser.add_argument
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of pairs")
    add("--pairs", type=whole, default=200, help="pairs of each kind")
    add("--first", type=int, default=0, help="number of the first pair")
    add("--threads", type=whole, default=1, help="number of torch threads")
    return parser.parse_args(arguments)


def count(kind: str, numbers: range) -> None:
    found, start = collections.Counter(), time.perf_counter()
    for number in numbers:
        try:
            right, given = KINDS[kind](number)
        except ExpressivityError:  # all fits of a family diverged
            right, given = "none", ["refused"] * 2
        for verdict in given:
            meaning = verdict if verdict not in "AB" else "right" if verdict == right else "wrong"
            found[meaning] += 1
            if meaning == "wrong":
                print(f"{kind} {number}: {verdict} wins, right is {right}", flush=True)
    total, seconds = sum(found.values()), time.perf_counter() - start
    shown = ", ".join(f"{name} {number} ({number / total:.1%})" for name, number in sorted(found.items()))
    print(f"{kind}: {len(numbers)} pairs, 2 statistics: {shown}; {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    args = parse(sys.argv[1:])
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    for each in args.kinds:
        count(each, range(args.first, args.first + args.pairs))
