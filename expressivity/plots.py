"""Figures of a comparison and of trajectories. Needs matplotlib, which is imported with this file alone."""

import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from common.errors import type_and_line
from common.files import write_file
from expressivity.errors import ExpressivityError

COLOURS = {"A": "#0072b2", "B": "#d55e00"}  # told apart by the colour-blind, too
MARKERS = {"A": "o", "B": "s"}
LARGEST = 0.98  # of an error bar's way down to 0: the axis is logarithmic


def errors_by_size(result, statistic: str, path: str | os.PathLike | None) -> Figure:
    """Of a ComparisonResult the errors with their intervals over the measures; a ring marks the winner of a size."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes, estimates = figure.subplots(), result.estimates(statistic)
    for family in COLOURS:
        x = [size.measures[family] for size in result.sizes]
        intervals = [estimate.errors[family] for estimate in estimates]
        y = [interval.mean for interval in intervals]
        down = [min(i.mean - i.low, LARGEST * i.mean) for i in intervals]
        up = [i.high - i.mean for i in intervals]
        style = {"color": COLOURS[family], "marker": MARKERS[family], "markersize": 5, "linewidth": 1.5}
        axes.errorbar(x, y, yerr=[down, up], capsize=3, label=label(result, family), **style)
        training = [estimate.training[family] for estimate in estimates]
        axes.plot(x, training, linestyle=":", linewidth=1, color=COLOURS[family])
        won = [(a, b) for a, b, e in zip(x, y, estimates, strict=True) if e.winner == family]
        axes.plot(*zip(*won, strict=True) if won else ([], []), "o", mfc="none", mec=COLOURS[family], ms=13)
    axes.set(xlabel="measure", ylabel=f"relative error, {statistic} over restarts", yscale="log")
    key = f"bars: {result.confidence:.0%} confidence; ring: decided; dotted: on the training rows"
    axes.set_title(key, fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return saved(figure, path)


def densities(result, statistic: str, path: str | os.PathLike | None) -> Figure:
    """Of a ComparisonResult, for each size, the share of targets that are fitted to within eps, over eps."""
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
    for axes in list(panels):  # what is left of the last line
        axes.axis("off")
    figure.supylabel("share of targets within eps", fontsize="medium")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return saved(figure, path)


def label(result, family: str) -> str:
    """Who imitates whom."""
    target = "base" if "base" in result.names else {"A": "B", "B": "A"}[family]
    return f"{result.names[family]} imitates {result.names[target]}"


def saved(figure: Figure, path: str | os.PathLike | None) -> Figure:
    """The figure, written to `path` if there is one."""
    if path is not None:
        image = io.BytesIO()
        try:
            figure.savefig(image, format=Path(path).suffix[1:] or "png", dpi=100)
        except ValueError as error:
            raise ExpressivityError(f"{path} cannot be drawn: {type_and_line(error)}") from None
        write_file(path, image.getvalue())
    return figure


def lengths_by_depth(kinds: list, path: str | os.PathLike | None) -> Figure:
    """Length of a curve's image over depth, measured and predicted, a panel per activation."""
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
