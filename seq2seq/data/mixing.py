"""The order in which the rows of one or several tasks are trained on.

Mixing: Raffel et al. 2020, section 3.5.2, https://arxiv.org/abs/1910.10683.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

POOL = 50  # number of steps whose rows are sorted by length together


def task_rates(sizes: Sequence[int], mixing: str, limit: int | None, temperature: float) -> np.ndarray:
    """Return the sampling rate of each task; the rates sum to 1.

    mixing: "proportional" to min(size, limit) ** (1 / temperature), "equal" for all tasks, or "all": by size.
    """
    weights = np.array(sizes, dtype=float)
    if mixing == "equal":
        weights = np.ones(len(sizes))
    elif mixing == "proportional":
        logs = np.log(np.minimum(weights, np.inf if limit is None else limit)) / temperature
        weights = np.exp(logs - logs.max())  # a low temperature would overflow otherwise
    return weights / weights.sum()


def systematic_counts(shares: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Return the counts of `total` draws with probabilities `shares`, by systematic sampling.

    Each count is its expectation rounded up or down at random, and the counts sum to `total`.
    """
    points = (np.arange(total) + rng.random()) / total
    edges = np.cumsum(shares)
    return np.bincount(np.minimum(np.searchsorted(edges, points, side="right"), len(shares) - 1), minlength=len(shares))


class TaskSampler(Sampler[int]):
    """Yields the row numbers of an epoch; the rows of the tasks lie one after the other in one data set.

    The sequence depends on seed and epoch alone, so every process sees the same one and a resumed run continues it.
    An epoch has each row once if there is one task or mixing is "all", else as many rows as all tasks have up to the
    limit. Where each step has rows of one task, a task's last step is filled up with more of its rows.

    sizes: number of rows of each task.
    step_rows: number of rows in one optimizer step of all processes together.
    lengths: number of tokens of each row, to group rows by length; None: they are not grouped.
    mixing, limit, temperature: as for `task_rates`.
    mixed: True if a step may have rows of several tasks.
    shuffled: False to keep the rows in order.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        step_rows: int,
        *,
        lengths: np.ndarray | None = None,
        mixing: str = "all",
        limit: int | None = None,
        temperature: float = 1.0,
        mixed: bool = False,
        shuffled: bool = True,
        seed: int = 0,
    ):
        self.sizes, self.step_rows, self.lengths = tuple(sizes), step_rows, lengths
        self.whole = len(sizes) == 1 or mixing == "all"
        self.rates = task_rates(sizes, mixing, limit, temperature)
        self.by_task = len(sizes) > 1 and not mixed
        self.shuffled, self.seed, self.epoch = shuffled, seed, 0
        capped = sizes if self.whole or limit is None else [min(size, limit) for size in sizes]
        self.rows = sum(-(-size // step_rows) * step_rows for size in sizes) if self.by_task and self.whole else 0
        self.rows = self.rows or (-(-sum(capped) // step_rows) * step_rows if self.by_task else sum(capped))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        drawn = [self._draw(task, count, rng) for task, count in enumerate(self._counts(rng)) if count]
        groups = drawn if self.by_task else [np.concatenate(drawn)]
        if self.shuffled and not self.by_task:
            groups = [rng.permutation(groups[0])]
        steps = [step for rows in groups for step in self._steps(rows)]
        return iter(np.concatenate(self._ordered(steps, rng)).tolist())

    def _counts(self, rng: np.random.Generator) -> np.ndarray:
        """Return the number of rows of each task in this epoch."""
        if not self.by_task:
            return np.array(self.sizes) if self.whole else systematic_counts(self.rates, self.rows, rng)
        if self.whole:
            return -(-np.array(self.sizes) // self.step_rows) * self.step_rows
        return systematic_counts(self.rates, self.rows // self.step_rows, rng) * self.step_rows

    def _draw(self, task: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return `count` rows of a task, each once before any comes twice."""
        size = self.sizes[task]
        passes = [rng.permutation(size) if self.shuffled else np.arange(size) for _ in range(-(-count // size))]
        return np.concatenate(passes)[:count] + sum(self.sizes[:task])

    def _steps(self, rows: np.ndarray) -> list[np.ndarray]:
        """Cut rows into steps; with lengths, the rows of a step have similar lengths, the longest first."""
        if self.lengths is not None:
            pool = POOL * self.step_rows
            pools = [rows[start : start + pool] for start in range(0, len(rows), pool)]
            rows = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in pools])
        return [rows[start : start + self.step_rows] for start in range(0, len(rows), self.step_rows)]

    def _ordered(self, steps: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """Shuffle the steps; an incomplete step stays last.

        With lengths, the step with the longest row comes first, so that a lack of memory shows at once.
        """
        if not self.shuffled:
            return steps
        full = [step for step in steps if len(step) == self.step_rows]
        order = rng.permutation(len(full)).tolist()
        if self.lengths is not None and full:
            longest = max(range(len(full)), key=lambda number: self.lengths[full[number]].max())
            order.remove(longest)
            order.insert(0, longest)
        return [full[number] for number in order] + [step for step in steps if len(step) < self.step_rows]
