"""The tables of a comparison, as printed on the terminal."""

from expressivity.results import ComparisonResult
from expressivity.verdict import FAMILIES, STATISTICS


def tables_of(result: ComparisonResult) -> dict[str, list[dict]]:
    """Titles and rows: for each statistic the errors with the verdict, and what the fits explain of them."""
    found = {}
    for statistic in STATISTICS:
        rows = [row for row in result.rows() if row["statistic"] == statistic]
        title = f"relative error, {statistic} over {result.settings['sub_iterations']} restarts"
        found[title] = [_verdict(row, result.names) for row in rows]
        found[f"what the fits explain of it, {statistic}"] = [_checks(row) for row in rows]
    return found


def _verdict(row: dict, names: dict[str, str]) -> dict:
    shown = {"size": row["size"]}
    shown |= {f"measure {role}": f"{row[f'measure_{role}']:g}" for role in names}
    shown |= {"targets": row["targets"]}
    shown |= {f"{role}: {names[role]}": _interval(row, f"error_{role}") for role in FAMILIES}
    winner = row["winner"] if names["A"] == names["B"] else names.get(row["winner"], row["winner"])
    return shown | {"A - B": _interval(row, "difference"), "winner": winner}


def _checks(row: dict) -> dict:
    """The checks of both families.

    An error at half the budget is not known for routines of the user's own, and what another optimiser gains only for a
    family that would lose without it.
    """
    shown = {"size": row["size"], "lr A, B": _pair(row, "lr")}
    shown |= {"floor A, B": _pair(row, "floor"), "half budget A, B": _pair(row, "half_budget")}
    shown |= {"gain of polish A, B": _pair(row, "gain_of_polish")}
    shown |= {"gain of lr A, B": _pair(row, "gain_of_lr"), "explained A, B": _pair(row, "slack")}
    if any(row[f"optimum_{family}"] is not None for family in FAMILIES):
        shown |= {"optimum A, B": _pair(row, "optimum"), "gap A, B": _pair(row, "gap")}
    shares = ", ".join(f"{row[f'share_at_1_{family}']:.0%}" for family in FAMILIES)
    return shown | {"1 or worse A, B": shares, "diverged A, B": ", ".join(str(row[f"diverged_{f}"]) for f in FAMILIES)}


def _interval(row: dict, name: str) -> str:
    return f"{row[name]:.4g} [{row[f'{name}_low']:.4g}, {row[f'{name}_high']:.4g}]"


def _pair(row: dict, name: str) -> str:
    values = (row[f"{name}_{family}"] for family in FAMILIES)
    return ", ".join("-" if value is None else f"{value:.3g}" for value in values)
