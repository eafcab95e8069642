"""Draws the figures of docs/tensor_train.md and prints its tables, in 15 seconds on one core.

    python docs/tensor_train_figures.py [--out docs]

Norm vectors and matrices are those of checkpoints/t5-nano. All random numbers have fixed seeds.
"""

import argparse
import io
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import t3nsor  # noqa: E402
from common.files import replacing  # noqa: E402

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # from Okabe and Ito, safe for colour-blind readers
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FINAL = ("encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight")
STEPS = 1000
MATRIX = ((8, 8, 12), (12, 16, 16))  # 768 -> 3072


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}\n")


class Parametrization(NamedTuple):
    """A parametrization of norm vectors.

    family: name of the parametrization, without its rank.
    rank: TT rank, if it has one.
    numbers: number of parameters.
    approximate: maps a vector to its best, or nearly best, approximation.
    """

    family: str
    rank: int | None
    numbers: int
    approximate: Callable[[torch.Tensor], torch.Tensor]


# Measurements.


def matrix_shapes(rows: int, columns: int) -> dict[str, tuple]:
    """The shapes to compare for a matrix rows -> columns."""
    return {
        "LoRA": ((rows, 1), (1, columns)),
        "skewed, q = 8": t3nsor.skewed_shape(rows, columns),
        "equal factors, d = 2": t3nsor.linear_shape(rows, columns, d=2),
        "equal factors, d = 3": t3nsor.linear_shape(rows, columns, d=3),
    }


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative error in percent, in the Euclidean norm."""
    return 100 * (torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted)).item()


def second_ratio(tensor: torch.Tensor) -> float:
    """Second singular value of the first unfolding, divided by the first one."""
    first, second = torch.linalg.svdvals(tensor.reshape(len(tensor), -1))[:2].tolist()
    return second / first


def median(values: list[float]) -> float:
    return torch.tensor(values).quantile(0.5).item()


def backbone_weights() -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The norm vectors of t5-nano by name, each (256,), and its feed-forward matrices wi, each (256, 512), for x W."""
    from transformers.utils.logging import disable_progress_bar

    from third_party.models.t5 import T5ForConditionalGeneration

    disable_progress_bar()
    named = list(T5ForConditionalGeneration.from_pretrained("t5-nano").double().named_parameters())
    norms = {name: weight.detach() for name, weight in named if weight.dim() == 1}
    return norms, [weight.detach().T for name, weight in named if name.endswith("DenseReluDense.wi.weight")]


def matrix_errors(matrices: list[torch.Tensor]) -> dict[str, list[tuple[int, float]]]:
    """For each shape and increasing rank, the number of parameters and the median error of TT-SVDs of `matrices`."""
    points = {}
    for name, shape in matrix_shapes(*matrices[0].shape).items():
        exact, points[name] = [t3nsor.to_tt_matrix(matrix, shape) for matrix in matrices], []
        for rank in RANKS:
            near = [tt.round(rank=rank) for tt in exact]
            errors = [relative_error(tt.full(), matrix) for tt, matrix in zip(near, matrices, strict=True)]
            points[name].append((near[0].numel(), median(errors)))
            if max(errors) < 1e-6:
                break
    return points


def parametrizations(size: int) -> list[Parametrization]:
    """All parametrizations of vectors of `size`, by number of parameters; trains up to the rank that is exact."""
    found = [
        Parametrization("ones", None, 0, torch.ones_like),
        Parametrization("ScaleNorm", None, 1, lambda v: v.mean().expand_as(v)),
        Parametrization("full vector", None, size, torch.clone),
        kronecker(size),
    ]
    for d in (2, 3):
        shape = t3nsor.auto_shape(size, d)
        for rank in range(1, max(shape) + 1):
            ranks = [min(rank, math.prod(shape[:k]), math.prod(shape[k:])) for k in range(1, d)]
            tt_svd = lambda v, s=shape, r=rank: t3nsor.to_tt_tensor(v.reshape(s), r).full().flatten()  # noqa: E731
            found.append(Parametrization(f"TTLayerNorm, d = {d}", rank, t3nsor.parameter_count(shape, ranks), tt_svd))
    return sorted(found, key=lambda each: each.numbers)


