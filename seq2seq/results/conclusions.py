"""What the table says, in sentences that are made of it."""

import math
from collections import Counter
from numbers import Real

from seq2seq.comparison.words import count
from seq2seq.results.comparisons import Difference, at_equal_size, behind, best_rows, frontier, missed, useful
from seq2seq.results.measured import Measured, Row
from seq2seq.results.statistics import Estimate


def conclusions(measured: Measured) -> list[str]:
    """What an honest researcher concludes."""
    compare, lines = measured.sweep.get("compare") or {}, []
    for words, part in measured.parts.items():
        found = [best(part), on_frontier(part), *(group_on_frontier(part, group) for group in compare)]
        lines += [f"With {words}: {line}" if words else line for line in found if line]
    lines += [against(measured, group, other) for group, others in compare.items() for other in others]
    return lines


def best(measured: Measured) -> str:
    """The row with the highest mean, and those that may be the best."""
    top, *rest = sorted(measured.rows, key=lambda row: -row.average.mean)
    equal = [top, *(row for row in rest if row.average.mean == top.average.mean)]
    names = " and ".join(f"{row.name} ({row.trainable:,} parameters)" for row in equal)
    line = f"{names} {'scores' if len(equal) == 1 else 'score'} highest, {interval(top.average)}"
    if not rest:
        return f"{line}."
    if len(measured.seeds) == 1:
        return f"{line}; with one seed nothing says whether the others are worse."
    if top.average.mean < top.most_frequent:
        line += f", below always giving the most frequent answer ({top.most_frequent:.2f})"
    possible = best_rows(measured)
    if possible == [top]:
        return f"{line}. With 95% confidence it is the best of the {len(measured.rows)} rows."
    if len(possible) == len(measured.rows):
        return f"{line}. The seeds tell none of the {len(possible)} rows apart from the best."
    names = "; ".join(row.name for row in possible)
    return f"{line}. With 95% confidence the best is one of {len(possible)} of the {len(measured.rows)} rows: {names}."


def on_frontier(measured: Measured) -> str:
    """The frontier of score against parameters."""
    front = frontier(measured.rows)
    worse = behind(measured)
    if not front:
        return ""
    listed = ", ".join(f"{row.name} ({row.trainable:,}: {row.average.mean:.2f})" for row in front)
    if len(measured.seeds) == 1:
        return f"The frontier by scores: {listed}. With one seed nothing says which other rows are behind it."
    line, tested = (
        f"The frontier by mean scores: {listed}",
        f"the {count(len(useful(measured.rows)), 'row')} of T5 above",
    )
    if not worse:
        return f"{line}. The seeds show none of {tested} the majority class to be behind it."
    return (
        f"{line}. Behind it are {len(worse)} of {tested} the majority class: a row with no more parameters scores "
        "higher, by more than the seeds explain. The others may be on it."
    )


def group_on_frontier(measured: Measured, group: str) -> str:
    """Whether a group is on the frontier, and by what."""
    members = measured.of(group)
    front = [row.name for row in frontier(measured.rows) if row.group == group]
    worse = behind(measured)
    possible = [row for row in useful(members) if row.name not in worse]
    if not members or not frontier(measured.rows):
        return ""
    if not possible:
        return f"No row of {group} is on the frontier: each is behind it, or below the majority class by mean scores."
    named = f"On the frontier by mean scores: {', '.join(front)}" if front else "None is on the frontier by mean scores"
    return f"{len(possible)} of {count(len(members), 'row')} of {group} may be on the frontier. {named}."


def against(measured: Measured, group: str, other: str) -> str:
    """How the rows of a group compare with those of another at equal parameters."""
    found, alone = at_equal_size(measured, group, other)
    if not found:
        return f"No row of {group} has a partner of its size in {other} with seeds in common."
    counts = Counter(difference.verdict for difference in found)
    line = (
        f"{group} against {other} at equal parameters: {counts['better']} better, {counts['worse']} worse, "
        f"{counts['undecided']} undecided"
    )
    decided = [sentence(difference) for difference in found if difference.decided]
    lines = f"{line}{': ' + '; '.join(decided) if decided else ''}."
    if alone:
        lines += f" Without a partner of their size: {', '.join(row.name for row in alone)}."
    return lines


