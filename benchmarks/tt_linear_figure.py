"""The figure of tt_linear.py."""

from pathlib import Path
from statistics import median

from tt_linear_peers import MODES
from tt_linear_report import layer_of

from common.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # from Okabe and Ito, distinguishable by colour-blind readers
MARKERS = "os^D"


def draw(report: dict, records: list[dict], path: Path) -> None:
    """Plot the speed-up over the best peer against the rank: one panel per d and mode, one line per number of rows.

    Shows the layer and dtype of the first record that has x @ W alone. Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [r for r in records if "alone" in r and all(r["alone"][mode]["ratios"] for mode in MODES)]
    records = [r for r in records if layer_of(r) == layer_of(records[0])]
    if not records:
        return
    rows, ranks = (sorted({record["cell"][key] for record in records}) for key in ("rows", "rank"))
    columns = sorted({record["cell"]["d"] for record in records}, key=str)  # numbers before "skewed"
    options = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, panels = pyplot.subplots(len(MODES), len(columns), figsize=(1.5 + 2.6 * len(columns), 5), **options)
    for mode, line in zip(MODES, panels, strict=True):
        for d, panel in zip(columns, line, strict=True):
            panel.axhline(1, color="0.5", linewidth=0.8)
            panel.spines[["top", "right"]].set_visible(False)
            for k, count in enumerate(rows):
                style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "markersize": 4}
                panel.plot(*_speed_ups(records, mode, d, count), label=f"{count} rows", linewidth=1.4, **style)
        line[0].set_ylabel(f"{mode}:\nbest peer's time / ours")
    for d, top, bottom in zip(columns, *panels, strict=True):
        top.set_title(f"d = {d}", fontsize="medium")
        bottom.set_xlabel("rank")
    panels[0][0].set_xscale("log", base=2)
    panels[0][0].set_xticks(ranks, map(str, ranks))
    panels[0][0].set_ylim(bottom=0)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False)
    machine = report["machine"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    where = machine["device"] if machine["device"] != "cpu" else f"{machine['cpu']}, {threads}"
    figure.suptitle(f"x @ W, {layer_of(records[0])}, {where}", fontsize="medium")
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=160)
    pyplot.close(figure)


def _speed_ups(records: list[dict], mode: str, d: int | str, rows: int) -> tuple[list[int], list[float]]:
    """Ranks and speed-ups of the cells with these d and rows."""
    cells = [record for record in records if (record["cell"]["d"], record["cell"]["rows"]) == (d, rows)]
    cells.sort(key=lambda record: record["cell"]["rank"])
    ratios = [median(record["alone"][mode]["ratios"]) for record in cells]
    return [record["cell"]["rank"] for record in cells], [1 / ratio for ratio in ratios]
