"""Figures of comparisons and trajectories. This is the only module of the package that imports matplotlib."""

import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from common.errors import type_and_line
from common.files import write_file
from expressivity.errors import ExpressivityError
from expressivity.verdict import WORST

COLOURS = {"A": "#0072b2", "B": "#d55e00"}  # safe for colour-blind readers
MARKERS = {"A": "o", "B": "s"}
FLOOR_SHOWN = 1e-2  # of the smallest error: floors further below would squeeze the errors together
MAX_DOWN = 0.98  # longest lower error bar, relative to the mean: the axis is logarithmic


def errors_by_size(result, statistic: str, path: str | os.PathLike | None) -> Figure:
    """Plot a ComparisonResult: above, errors against the measures; below, what decides, the differences size by size.

    Above: errors with intervals, floors as bands, the best constant as a line at 1; a grey line joins the two points
    that are compared, a ring marks the winner. Below: A - B with its interval, the line at 0, and as a band what the
    fits may explain, which an interval must leave for a winner.

    Writes the figure to `path` if given, and returns it.
    """
    figure = Figure(figsize=(7, 7), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(2, 1))
    begun = [size for size in result.sizes if size.targets]
    estimates = [size.estimate(statistic, result.confidence) for size in begun]
    for family in COLOURS:
        _draw_errors(above, result, family, begun, estimates)
    for size, estimate in zip(begun, estimates, strict=True):
        points = [(size.measures[family], estimate.errors[family].mean) for family in COLOURS]
        above.plot(*zip(*points, strict=True), color="grey", linewidth=0.8, zorder=0)
    above.axhline(1, color="black", linestyle="--", linewidth=0.8)
    above.set(xlabel=result.unit, ylabel=f"relative error, {statistic} over restarts", yscale="log")
    bars = f"bars: {result.confidence:.0%} confidence"
    above.set_title(f"{bars}; ring: winner; dotted: training rows; bands: floors; dashed: constant", fontsize="small")
    above.legend(fontsize="small")
    least = min((e.errors[family].mean for e in estimates for family in COLOURS), default=0)
    if least > 0:
        above.set_ylim(bottom=max(above.get_ylim()[0], FLOOR_SHOWN * least))
    _draw_differences(below, begun, estimates)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return saved(figure, path)


def _draw_errors(axes, result, family: str, sizes: list, estimates: list) -> None:
    x = [size.measures[family] for size in sizes]
    intervals = [estimate.errors[family] for estimate in estimates]
    y = [interval.mean for interval in intervals]
    down = [min(i.mean - i.low, MAX_DOWN * i.mean) for i in intervals]
    up = [i.high - i.mean for i in intervals]
    style = {"color": COLOURS[family], "marker": MARKERS[family], "markersize": 5, "linewidth": 1.5}
    axes.errorbar(x, y, yerr=[down, up], capsize=3, label=label(result, family), **style)
    training = [estimate.training[family] for estimate in estimates]
    axes.plot(x, training, linestyle=":", linewidth=1, color=COLOURS[family])
    floors = [estimate.floors[family] for estimate in estimates]
    low = [max(floor.low, (1 - MAX_DOWN) * floor.mean) for floor in floors]
    axes.fill_between(x, low, [floor.high for floor in floors], color=COLOURS[family], alpha=0.15, linewidth=0)
    axes.plot(x, [floor.mean for floor in floors], color=COLOURS[family], alpha=0.4, linewidth=0.8)
    won = [(a, b) for a, b, e in zip(x, y, estimates, strict=True) if e.winner == family]
    axes.plot(*zip(*won, strict=True) if won else ([], []), "o", mfc="none", mec=COLOURS[family], ms=13)


def _draw_differences(axes, sizes: list, estimates: list) -> None:
    for place, estimate in enumerate(estimates):
        difference, winner = estimate.difference, estimate.winner
        colour = COLOURS.get(winner, "grey")
        explained = [min(estimate.slack(family), WORST) for family in ("A", "B")]
        axes.bar(place, sum(explained), bottom=-explained[1], width=0.6, color="grey", alpha=0.2, linewidth=0)
        ends = [[difference.mean - difference.low], [difference.high - difference.mean]]
        axes.errorbar([place], [difference.mean], yerr=ends, fmt="D", markersize=5, capsize=4, color=colour)
        words = f"{winner} wins" if winner in COLOURS else winner
        beside = {"xytext": (9, 0), "textcoords": "offset points", "fontsize": "small", "va": "center"}
        axes.annotate(words, (place, difference.mean), **beside)
    axes.axhline(0, color="black", linewidth=0.8)
    labels = [f"size {s.index}: {s.measures['A']:g} and {s.measures['B']:g}" for s in sizes]
    axes.set_xticks(range(len(sizes)), labels, fontsize="small")
    axes.set(xlim=(-0.6, len(sizes) - 0.2), ylabel="error of A - error of B")
    axes.set_title("below 0 A is better; band: what the fits may explain", fontsize="small")


