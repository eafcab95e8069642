"""Plots of what was varied: a line for a key, a heat map for two."""

from seq2seq.comparison.plots.drawing import INK, SERIES, SMALL, Style, new_figure, set_ticks, to_svg
from seq2seq.comparison.plots.parts import Plot
from seq2seq.results.conclusions import is_number
from seq2seq.results.measured import TRAINING_ROWS, Measured, Row
from seq2seq.results.plots import error_bar, score_name


def grid_plots(measured: Measured) -> list[Plot]:
    """The plots of all keys of the grid that are numbers."""
    entries = varied(measured)
    lines: dict[str, dict[str, list[Row]]] = {}
    found = []
    for entry, rows in entries.items():
        rows = [row for row in rows if row.grid.get(TRAINING_ROWS, 0) is not None]  # all of them are no number
        keys = varied_keys(rows)
        if not all(is_number(row.grid.get(key)) for row in rows for key in keys):
            continue  # what is not a number has no place on an axis
        if len(keys) == 1:
            lines.setdefault(keys[0], {})[entry] = rows
        elif TRAINING_ROWS in keys:
            rest = [key for key in keys if key != TRAINING_ROWS]
            for point in dict.fromkeys(tuple(row.grid[key] for key in rest) for row in rows):
                words = ", ".join(f"{key}={value:g}" for key, value in zip(rest, point, strict=True))
                same = [row for row in rows if tuple(row.grid[key] for key in rest) == point]
                lines.setdefault(TRAINING_ROWS, {})[f"{entry} ({words})"] = same
        elif len(keys) == 2:
            found.append(heat_map(measured, entry, rows, keys, f"heat{len(found)}"))
    drawn = [line_plot(measured, key, series, f"grid{n}") for n, (key, series) in enumerate(lines.items())]
    return drawn + found


def varied(measured: Measured) -> dict[str, list[Row]]:
    """The rows of each item of `configurations` that has several."""
    entries: dict[str, list[Row]] = {}
    for row in measured.rows:
        entries.setdefault(row.entry, []).append(row)
    return {entry: rows for entry, rows in entries.items() if len(rows) > 1}


def varied_keys(rows: list[Row]) -> list[str]:
    """The keys of the grid that have several values."""
    keys = dict.fromkeys(key for row in rows for key in row.grid)
    return [key for key in keys if len({str(row.grid.get(key)) for row in rows}) > 1]


def line_plot(measured: Measured, key: str, series: dict[str, list[Row]], prefix: str) -> Plot:
    """Score against the value of a key, a line for each item of `configurations`."""
    figure, (axes,) = new_figure(3.4)
    values = sorted({row.grid[key] for rows in series.values() for row in rows})
    if values[0] > 0 and values[-1] / values[0] >= 4:
        axes.set_xscale("log")
    names = list(series)
    for number, rows in enumerate(series.values()):
        style = Style(number)
        ordered = sorted(rows, key=lambda row: row.grid[key])
        (line,) = axes.plot(
            [row.grid[key] for row in ordered],
            [row.average.mean for row in ordered],
            label=names[number],
            **style.line(),
            **style.points(),
        )
        style.tag(line)
        for row in ordered:
            error_bar(axes, style, row.grid[key], row.average)
    set_ticks(axes.xaxis, values, [f"{value:,g}" for value in values])
    axes.set(xlabel=key, ylabel=f"{score_name(measured)}, {measured.split}")
    axes.legend(frameon=False, fontsize=SMALL)
    title = "Score against training rows" if key == TRAINING_ROWS else f"Score against {key}"
    caption = "Mean with its 95% interval over seeds."
    return Plot(title, to_svg(figure, prefix, title), caption, [])


def heat_map(measured: Measured, entry: str, rows: list[Row], keys: list[str], prefix: str) -> Plot:
    """The score at every point of a grid of two keys."""
    across, up = keys
    xs, ys = (sorted({row.grid[key] for row in rows}) for key in keys)
    means = [row.average.mean for row in rows]
    low, spread = min(means), max(means) - min(means) or 1.0
    figure, (axes,) = new_figure(0.9 + 0.5 * len(ys))
    for row in rows:
        x, y = xs.index(row.grid[across]), ys.index(row.grid[up])
        share = (row.average.mean - low) / spread
        axes.bar(x, 0.96, 0.96, y - 0.48, color=SERIES[0][0], alpha=0.08 + 0.8 * share)
        words = f"{row.average.mean:.1f}" + (
            "" if row.average.half != row.average.half else f"\n± {row.average.half:.1f}"
        )
        axes.text(x, y, words, ha="center", va="center", fontsize=SMALL, color="#fffffe" if share > 0.6 else INK[0])
    set_ticks(axes.xaxis, list(range(len(xs))), [f"{value:g}" for value in xs])
    set_ticks(axes.yaxis, list(range(len(ys))), [f"{value:g}" for value in ys])
    axes.grid(visible=False)
    axes.set(xlabel=across, ylabel=up)
    title = f"{entry}: {across} and {up}"
    caption = f"{score_name(measured)}, {measured.split}, and half of its 95% interval over seeds."
    return Plot(title, to_svg(figure, prefix, title), caption, [])
