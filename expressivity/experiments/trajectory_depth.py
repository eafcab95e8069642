"""Growth of the length of a curve with depth in random networks, compared with mean-field theory."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from common.files import write_file, write_json
from common.keys import key
from common.tables import csv_text
from expressivity import mean_field
from expressivity.errors import COUNT, NOT_NEGATIVE, POSITIVE, SEED, SEVERAL, ExpressivityError, each_is
from expressivity.networks.activations import ACTIVATIONS, activation
from expressivity.networks.deep import GaussianNetwork
from expressivity.randomness import seeded
from expressivity.trajectory import LayerTrajectory, circle, mean_growth, trajectory


@dataclass(frozen=True)
class Growth:
    """Averages over random networks of one kind; lists have one item per layer.

    activation: name of the activation.
    weight_variance: sigma_w^2.
    growth: factor per layer by which the length grows from layer `first` to layer `last`.
    standard_error: standard error of `growth`.
    predicted: geometric mean of sqrt(chi) over the same layers, at the variances that theory predicts for them.
    lengths: length of the curve's image.
    predicted_lengths: the same by mean-field theory.
    transitions: number of sign changes along the curve, summed over the entries of the layer.
    patterns: number of distinct sign patterns of the layer along the curve.
    """

    activation: str
    weight_variance: float
    growth: float
    standard_error: float
    predicted: float
    lengths: list[float]
    predicted_lengths: list[float]
    transitions: list[float]
    patterns: list[float]


@dataclass
class TrajectoryExperiment:
    """Measure length, sign transitions and activation patterns of a circle's image, layer by layer."""

    width: int = key(256, "Width of the networks.")
    depth: int = key(8, "Number of layers.")
    activations: list[str] | None = key(None, "Names of activations; null: hard_tanh and relu.")
    weight_variances: list[float] | None = key(
        None, "Values of sigma_w^2; weights are drawn from N(0, sigma_w^2 / width); null: 1, 2, 4, 16."
    )
    bias_variance: float = key(0.0, "sigma_b^2; biases are drawn from N(0, sigma_b^2).")
    points: int = key(16000, "Number of points on the curve, a circle of radius sqrt(width).")
    networks: int = key(32, "Number of random networks of each kind.")
    first: int = key(2, "First layer of the range over which the growth is measured, counted from 1.")
    last: int = key(6, "Last layer of that range.")
    seed: int = key(0, "Seed of all random draws.")

    trust_modules = False  # no key names a module
    incidental = ()
    files = ("trajectory.json", "results.csv", "lengths.png")

    def __post_init__(self):
        self.activations = ["hard_tanh", "relu"] if self.activations is None else self.activations
        self.weight_variances = [1.0, 2.0, 4.0, 16.0] if self.weight_variances is None else self.weight_variances
        for name in ("depth", "networks", "first", "last"):
            each_is([getattr(self, name)], COUNT, name)
        for name in ("width", "points"):
            each_is([getattr(self, name)], SEVERAL, name)
        each_is(self.weight_variances, POSITIVE, "weight_variances")
        each_is([self.bias_variance], NOT_NEGATIVE, "bias_variance")
        each_is([self.seed], SEED, "seed")
        for name in ("activations", "weight_variances"):
            if not getattr(self, name):
                raise ExpressivityError(f"{name} is []; it must have at least one item")
        unknown = [name for name in self.activations if name not in ACTIVATIONS]
        if unknown:
            raise ExpressivityError(f"activations contains {unknown[0]!r}; allowed: {', '.join(ACTIVATIONS)}")
        if not self.first < self.last <= self.depth:
            given = f"first is {self.first}, last is {self.last}, depth is {self.depth}"
            raise ExpressivityError(f"{given}; first must be less than last, and last at most depth")

    def check(self) -> None:
        """Do nothing: __post_init__ has checked all keys."""

    def run(self, directory: Path, progress: bool) -> list[Growth]:
        """Measure the growth for each activation and variance."""
        from tqdm import tqdm

        kinds = [(name, variance) for name in self.activations for variance in self.weight_variances]
        bar = tqdm(total=len(kinds) * self.networks, unit="network", leave=False, disable=None if progress else True)
        with bar:
            return [self._measured(*kind, bar) for kind in kinds]

    def write(self, result: list[Growth], directory: Path) -> None:
        """Write the JSON and CSV files and the figure."""
        from expressivity.plots import lengths_by_depth

        whole, table, plot = (directory / name for name in self.files)
        write_json(whole, [asdict(each) for each in result])
        write_file(table, csv_text(self.rows(result)))
        lengths_by_depth(result, plot)

    def tables(self, result: list[Growth]) -> dict[str, list[dict]]:
        """Titles and rows of the tables to print."""
        layers = f"growth of the length per layer, from layer {self.first} to {self.last}, {self.networks} networks"
        rows = [
            {
                "activation": each.activation,
                "sigma_w^2": f"{each.weight_variance:g}",
                "measured": f"{each.growth:.4f} ± {each.standard_error:.4f}",
                "mean field": f"{each.predicted:.4f}",
                f"length in layer {self.depth}": f"{each.lengths[-1]:.4g}",
                "sign transitions": f"{each.transitions[-1]:,.0f}",
                "patterns": f"{each.patterns[-1]:,.0f}",
            }
            for each in result
        ]
        return {layers: rows}

    def notes(self, result: list[Growth]) -> list[str]:
        """Nothing to add to the tables."""
        return []

    def rows(self, result: list[Growth]) -> list[dict]:
        """Rows of the CSV file, one per kind of network and layer."""
        by_layer = ("lengths", "predicted_lengths", "transitions", "patterns")
        return [
            {"activation": each.activation, "weight_variance": each.weight_variance, "layer": layer + 1}
            | {name.removesuffix("s"): getattr(each, name)[layer] for name in by_layer}
            for each in result
            for layer in range(self.depth)
        ]

    def _measured(self, name: str, variance: float, bar) -> Growth:
        sigma_w, sigma_b = math.sqrt(variance), math.sqrt(self.bias_variance)
        found = []
        for number in range(self.networks):
            found.append(self._one(name, sigma_w, sigma_b, number))
            bar.update()
        growths = torch.tensor([mean_growth(layers, self.first, self.last) for layers in found], dtype=torch.float64)
        factors = mean_field.growth(activation(name), sigma_w, sigma_b, self.depth)
        circumference = 2 * math.pi * math.sqrt(self.width)
        lengths = [circumference * math.prod(factors[: k + 1]) for k in range(self.depth)]
        averages = {
            attribute: [sum(getattr(layers[k], attribute) for layers in found) / len(found) for k in range(self.depth)]
            for attribute in ("length", "transitions", "patterns")
        }
        return Growth(
            name,
            variance,
            growth=growths.mean().item(),
            standard_error=(growths.std(correction=min(1, len(found) - 1)) / math.sqrt(len(found))).item(),
            predicted=(lengths[self.last - 1] / lengths[self.first - 1]) ** (1 / (self.last - self.first)),
            lengths=averages["length"],
            predicted_lengths=lengths,
            transitions=averages["transitions"],
            patterns=averages["patterns"],
        )

    def _one(self, name: str, sigma_w: float, sigma_b: float, number: int) -> list[LayerTrajectory]:
        with seeded("trajectory", self.seed, number):  # the same draws at each variance, scaled
            network = GaussianNetwork(self.width, self.depth, sigma_w, sigma_b, name)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        curve = circle(self.points, self.width, seed=self.seed + number)
        names = [f"activation{layer}" for layer in range(1, self.depth + 1)]
        return trajectory(network.to(device), curve.to(device), names)