def densities(result, statistic: str, path: str | os.PathLike | None) -> Figure:
    """Plot, for each size of a ComparisonResult, the share of targets fitted to within eps against eps.

    Writes the figure to `path` if given, and returns it.
    """
    columns = min(3, len(result.sizes))
    lines = -(-len(result.sizes) // columns)
    figure = Figure(figsize=(1 + 3.4 * columns, 0.6 + 3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat
    for size, axes in zip(result.sizes, panels, strict=False):
        for family, errors in result.density(size.index, statistic).items():
            axes.ecdf(errors.clamp_min(1e-300).tolist(), color=COLOURS[family], label=label(result, family))
        measures = " and ".join(dict.fromkeys(f"{size.measures[family]:g}" for family in COLOURS))
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="eps")
        axes.xaxis.set_minor_formatter("")
        axes.set_title(f"size {size.index}: measure {measures}, {size.targets} targets", fontsize="small")
        axes.grid(alpha=0.3)
    for axes in list(panels):  # unused panels of the last row
        axes.axis("off")
    figure.supylabel("share of targets within eps", fontsize="medium")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return saved(figure, path)


def label(result, family: str) -> str:
    """Legend entry that says who imitates whom."""
    target = "base" if "base" in result.names else {"A": "B", "B": "A"}[family]
    return f"{result.names[family]} imitates {result.names[target]}"


def saved(figure: Figure, path: str | os.PathLike | None) -> Figure:
    """Write the figure to `path` if given, and return it. Raises ExpressivityError if it cannot be written."""
    if path is not None:
        image = io.BytesIO()
        try:
            figure.savefig(image, format=Path(path).suffix[1:] or "png", dpi=100)
        except ValueError as error:
            raise ExpressivityError(f"figure {path} cannot be saved: {type_and_line(error)}") from None
        write_file(path, image.getvalue())
    return figure


def lengths_by_depth(kinds: list, path: str | os.PathLike | None) -> Figure:
    """Plot measured and predicted lengths of a curve's image against depth, with one panel per activation.

    Writes the figure to `path` if given, and returns it.
    """
    names = list(dict.fromkeys(kind.activation for kind in kinds))
    figure = Figure(figsize=(1 + 4 * len(names), 4), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for name, axes in zip(names, panels, strict=True):
        for kind in (kind for kind in kinds if kind.activation == name):
            depth = range(1, len(kind.lengths) + 1)
            (line,) = axes.plot(
                depth, kind.lengths, "o-", markersize=4, label=f"$\\sigma_w^2$ = {kind.weight_variance:g}"
            )
            axes.plot(depth, kind.predicted_lengths, "--", linewidth=1, color=line.get_color())
        axes.set(xlabel="layer", yscale="log")
        axes.set_title(f"{name}; dashed: mean field", fontsize="small")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("length of the image of a circle")
    panels[-1].legend(fontsize="small")
    return saved(figure, path)


def lengths_and_ranks_by_block(result, path: str | os.PathLike | None) -> Figure:
    """Plot what was measured of a trained model and its backbone: lengths above, ranks of tangent kernels below.

    Writes the figure to `path` if given, and returns it.
    """
    lengths = {each.block: (each.adapted, each.backbone) for each in result.lengths}
    blocks = list(dict.fromkeys([*lengths, *result.backbone]))
    figure = Figure(figsize=(max(7, 1 + 0.35 * len(blocks)), 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for side, (key, name) in enumerate((("A", "trained"), ("B", "backbone before training"))):
        kernels = (result.adapted, result.backbone)[side]
        style = {"color": COLOURS[key], "marker": MARKERS[key], "markersize": 5, "linestyle": "none", "label": name}
        above.plot([blocks.index(each) for each in lengths], [pair[side] for pair in lengths.values()], **style)
        ranks, errors = zip(*((kernel.unit_rank, kernel.unit_error) for kernel in kernels.values()), strict=True)
        below.errorbar([blocks.index(each) for each in kernels], ranks, yerr=errors, capsize=3, **style)
    above.set(ylabel="length of a curve's image", yscale="log")
    below.set(ylabel="unit rank of the tangent kernel", ylim=(0, None))
    below.set_xticks(range(len(blocks)), blocks, rotation=90, fontsize="small")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.legend(fontsize="small")
    return saved(figure, path)
