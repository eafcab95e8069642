"""Style of a report's page, and the script that sorts its table and highlights a configuration in its plots."""

from seq2seq.comparison.plots.drawing import VARIABLES, Style

SHAPES = {
    "o": '<circle cx="14" cy="6" r="3.6"/>',
    "s": '<path d="M10.6 2.6h6.8v6.8h-6.8z"/>',
    "^": '<path d="M14 1.8l4.2 7.8h-8.4z"/>',
    "D": '<path d="M14 1.2l4.8 4.8l-4.8 4.8l-4.8-4.8z"/>',
    "v": '<path d="M14 10.2l4.2-7.8h-8.4z"/>',
}


def legend_mark(index: int) -> str:
    """Legend mark of a configuration: a short line with its marker."""
    style = Style(index)
    dashes = f' stroke-dasharray="{" ".join(f"{1.6 * dash:g}" for dash in style.dashes)}"' if style.dashes else ""
    return (
        f'<svg class="mark" viewBox="0 0 28 12" aria-hidden="true" style="color:var(--c{style.hue})">'
        f'<path d="M0 6h28" stroke="currentColor" stroke-width="2"{dashes}/>'
        f'<g fill="currentColor" stroke="var(--surface)" stroke-width="1">{SHAPES[style.marker]}</g></svg>'
    )


def variables(scheme: int) -> str:
    """CSS variables of the colours in the light (0) or dark (1) scheme."""
    return "".join(f"{name}:{colours[scheme]};" for name, colours in VARIABLES.items())


STYLE = (
    f"\n:root{{color-scheme:light dark;{variables(0)}}}"
    f"\n@media (prefers-color-scheme:dark){{:root{{{variables(1)}}}}}"
    """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:40px 24px 72px;background:var(--surface);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans","Liberation Sans",sans-serif}
h1{font-size:1.75rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .5rem}
h2{font-size:1.3rem;margin:3.5rem 0 .5rem;overflow-wrap:anywhere;padding-top:1.25rem;border-top:1px solid var(--grid)}
h3{font-size:1.05rem;margin:0 0 .5rem}
.summary{font-size:1.05rem;max-width:46em;margin:0 0 1.75rem;overflow-wrap:anywhere}
.table{overflow:auto;max-height:78vh;border:1px solid var(--grid);border-radius:8px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.8rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .55rem;text-align:left;border-bottom:1px solid var(--grid);white-space:nowrap;font-weight:400}
tbody tr:last-child>*{border-bottom:0}
tbody th,tfoot td:first-child,thead th:first-child{position:sticky;left:0;background:var(--surface)}
thead th:first-child{z-index:2}
tbody th{white-space:normal}
.name>span{width:max-content;max-width:20em;overflow-wrap:break-word}
.n{text-align:right}
thead th{position:sticky;top:0;background:var(--surface);padding:0;vertical-align:bottom;z-index:1}
thead button{all:unset;box-sizing:border-box;width:100%;padding:.5rem .55rem;cursor:pointer;color:var(--muted);
font-weight:600;white-space:normal}
thead button:focus-visible{outline:2px solid var(--c0);outline-offset:-2px}
th[aria-sort] button{color:var(--ink)}
th[aria-sort=ascending] button::after{content:" ↑"}
th[aria-sort=descending] button::after{content:" ↓"}
.table tbody tr:hover>*,tbody tr.on>*{background:var(--grid)}
tfoot td{position:sticky;bottom:0;background:var(--surface);color:var(--muted);border-top:1px solid var(--grid);
border-bottom:0}
.name{display:flex;gap:.6em;align-items:baseline}
details{margin:.75rem 0 0;font-size:.84rem}
details>summary{cursor:pointer;overflow-wrap:anywhere}
details .table{margin-top:.5rem}
.note,figcaption{color:var(--muted);font-size:.84rem;max-width:62em;margin:.5rem 0 0}
.figures{columns:2 30rem;column-gap:2.5rem}
figure{margin:0;padding:2.25rem 0 0;max-width:640px;break-inside:avoid}
figcaption{overflow-wrap:anywhere}
.mark{width:28px;height:12px;flex:none}
.legend{display:grid;grid-template-columns:repeat(auto-fill,minmax(14em,1fr));gap:.1rem 1.25rem;list-style:none;
margin:.5rem 0 0;padding:0;max-height:15em;overflow-y:auto;font-size:.84rem;line-height:1.4}
.legend li{display:flex;gap:.5em;align-items:baseline;border-radius:4px;padding:.05rem 0}
.legend li span{min-width:0;overflow-wrap:anywhere}
.legend i{font-style:normal;color:var(--muted);font-variant-numeric:tabular-nums}
.plot{overflow-x:auto}
.plot>svg{display:block;width:100%;min-width:430px;height:auto}
.plot svg *{stroke-linejoin:round;stroke-linecap:butt}
.plot text{font-family:inherit!important}
.plot g[id*="-label-"] text{paint-order:stroke;stroke:var(--surface);stroke-width:2.5px}
.plot g[id*="-s"]{transition:opacity .12s}
.plot g.off{opacity:.1!important}
.confusion{width:auto;font-size:.75rem}
.confusion th,.confusion td{padding:.25rem .3rem;border:0;overflow-wrap:break-word}
.confusion thead th{position:static;vertical-align:bottom;color:var(--muted)}
.confusion thead span{display:inline-block;writing-mode:vertical-rl;transform:rotate(180deg);
max-height:11em;text-align:left;overflow-wrap:anywhere}
.confusion tbody th{position:sticky;left:0;min-width:7em;max-width:11em;background:var(--surface);
text-align:right;color:var(--muted);white-space:normal}
.confusion tbody td{min-width:2rem;padding:.25rem .1rem;text-align:center;border:1px solid var(--surface);
background:color-mix(in srgb,var(--c0) var(--share),var(--grid))}
.confusion td.strong{color:var(--surface)}
.confusion td.zero{color:var(--muted)}
@media (max-width:640px){body{padding:24px 16px 48px}h1{font-size:1.4rem}.legend{grid-template-columns:1fr}
.name>span{max-width:9em}}
@media print{.table{max-height:none;overflow:visible}figure{break-inside:avoid}}
"""
)

SCRIPT = """
for (const table of document.querySelectorAll(".table table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const number = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : !number;
    const key = (row) => {
      const cell = row.cells[column], value = cell.dataset.v;
      return number ? {inf: Infinity, nan: NaN}[value] ?? Number(value) : cell.textContent.toLowerCase();
    };
    const compare = (a, b) => number
      ? isNaN(a) - isNaN(b) || (up ? a - b : b - a) || 0
      : (up ? 1 : -1) * a.localeCompare(b, undefined, {numeric: true});
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  }));
}
for (const item of document.querySelectorAll("[data-s]")) {
  const section = item.closest("section"), own = `-s${item.dataset.s}-`;
  const point = (on) => {
    for (const mark of section.querySelectorAll('.plot g[id*="-s"]')) {
      mark.classList.toggle("off", on && !mark.id.includes(own));
    }
    for (const row of section.querySelectorAll(`tr[data-s="${item.dataset.s}"]`)) row.classList.toggle("on", on);
  };
  item.addEventListener("mouseenter", () => point(true));
  item.addEventListener("mouseleave", () => point(false));
}
"""