def sentence(difference: Difference) -> str:
    by = difference.by
    return (
        f"{difference.row.name} against {difference.other.name} {by.mean:+.2f} [{by.low:+.2f}, {by.high:+.2f}], "
        f"p {shown_p(difference.p)}"
    )


def limits(measured: Measured) -> list[str]:
    """What the data cannot say."""
    at_edge, chosen = edges(measured)
    seeds, tasks, tested = len(measured.seeds), len(measured.tasks), min(measured.tested.values())
    lines = [
        f"{count(seeds, 'seed')}: an interval says how much the score of these tasks varies with the seed, "
        "and with it the training rows where they are sampled by seed. It does not cover other test rows: those are "
        f"the same for all. An accuracy of 80 on {tested:,} rows, the fewest of a task, could be "
        f"{100 * 1.96 * math.sqrt(0.8 * 0.2 / tested):.1f} points off on as many others; the difference of two "
        "configurations by less, as they answer the same questions.",
        f"{count(tasks, 'task')}: nothing is said of others, nor of another backbone, more rows or longer training.",
    ]
    if not math.isnan(missed(measured)):
        lines.append(
            "Not told apart is not equal: with these seeds and rows, a usual row is told apart from the best every "
            f"second time if it scores {missed(measured):.1f} of its half-intervals less."
        )
    if chosen:
        lines.append(
            f"Chosen values: {at_edge} of {chosen} lie at an end of what was tried, where a value beyond might be "
            "better; the choice itself is noisy, as it is made with one seed."
        )
    below = [row.name for row in measured.rows if row.average.mean < row.most_frequent]
    if below:
        lines.append(
            f"Below always giving the most frequent answer, by mean scores: {', '.join(below)}. An answer that is no "
            "label counts as wrong, as of a model that has not learned the words to answer with."
        )
    several = [row.name for row in measured.rows if len({record["trainable"] for record in row.records}) > 1]
    if several:
        lines.append(f"Of several sizes, by task or seed, shown at the largest: {', '.join(several)}.")
    if measured.partial:
        lines.append(f"Not complete, so with fewer seeds or left out: {', '.join(measured.partial)}.")
    if measured.missing:
        lines.append(f"Without a reported run yet, so not in the table: {', '.join(measured.missing)}.")
    if measured.failed:
        lines.append(f"Diverged, so that means are over the other runs: {'; '.join(measured.failed)}.")
    if len(measured.machines) > 1:
        lines.append(
            "More than one kind of machine, which round differently: "
            f"{'; '.join(f'{name} ({count} cells)' for name, count in measured.machines.items())}."
        )
    return lines


def edges(measured: Measured) -> tuple[int, int]:
    """How many of the chosen numbers are the smallest or the largest that was tried, and how many there are."""
    at_edge = chosen = 0
    for row in measured.rows:
        for task in row.choices:
            for name, value in row.chosen(task).items():
                if is_number(value):
                    chosen += 1
                    at_edge += is_at_edge(row, task, name)
    return at_edge, chosen


def is_at_edge(row: Row, task: str, name: str) -> bool:
    """True if the chosen number is the smallest or the largest of at least two that were tried."""
    tried = [record["chosen"].get(name) for record in row.choices.get(task, ())]
    numbers = [value for value in tried if is_number(value)]
    return len(set(numbers)) > 1 and row.chosen(task).get(name) in (min(numbers), max(numbers))


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def interval(score: Estimate) -> str:
    """A score with its interval: "81.20 ± 0.41"."""
    return f"{score.mean:.2f}" if score.half != score.half else f"{score.mean:.2f} ± {score.half:.2f}"


def shown_p(p: float) -> str:
    return "unknown" if p != p else "below 0.001" if p < 0.001 else f"{p:.3f}"
