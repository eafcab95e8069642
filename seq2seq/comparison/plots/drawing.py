"""Style of the plots: colours for light and dark pages, markers, ticks, non-overlapping labels, SVG output."""

import html
import io
import math
import re
import warnings
from dataclasses import dataclass

# Light and dark scheme, with the hues of Okabe and Ito, which are safe for colour-blind readers.
SERIES = (
    ("#0072b2", "#4b9fe0"),
    ("#d55e00", "#f07f3c"),
    ("#009e73", "#25b88e"),
    ("#c46a9c", "#e59ac6"),
    ("#b8860b", "#e3b341"),
    ("#3aa6dd", "#92d3f7"),
    ("#6b6f76", "#a9adb4"),
)
INK, MUTED, GRID, SURFACE = (
    ("#1b1f24", "#e8eaed"),
    ("#5d656f", "#9aa3ad"),
    ("#e4e7eb", "#2c333b"),
    ("#fffffe", "#14181d"),
)
VARIABLES = {
    **{f"--c{i}": pair for i, pair in enumerate(SERIES)},
    **{"--ink": INK, "--muted": MUTED, "--grid": GRID, "--surface": SURFACE},
}
MARKERS = "os^Dv"  # five markers and seven hues make 35 different pairs
DASHES = ((), (5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
TINTS = (1.0, 0.45, 0.2, 0.05)
WIDTH = 6.0  # inches; 432 points, which a screen of 500 pixels shows at 1.1 pixels per point
SMALL = 8.4  # the smallest font, in points
RC = {
    "svg.fonttype": "none",  # text as text
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": MUTED[0],
    "axes.labelcolor": MUTED[0],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID[0],
    "grid.linewidth": 0.6,
    "text.color": INK[0],
    "xtick.color": MUTED[0],
    "ytick.color": MUTED[0],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Style:
    """Style of the `index`-th configuration of a section, the same in every plot."""

    index: int

    @property
    def hue(self) -> int:
        return self.index % len(SERIES)

    @property
    def colour(self) -> str:
        return SERIES[self.hue][0]

    @property
    def marker(self) -> str:
        return MARKERS[self.index % len(MARKERS)]

    @property
    def dashes(self) -> tuple[float, ...]:
        return DASHES[self.index // len(SERIES) % len(DASHES)]

    @property
    def tint(self) -> float:
        """Opacity of a bar's fill."""
        return TINTS[self.index // len(SERIES) % len(TINTS)]

    def tag(self, *artists) -> None:
        """Mark artists as belonging to this configuration, for the script of the page."""
        for artist in artists:
            artist.set_gid(f"s{self.index}-{id(artist)}")

    def line(self) -> dict:
        """Keyword arguments of a line."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}

    def points(self) -> dict:
        """Keyword arguments of points, with an edge that separates them where they overlap."""
        return {"marker": self.marker, "markeredgecolor": SURFACE[0], "markeredgewidth": 0.8}


def drawn(plot, *arguments):
    """Call `plot(*arguments)` in the report's style, not the user's."""
    import matplotlib.style

    with warnings.catch_warnings(), matplotlib.style.context(["default", RC]):
        warnings.simplefilter("ignore")  # about glyphs missing from matplotlib's font; the page uses another font
        return plot(*arguments)


def new_figure(height: float, rows: int = 1, columns: int = 1, **keywords):
    """A figure as wide as half a large page or the whole of a small one, and its axes as a list."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=72, layout="constrained")  # 72: a pixel is a point
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, hspace=0.06, wspace=0.04)
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, list(axes.flat)


def to_svg(figure, prefix: str, title: str) -> str:
    """The figure as an <svg> element whose ids begin with `prefix` and whose colours follow the page's scheme."""
    buffer, names = io.StringIO(), {}  # new ids in order of appearance: matplotlib's contain memory addresses
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)

    def renamed(match):
        kind = re.match(r"(s\d+|label)-", match[2])
        name = names.setdefault(match[2], f"{prefix}-{kind[0] if kind else ''}{len(names)}")
        return f"{match[1]}{name}{match[3]}"

    def own(tag):
        text = re.sub(r"""( id="|url\(#|xlink:href="#)([^")]+)([")])""", renamed, tag[0])
        for name, (light, _) in VARIABLES.items():  # outside the page the light scheme applies
            text = text.replace(light, f"var({name}, {light})")
        return text

    svg = re.sub(r"<[^>]*>", own, svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between `low` and `high` for a log axis, about two to ten of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, math.ceil((last - first) / 10) or 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            break
    return ticks


def short_number(value: float) -> str:
    """Abbreviate a number: 1500 as 1.5k, 2000000 as 2M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def set_ticks(axis, ticks: list[float], labels: list[str]) -> None:
    """Set these ticks and remove all others."""
    axis.set_ticks(ticks, labels)
    axis.set_ticks([], minor=True)


def shortened(name: str, length: int = 34) -> str:
    """Shorten a long name by leaving out its middle."""
    return name if len(name) <= length else f"{name[: length - 13]}…{name[-12:]}"


def log_if_wide(axes, low: float, high: float) -> None:
    """Make the upright axis logarithmic if its values span more than a factor of 20."""
    if low > 0 and high / low > 20:
        axes.set_yscale("log")
        ticks = log_ticks(*axes.get_ylim())
        set_ticks(axes.yaxis, ticks, [f"{tick:g}" for tick in ticks])


def place_labels(axes, labels: list[tuple], obstacles: list[tuple]) -> bool:
    """Write labels beside their points without overlap; one that does not fit is replaced by its fallback or left out.

    labels: (x, y, text, fallback, weight) of each label.
    obstacles: boxes (x0, y0, x1, y1) to avoid, in pixels of the current layout.

    Returns True if every text was placed in full.
    """
    from matplotlib.transforms import IdentityTransform

    taken, bounds, written = list(obstacles), axes.get_window_extent(), 0
    for number, (x, y, text, fallback, weight) in enumerate(labels):
        at = axes.transData.transform((x, y))
        for words in (text, fallback):
            label = axes.text(
                0, 0, words, transform=IdentityTransform(), fontsize=SMALL, fontweight=weight, va="bottom"
            )
            extent = label.get_window_extent()
            box = free_box(at, extent.width, extent.height, taken, bounds)
            if box:
                taken.append(box)
                label.set_position(box[:2])
                label.set_gid(f"label-{number}")
                written += words == text
                break
            label.remove()
    return written == len(labels)


def free_box(at, width: float, height: float, taken: list[tuple], bounds) -> tuple | None:
    """The first free box of this size around a point, or None."""
    for gap in (8, 12):
        for right, up in ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1)):
            x0 = at[0] + (gap if right > 0 else -width / 2 if right == 0 else -gap - width)
            y0 = at[1] + (gap * 0.6 if up > 0 else -height / 2 if up == 0 else -gap * 0.6 - height)
            box = (x0, y0, x0 + width, y0 + height)
            inside = bounds.x0 <= box[0] and box[2] <= bounds.x1 and bounds.y0 <= box[1] and box[3] <= bounds.y1
            if inside and not any(overlap(box, other) for other in taken):
                return box
    return None


def overlap(a: tuple, b: tuple) -> bool:
    """True if two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
