"""Measures of a network that need no optimiser, by the names that a configuration file gives under `measures`."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.effective_rank import tangent_kernel_rank
from expressivity.errors import ExpressivityError
from expressivity.networks import DeepNetwork, TensorTrainScore
from expressivity.proven_ranks import plain_train_ranks
from expressivity.randomness import seed_of, seeded
from expressivity.separation_rank import separation_rank
from expressivity.spaces import ArchitecturalSpace
from expressivity.targets import in_dtype_of, outputs, sampled
from expressivity.trajectory import circle, trajectory
from t3nsor import TTLinear
from t3nsor.shapes import auto_shape

POINTS = 1000  # on the circle
KERNEL_OUTPUTS = 32, 1024  # the most rows for the tangent kernel, and the most rows * outputs, the size of the kernel
GRID = 4096  # the most inputs of a grid tensor


@dataclass(frozen=True)
class Probe:
    """The inputs on which one network of each family is measured.

    rows: inputs drawn from the law of the comparison, (rows, *input_size).
    curve: a circle in a random plane, (points + 1, *input_size).
    templates: one (M_k, n_k) for each position, or the reason why there are none.
    join: how they make an input, see `separation_rank`.
    """

    rows: torch.Tensor
    curve: torch.Tensor
    templates: list[torch.Tensor] | str
    join: str

    @property
    def largest_rank(self) -> int | None:
        """The rank that a matricised grid tensor over these templates can have."""
        if isinstance(self.templates, str):
            return None
        numbers = [len(each) for each in self.templates]
        half = len(numbers) // 2
        return min(math.prod(numbers[:half]), math.prod(numbers[half:]))


def make_probe(space: ArchitecturalSpace, index: int, law, modes: list[int], key: tuple) -> Probe:
    """Draw the inputs for networks of this input size from the seed `key`.

    modes: how a vector is split into positions, if inputs are vectors; see `modes_of`.
    """
    size = space.input_size
    with seeded("probe", *key):
        rows = sampled(law, KERNEL_OUTPUTS[0], space, index)
        numbers = _numbers_of_templates(size, modes)
        if isinstance(numbers, str):
            templates = numbers
        elif len(size) == 1:
            templates = [torch.randn(m, n, dtype=torch.float64) for m, n in zip(numbers, modes, strict=True)]
        else:
            templates = [torch.randn(m, size[1], dtype=torch.float64) for m in numbers]
    # A single input has no circle, and the measures that need one say so.
    curve = circle(POINTS, max(2, math.prod(size)), seed=seed_of("circle", *key))[:, : math.prod(size)]
    return Probe(rows, curve.reshape(-1, *size), templates, "outer" if len(size) == 1 else "stacked")


def modes_of(networks: list[nn.Module], size: tuple[int, ...]) -> list[int]:
    """The positions (n_1, .., n_N) that an input vector is the outer product of: those of the first tensor-train layer.

    Without such a layer, the most equal two factors. A factor of 1 is no position.
    """
    layers = (module for network in networks for module in network.modules() if isinstance(module, TTLinear))
    shapes = (layer.weight.raw_shape[0] for layer in layers)
    found = next((shape for shape in shapes if math.prod(shape) == size[0]), None) or auto_shape(size[0], 2)
    return [n for n in found if n > 1]


def _numbers_of_templates(size: tuple[int, ...], modes: list[int]) -> list[int] | str:
    """M_k for each position: 2 n_k, more than span, so that what is not linear shows; fewer for a large grid."""
    if len(size) > 2 or (len(size) == 2 and size[0] < 2):
        return f"input_size is {list(size)}; it must be one number, or at least 2 positions and their size"
    if len(size) == 2:
        each = min(2 * size[1], int(GRID ** (1 / size[0]) + 1e-9))
        return [each] * size[0] if each > 1 else f"2^{size[0]} inputs are more than {GRID}"
    if len(modes) < 2:
        return f"input_size {size[0]} is not a product of two numbers above 1"
    fitting = (m for m in ([2 * n for n in modes], modes) if math.prod(m) <= GRID)
    return next(fitting, f"the grid of {' * '.join(map(str, modes))} inputs has more than {GRID}")


def measured_separation_rank(space: ArchitecturalSpace, index: int, network: nn.Module, probe: Probe) -> float:
    """Rank of the first half of the positions against the second, over a grid of random templates."""
    if isinstance(probe.templates, str):
        raise ExpressivityError(probe.templates)
    return float(separation_rank(network, probe.templates, join=probe.join).rank)


def measured_trajectory_length(space: ArchitecturalSpace, index: int, network: nn.Module, probe: Probe) -> float:
    """Length of the image of the circle in the outputs, relative to that of the circle."""
    if math.prod(space.input_size) < 2:
        raise ExpressivityError("input_size is 1; a circle needs 2 dimensions")
    curve = in_dtype_of(network, probe.curve).clone()  # the network may modify it in place
    return trajectory(nn.Sequential(network), curve, ["0"])[0].growth


def measured_activation_patterns(space: ArchitecturalSpace, index: int, network: nn.Module, probe: Probe) -> float:
    """Number of distinct patterns along the circle of the signs that all activations of the network receive."""
    if math.prod(space.input_size) < 2:
        raise ExpressivityError("input_size is 1; a circle needs 2 dimensions")
    points, signs = len(probe.curve), []

    def keep(module, inputs):
        if inputs[0].numel() % points:
            raise ExpressivityError(f"the inputs of {type(module).__name__} do not have one row per point")
        signs.append((inputs[0] > 0).reshape(points, -1))

    hooks = [m.register_forward_pre_hook(keep) for m in network.modules() if isinstance(m, ACTIVATIONS)]
    try:
        outputs(space, index, network, probe.curve)
    finally:
        for hook in hooks:
            hook.remove()
    if not signs:
        raise ExpressivityError("the network calls no activation of torch.nn")
    return float(len(torch.cat(signs, dim=1).unique(dim=0)))


def measured_tangent_kernel_rank(space: ArchitecturalSpace, index: int, network: nn.Module, probe: Probe) -> float:
    """Effective rank of the tangent kernel on random inputs."""
    width = outputs(space, index, network, probe.rows[:1]).numel()
    rows = probe.rows[: max(1, KERNEL_OUTPUTS[1] // width)]
    try:
        return tangent_kernel_rank(network.eval(), in_dtype_of(network, rows).clone())
    except ExpressivityError:
        raise
    except Exception as error:  # a user's module may raise anything under vmap
        raise ExpressivityError(f"its Jacobian cannot be computed: {type_and_line(error)}") from error


Measure = Callable[[ArchitecturalSpace, int, nn.Module, Probe], float]
MEASURES: dict[str, Measure] = {
    "separation_rank": measured_separation_rank,
    "trajectory_length": measured_trajectory_length,
    "activation_patterns": measured_activation_patterns,
    "tangent_kernel_rank": measured_tangent_kernel_rank,
}
NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
ACTIVATIONS = tuple(
    each
    for each in vars(nn.modules.activation).values()
    if inspect.isclass(each) and issubclass(each, nn.Module) and each is not nn.Module and each not in NOT_ELEMENTWISE
)


def check_measures(names: list[str] | None) -> None:
    """Raise ExpressivityError unless these are different names of measures, or None."""
    if names is not None and not names:
        raise ExpressivityError(f"measures is []; it must be null or name some of {', '.join(MEASURES)}")
    for name in names or []:
        if name not in MEASURES:
            near = get_close_matches(name, MEASURES, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ExpressivityError(f"measures contains {name!r}; {hint}allowed: {', '.join(MEASURES)}")
    if len(set(names or [])) < len(names or []):
        repeated = next(first for first, second in pairwise(sorted(names)) if first == second)
        raise ExpressivityError(f"measures contains {repeated!r} twice")


def proven_separation_rank(network: nn.Module, probe: Probe) -> int | None:
    """The bound that is proven for the separation rank of a network; None if it is not a single plain train."""
    if isinstance(probe.templates, str):
        return None
    if isinstance(network, DeepNetwork) and len(network.layers) == 1:
        network = getattr(network.layers[0], "layer", network)
    biased = False
    if isinstance(network, TensorTrainScore) and network.activation is None and network.product == "multiply":
        modes = [core.shape[1] for core in network.cores]
        ranks = [core.shape[2] for core in network.cores[:-1]]
    elif isinstance(network, TTLinear) and network.cores_nonlinearity is None and not (network.ring or network.padded):
        modes, ranks, biased = network.weight.raw_shape[0], network.weight.inner_ranks, network.bias is not None
    else:
        return None
    if list(modes) != [each.shape[1] for each in probe.templates]:
        return None
    sizes = [min(len(each), n) for each, n in zip(probe.templates, modes, strict=True)]
    # A bias adds the same number to all values: a term of rank 1.
    return min(plain_train_ranks(sizes, ranks).at_most + biased, probe.largest_rank)
