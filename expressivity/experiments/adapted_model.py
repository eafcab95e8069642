"""Trajectory lengths and tangent kernels of a trained model, block by block, beside those of its backbone."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import write_file, write_json
from common.keys import key
from common.tables import csv_text
from expressivity.block_kernels import ALL, BlockKernel, block_kernels
from expressivity.block_lengths import BlockLengths, block_lengths, closed_curve
from expressivity.errors import SEED, each_is

NAME = "adapted_model"
INPUTS = "a whole number from 2 to 256", lambda value: isinstance(value, int) and 2 <= value <= 256
POINTS = "a whole number from 8 to 10000", lambda value: isinstance(value, int) and 8 <= value <= 10_000


@dataclass(frozen=True)
class Measured:
    """What was measured.

    source: what the inputs are.
    outputs: number of outputs of all inputs, the largest possible rank.
    curves: number of curves.
    lengths: one item for each block, and for the final norm of each stack.
    adapted, backbone: name of a block, "elsewhere" or "all" -> kernel of what is trained there; of the backbone, of
        all its parameters.
    """

    source: str
    outputs: int
    curves: int
    lengths: list[BlockLengths]
    adapted: dict[str, BlockKernel]
    backbone: dict[str, BlockKernel]


@dataclass
class AdaptedModelExperiment:
    """Measure a trained model and its backbone on the same inputs.

    load: returns the networks, their inputs and the pairs of inputs that curves go through.
    """

    load: Callable[[], Any]
    results: str = key("", "SHA-256 of results.json of the measured run.")
    model: str = key("", "Directory of the run.")
    task: str = key("", "Task whose inputs and adapters are measured.")
    inputs: int = key(32, "Number of inputs of the tangent kernels.")
    points: int = key(400, "Number of points on each curve.")
    seed: int = key(0, "Seed of all random draws.")

    incidental = ("model",)  # `results` tells runs apart
    files = ("adapted_model.json", "results.csv", "blocks.png")

    def __post_init__(self):
        each_is([self.inputs], INPUTS, "--inputs")
        each_is([self.points], POINTS, "--points")
        each_is([self.seed], SEED, "--seed")

    def check(self) -> None:
        """Do nothing: __post_init__ has checked all keys."""

    def run(self, directory: Path, progress: bool) -> Measured:
        """Load the networks and measure them."""
        from tqdm import tqdm

        probes = self.load()
        adapted, backbone, inputs = probes.adapted, probes.backbone, probes.inputs
        curves = [closed_curve(*pair, self.points) for pair in probes.pairs]
        total = 2 * (len(curves) + len(inputs))
        with tqdm(total=total, unit="pass", leave=False, disable=None if progress else True) as bar:
            lengths = block_lengths(adapted, backbone, curves, backbone.stacks, bar.update)
            kernels = [
                block_kernels(network, inputs, backbone.blocks, self.seed, step=bar.update)
                for network in (adapted, backbone)
            ]
        outputs = len(inputs) * backbone.directions.shape[1]
        return Measured(probes.source, outputs, len(curves), lengths, *kernels)

    def write(self, result: Measured, directory: Path) -> None:
        """Write the JSON and CSV files and the figure."""
        from expressivity.plots import lengths_and_ranks_by_block

        whole, table, plot = (directory / name for name in self.files)
        write_json(whole, asdict(result))
        write_file(table, csv_text(rows(result)))
        lengths_and_ranks_by_block(result, plot)

    def tables(self, result: Measured) -> dict[str, list[dict]]:
        """Titles and rows of the tables to print."""
        curves = f"trajectory length, mean of {result.curves} curves through {result.source}"
        kernels = f"rank of the tangent kernel (at most {result.outputs}), on {self.inputs} {result.source}"
        return {
            curves: [_length_row(each) for each in result.lengths],
            kernels: [_rank_row(result, name) for name in names_of(result)],
        }

    def notes(self, result: Measured) -> list[str]:
        """Nothing to add to the tables."""
        return []


def names_of(result: Measured) -> list[str]:
    """The blocks that have a kernel, in order, and the rest."""
    trained = [name for name in result.backbone if name in result.adapted or name.count(".")]
    return [name for name in trained if name != ALL] + [ALL]


def rows(result: Measured) -> list[dict]:
    """Rows of the CSV file: what was measured of each block, of the final norms, elsewhere and of all."""
    lengths = {each.block: each for each in result.lengths}
    found = []
    for name in dict.fromkeys([*lengths, *names_of(result)]):
        of_lengths = {key: value for key, value in _fields(BlockLengths, lengths.get(name)).items() if key != "block"}
        row = {"block": name} | {f"length_{key}": value for key, value in of_lengths.items()}
        for side in ("adapted", "backbone"):
            kernel = _fields(BlockKernel, getattr(result, side).get(name))
            row |= {f"kernel_{side}_{key}": value for key, value in kernel.items()}
        found.append(row)
    return found


def _fields(cls: type, held: Any) -> dict[str, Any]:
    """The fields of a dataclass and their values, which are None if there is none."""
    return {name: getattr(held, name, None) for name in cls.__dataclass_fields__}


def _length_row(each: BlockLengths) -> dict[str, str]:
    error = "" if each.ratio_error is None else f" ± {each.ratio_error:.3f}"
    return {
        "block": each.block,
        "adapted": f"{each.adapted:.4g}",
        "growth": "" if each.adapted_growth is None else f"{each.adapted_growth:.3f}",
        "backbone": f"{each.backbone:.4g}",
        "growth there": "" if each.backbone_growth is None else f"{each.backbone_growth:.3f}",
        "adapted / backbone": f"{each.ratio:.3f}{error}",
    }


def _rank_row(result: Measured, name: str) -> dict[str, str]:
    row = {"block": name}
    for side, title in (("adapted", "trained"), ("backbone", "backbone")):
        kernel = getattr(result, side).get(name)
        row |= {
            f"{title} rank": f"{kernel.rank:.1f} ± {kernel.rank_error:.1f}" if kernel else "",
            f"{title} unit rank": f"{kernel.unit_rank:.1f} ± {kernel.unit_error:.1f}" if kernel else "",
            f"{title} parameters": f"{kernel.parameters:,}" + ("" if kernel.exact else "*") if kernel else "",
        }
    return row