def kronecker(size: int, n: int = 4, norms: int = 16) -> Parametrization:
    """KroneckerLayerNorm with unit vectors as its rule, for which the best fit of each n-th of the vector is an SVD."""
    left, right = t3nsor.auto_shape(size // n, 2)

    def approximate(v):
        u, s, vt = torch.linalg.svd(v.reshape(n, left, right), full_matrices=False)
        return (u[..., :1] * s[:, None, :1] @ vt[..., :1, :]).flatten()

    numbers = n * (left + right) + n * n // norms  # the rule is shared by all norms
    return Parametrization(f"KroneckerLayerNorm, n = {n}", None, numbers, approximate)


def norm_errors(norms: dict[str, torch.Tensor], kinds: list[Parametrization]) -> dict[str, list[tuple[float, float]]]:
    """Errors in percent by group of norms and parametrization: as they are, and shuffled (mean of 5 shuffles)."""
    generator = torch.Generator().manual_seed(0)
    shuffles = [torch.randperm(len(norms[FINAL[0]]), generator=generator) for _ in range(5)]
    groups = {"14 norms inside": [v for name, v in norms.items() if name not in FINAL]}
    groups |= {"encoder's last norm": [norms[FINAL[0]]], "decoder's last norm": [norms[FINAL[1]]]}
    errors = {}
    for group, vectors in groups.items():
        errors[group] = []
        for kind in kinds:
            plain = [relative_error(kind.approximate(v), v) for v in vectors]
            mixed = [
                sum(relative_error(kind.approximate(v[p]), v[p]) for p in shuffles) / len(shuffles) for v in vectors
            ]
            errors[group].append((median(plain), median(mixed)))
    return errors


def train(target: torch.Tensor, rank: int, symmetric: bool) -> tuple[list[float], list[float]]:
    """Fit a train initialised with ones to `target`, with Adam.

    target: the tensor to fit.
    rank: TT rank.
    symmetric: True: equal constant cores; False: the constant in channel 0.

    Returns the ratios of second to first singular value and the errors, by step.
    """
    options = {"dtype": target.dtype, "generator": torch.Generator().manual_seed(0)}
    tt = t3nsor.tensor_const(target.shape, rank, 1.0, symmetric=symmetric, trainable=True, **options)
    optimizer = torch.optim.Adam(tt.parameters(), lr=0.01)
    ratios, errors = [], []
    for _ in range(STEPS + 1):
        found = tt.full()
        ratios.append(second_ratio(found.detach()))
        errors.append(relative_error(found.detach(), target))
        optimizer.zero_grad()
        (found - target).square().mean().backward()
        optimizer.step()
    return ratios, errors


# Tables.


def table(*rows) -> None:
    """Print a Markdown table whose first row is the header."""
    for k, row in enumerate(rows):
        print(f"| {' | '.join(map(str, row))} |")
        if k == 0:
            print("|---" * len(row) + "|")
    print()


def print_shapes() -> None:
    rows = []
    for name, shape in matrix_shapes(768, 3072).items():
        found = [(t3nsor.parameter_count(shape, r), t3nsor.max_rank(shape, r)) for r in (1, 2, 8)]
        sides = " -> ".join("x".join(map(str, side)) for side in shape)
        rows.append([name, sides, *(f"{numbers:,} / {rank}" for numbers, rank in found)])
    table(["768 -> 3072", "shape", "rank 1", "rank 2", "rank 8"], *rows)


def print_closeness(closeness: dict[str, list[tuple[int, float]]]) -> None:
    points = {name: found[::2] for name, found in closeness.items() if "d = 3" not in name}
    rows = [[name, *(f"{error:.1f}" for _, error in found)] for name, found in points.items()]
    table(["numbers", *(f"{numbers:,}" for numbers, _ in points["LoRA"])], *rows)


def print_starts(ends: dict[str, tuple[float, float]]) -> None:
    rows = [[name, "below 1e-12" if r < 1e-12 else f"{r:.3f}", f"{error:.2f}"] for name, (r, error) in ends.items()]
    table(["after 1,000 steps", "second / first singular value", "relative error (%)"], *rows)


def print_norms(kinds: list[Parametrization], errors: dict[str, list[tuple[float, float]]]) -> None:
    rows = []
    for k, kind in enumerate(kinds):
        if kind.rank in (None, 1, 2, 8) or kind.family.endswith("3") and kind.rank in (4, 6):
            name = kind.family if kind.rank is None else f"{kind.family}, rank {kind.rank}"
            rows.append([kind.numbers, name, *(f"{found[k][j]:.2f}" for found in errors.values() for j in (0, 1))])
    table(["numbers", "", *(head for group in errors for head in (group, "shuffled"))], *rows)


def print_order(norms: dict[str, torch.Tensor]) -> None:
    index = torch.arange(256, dtype=torch.float64)
    encoder, decoder = (torch.corrcoef(torch.stack([norms[name], index]))[0, 1].item() for name in FINAL)
    print(f"The correlation of entry and index is {encoder:.2f} in the encoder's last norm,", end=" ")
    print(f"{decoder:.2f} in the decoder's.")


# Figures.


def draw_chain(panel, modes: list[tuple], bonds: list[str], ring: str, title: str) -> None:
    """Draw cores as circles with bonds between them.

    modes: (in, out, other, name) of each core; each nonempty mode becomes a leg.
    bonds: labels of the bonds.
    ring: label of the closing bond; empty for a train.
    """
    for k, bond in enumerate(bonds):
        panel.plot([k, k + 1], [0, 0], color="0.35", linewidth=1.6, zorder=1)
        panel.text(k + 0.5, 0.12, bond, ha="center", fontsize=9, color="0.35")
    last = len(modes) - 1
    if ring:
        panel.plot([0, -0.5, -0.5, last + 0.5, last + 0.5, last], [0, 0, -1.3, -1.3, 0, 0], color="0.35", linewidth=1.6)
        panel.text(last / 2, -1.25, ring, ha="center", va="bottom", fontsize=9, color="0.35")
    for k, (*legs, name) in enumerate(modes):
        for label, sign, colour in zip(legs, (1, -1, -1), COLOURS, strict=False):
            if label:
                panel.plot([k, k], [0, 0.62 * sign], color=colour, linewidth=2.2, zorder=1)
                panel.text(k, 0.78 * sign, label, ha="center", va="center", fontsize=9.5, color=colour)
        panel.scatter([k], [0], s=430, color="white", edgecolors="black", linewidths=1.1, zorder=2)
        panel.text(k, -0.01, name, ha="center", va="center", fontsize=9.5, zorder=3)
    panel.set_title(title, fontsize=9.5)
    panel.set(xlim=(last / 2 - 2.4, last / 2 + 2.4), ylim=(-1.35, 0.95))
    panel.axis("off")


def diagram(pyplot):
    """Draw six tensor networks, with a legend of the colours of legs."""
    cores = [f"$G_{k}$" for k in (1, 2, 3)]
    r = ["$r_1$", "$r_2$"]
    vector = [("", size, "", name) for size, name in zip("488", cores, strict=True)]
    matrix = [(n, m, "", name) for n, m, name in zip(*MATRIX, cores, strict=True)]
    lora, skewed = [(768, "", "", "$A$"), ("", 3072, "", "$B$")], [(96, 8, "", cores[0]), (8, 384, "", cores[1])]
    chains = [
        (vector, r, "", "norm vector, 256 = 4·8·8", (4, 8, 8)),
        (matrix, r, "", "matrix, 768 → 3072", MATRIX),
        (matrix, r, "$r_0 = r_3$", "ring, 768 → 3072", MATRIX),
        (lora, ["$r$"], "", "LoRA, 768 → 3072, legs of size 1 left out", ((768, 1), (1, 3072))),
        (skewed, ["$r$"], "", "skewed shape, 768 → 3072, q = 8", ((96, 8), (8, 384))),
    ]
    figure, panels = pyplot.subplots(2, 3, figsize=(9.6, 4.6), layout="constrained")
    for panel, (modes, bonds, ring, title, shape) in zip(panels.flat, chains, strict=False):
        numbers = t3nsor.parameter_count(shape, 2, ring=bool(ring))
        draw_chain(panel, modes, bonds, ring, f"{title}\n{numbers:,} numbers at rank 2")
    crossed = [matrix[0], ("", "", 24, "$L$"), ("", "", 2, "$T$"), *matrix[1:]]
    numbers = t3nsor.parameter_count(MATRIX, 2) + 2 * 2 * (24 + 2)
    title = f"one train for 24 layers of 2 types\n{numbers:,} numbers at rank 2 for all"
    draw_chain(panels.flat[-1], crossed, ["$r_1$"] * 3 + ["$r_2$"], "", title)
    names = ("in", "out, or entries of the vector", "layer and type")
    handles = [pyplot.Line2D([], [], color=colour, linewidth=2.2) for colour in COLOURS[:3]]
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def rank_figure(pyplot, closeness: dict[str, list[tuple[int, float]]]):
    """Plot, against the number of parameters, the maximum matrix rank (left) and the error on t5-nano (right)."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained")
    for (name, shape), colour, marker in zip(matrix_shapes(768, 3072).items(), COLOURS, "os^D", strict=True):
        style = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.4, "label": name}
        if name.endswith("3"):  # it overlaps others
            style |= {"markersize": 8, "markerfacecolor": "none"}
        points = [(t3nsor.parameter_count(shape, rank), t3nsor.max_rank(shape, rank)) for rank in RANKS[:7]]
        left.plot(*zip(*points, strict=True), **style)
        right.plot(*zip(*closeness[name], strict=True), **style)
    left.set_yscale("log", base=2)
    left.set_yticks((1, 4, 16, 64, 256, 768), ("1", "4", "16", "64", "256", "768"))
    left.set(title="768 → 3072, TT ranks 1, 2, 4 .. 64", ylabel="matrix rank in reach")
    right.set(title="feed-forward matrices of t5-nano, 256 → 512", ylabel="relative error (%)", ylim=(-2, 104))
    right.axvline(256 * 512, color="0.6", linewidth=0.8, zorder=0)
    right.annotate("as many as the matrix has", (256 * 512, 8), (-5, 0), textcoords="offset points", ha="right")
    for panel in (left, right):
        panel.set(xscale="log", xlabel="trained numbers")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def start_figure(pyplot, runs: dict[str, tuple[list[float], list[float]]], references: dict[str, tuple[float, float]]):
    """Plot second singular value and error while a train is fitted, for both initialisations."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.7), layout="constrained")
    for (name, (ratios, errors)), colour in zip(runs.items(), COLOURS[1::-1], strict=True):
        left.plot([max(ratio, 1e-17) for ratio in ratios], color=colour, linewidth=1.3, label=name)
        right.plot(errors, color=colour, linewidth=1.3)
    for name, (ratio, error) in references.items():
        for panel, height in ((left, ratio), (right, error)):
            if height > 1e-12:
                panel.axhline(height, color="0.45", linewidth=0.9, linestyle="--")
                panel.annotate(name, (STEPS, height), (0, 3), textcoords="offset points", ha="right", color="0.35")
    highest = 1.5 * max(error for _, error in references.values())
    left.set(yscale="log", ylim=(1e-17, 3), ylabel="second / first singular value", title="unfolding 4 × 64")
    right.set(ylim=(0, highest), ylabel="relative error (%)", title="256 = 4·8·8 at rank 4, encoder's last norm")
    for panel in (left, right):
        panel.set(xlabel="step of Adam", xlim=(-10, STEPS))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def norm_figure(pyplot, kinds: list[Parametrization], errors: dict[str, list[tuple[float, float]]]):
    """Plot error against number of parameters by family of parametrizations, with a panel per group of norms."""
    figure, panels = pyplot.subplots(1, 3, figsize=(9.6, 3.9), layout="constrained")
    families = ("TTLayerNorm, d = 2", "TTLayerNorm, d = 3", "ScaleNorm", "KroneckerLayerNorm, n = 4", "full vector")
    for panel, (group, found) in zip(panels, errors.items(), strict=True):
        panel.axvline(256, color="0.6", linewidth=0.8)
        for family, colour, marker in zip(families, (*COLOURS, "black"), "osD^*", strict=True):
            points = [(kind.numbers, *error) for kind, error in zip(kinds, found, strict=True) if kind.family == family]
            x, plain, mixed = zip(*points, strict=True)
            style = {"color": colour, "marker": marker, "markersize": 9 if marker == "*" else 4.5, "clip_on": False}
            panel.plot(x, plain, label=family, linewidth=1.4, zorder=3, **style)
            if family.endswith("d = 3"):
                panel.plot(x, mixed, color=colour, linewidth=1.2, linestyle=":", label="d = 3, entries shuffled")
        panel.set(xscale="log", xlabel="trained numbers", ylim=0, xlim=(0.9, 600), title=group)
        panel.set_xticks((1, 4, 16, 64, 256), ("1", "4", "16", "64", "256"))
        panel.minorticks_off()
    panels[0].set(ylabel="relative error (%)", title="14 norms inside, median")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def save(figure, path: Path) -> None:
    """Save a PNG with 128 colours, which is less than half as large."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=140)
    with replacing(path) as unfinished:
        Image.open(drawn).convert("RGB").quantize(128).save(unfinished, format="PNG", optimize=True)


def report(pyplot, out: Path) -> None:
    """Measure everything, print the tables, and save the figures in `out`."""
    norms, matrices = backbone_weights()
    kinds = parametrizations(256)
    errors, closeness = norm_errors(norms, kinds), matrix_errors(matrices)
    target = norms[FINAL[0]].reshape(4, 8, 8)
    runs = {"equal constant cores": train(target, 4, True), "constant in channel 0": train(target, 4, False)}
    best = {f"TT-SVD, rank {rank}": t3nsor.to_tt_tensor(target, rank).full() for rank in (1, 4)}
    references = {name: (second_ratio(found), relative_error(found, target)) for name, found in best.items()}

    print_shapes()
    print_closeness(closeness)
    print_starts({name: (ratios[-1], errors[-1]) for name, (ratios, errors) in runs.items()} | references)
    print_norms(kinds, errors)
    print_order(norms)
    save(diagram(pyplot), out / "tensor_train_diagram.png")
    save(rank_figure(pyplot, closeness), out / "tensor_train_rank.png")
    save(start_figure(pyplot, runs, references), out / "tensor_train_start.png")
    save(norm_figure(pyplot, kinds, errors), out / "tensor_train_norms.png")


def main(arguments: list[str]) -> None:
    parser = Parser(description="Draw the figures of docs/tensor_train.md and print its tables.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="directory for the figures")
    out = parser.parse_args(arguments).out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out is {out} ({error.strerror}); it must be a writable directory")
    if not os.access(out, os.W_OK):
        parser.error(f"--out is {out}; it must be a writable directory")
    try:
        import matplotlib
    except ImportError:
        parser.error("matplotlib is missing: pip install -c constraints.txt matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9.5})
    pyplot.rcParams["axes.titlesize"] = "medium"
    report(pyplot, out)


if __name__ == "__main__":
    main(sys.argv[1:])
