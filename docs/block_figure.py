"""Draw docs/block.png, what attaches where in a block of T5: python docs/block_figure.py [FILE.png]"""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adapters import AdapterConfig, sites  # noqa: E402
from common.files import replacing  # noqa: E402
from common.keys import key_fields  # noqa: E402

COLOURS = {
    sites.BEFORE_ENCODER: "#8c6bb1",
    sites.INSTEAD_OF_NORM: "#2b8cbe",
    sites.IN_ATTENTION: "#c51b8a",
    sites.BESIDE_LINEAR: "#d95f0e",
    sites.ON_BIAS: "#7a7a00",
    sites.AFTER_SUBLAYER: "#238b45",
    sites.ON_WEIGHTS: "#525252",
}
FROZEN = "#f0f0f0"
BESIDE = 0.62  # height of what stands beside a frozen part


def methods_at(site: str) -> list[str]:
    """The names of the registry's methods at a site."""
    fields = [f for f in key_fields(AdapterConfig) if f.metadata.get("site") == site]
    return [f.metadata.get("method", f.name) for f in fields]


def draw() -> Figure:
    """One residual stream from left to right, and below it the methods of each site."""
    figure = Figure(figsize=(12, 5.6))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 24), ylim=(-6.3, 4.6))
    axes.axis("off")
    _stream(axes)
    _sublayer(axes, 3.4, "self-attention", ("q", "k", "v", "o"), with_prefix=True)
    _sublayer(axes, 13.9, "feed-forward", ("wi", "wo"), with_prefix=False)
    _legend(axes)
    return figure


def _stream(axes) -> None:
    _box(axes, 0.3, -0.4, 1.7, "tokens")
    _box(axes, 0.3, BESIDE, 1.7, "prompt", sites.BEFORE_ENCODER)
    axes.annotate("", (23.8, 0), (2.0, 0), arrowprops={"arrowstyle": "->", "lw": 1.2}, zorder=0)


def _sublayer(axes, left: float, name: str, linears: tuple[str, ...], with_prefix: bool) -> None:
    """A norm, the frozen sublayer with its linear layers, what attaches to them, an adapter, and the residual sum."""
    width = 5.6
    axes.plot([left - 0.5, left - 0.5, left + width + 3.6, left + width + 3.6], [0, -1.9, -1.9, -0.22], color="k", lw=1)
    _box(axes, left - 0.2, -0.4, 1.1, "norm")
    _box(axes, left - 0.2, BESIDE, 1.1, "norm", sites.INSTEAD_OF_NORM)
    start = left + 1.3
    axes.add_patch(FancyBboxPatch((start, -1.4), width - 0.6, 5.1, boxstyle="round,pad=0.08", fc="white", ec="#999999"))
    axes.text(start + (width - 0.6) / 2, 4.05, name, ha="center", va="center", fontsize=10)
    step = (width - 0.8) / len(linears)
    for number, linear in enumerate(linears):
        x = start + 0.1 + number * step
        _box(axes, x, -0.4, step - 0.2, linear)
        _box(axes, x, BESIDE, step - 0.2, "branch", sites.BESIDE_LINEAR)
        _box(axes, x, -1.25, step - 0.2, "bias", sites.ON_BIAS, height=0.6)
    _box(axes, start + 0.1, 2.9, width - 1.0, "all weights", sites.ON_WEIGHTS, height=0.6)
    if with_prefix:
        _box(axes, start + 0.1 + step, 1.75, 2 * step - 0.2, "prefix", sites.IN_ATTENTION)
    _box(axes, left + width + 1.1, -0.4, 1.7, "adapter", sites.AFTER_SUBLAYER)
    axes.add_patch(Circle((left + width + 3.6, 0), 0.22, fc="white", ec="k"))
    axes.text(left + width + 3.6, 0, "+", ha="center", va="center", fontsize=11)


def _box(axes, x: float, y: float, width: float, text: str, site: str | None = None, height: float = 0.8) -> None:
    colour = FROZEN if site is None else COLOURS[site]
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.05", fc=colour, ec="#555555", lw=0.8))
    size = 9 if width > 1.05 else 7
    ink = "black" if site is None else "white"
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=ink)


def _legend(axes) -> None:
    for number, (site, colour) in enumerate(COLOURS.items()):
        y = -2.75 - 0.52 * number
        axes.add_patch(FancyBboxPatch((0.4, y - 0.14), 0.5, 0.28, boxstyle="round,pad=0.03", fc=colour, ec="none"))
        axes.text(1.3, y, site, va="center", fontsize=9, weight="bold")
        axes.text(5.4, y, ", ".join(methods_at(site)), va="center", fontsize=9)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("file", nargs="?", default=str(ROOT / "docs" / "block.png"))
    with replacing(parser.parse_args().file) as unfinished:
        draw().savefig(unfinished, dpi=110)
