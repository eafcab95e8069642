"""The order of training rows, against what each setting promises."""

from collections import Counter

import numpy as np
import pytest

from seq2seq.data.mixing import TaskSampler, systematic_counts, task_rates

SIZES = (700, 90, 33)


def epoch(sampler: TaskSampler, number: int = 0) -> list[int]:
    sampler.set_epoch(number)
    rows = list(sampler)
    assert len(rows) == len(sampler)
    return rows


def task_of(row: int, sizes=SIZES) -> int:
    return int(np.searchsorted(np.cumsum(sizes), row, side="right"))


def steps(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def test_rates_by_hand():
    assert task_rates((100, 300), "proportional", None, 1.0) == pytest.approx([0.25, 0.75])
    assert task_rates((100, 300), "proportional", 200, 1.0) == pytest.approx([1 / 3, 2 / 3])
    assert task_rates((100, 400), "proportional", None, 2.0) == pytest.approx([1 / 3, 2 / 3])
    assert task_rates((100, 300), "proportional", None, 1e-3) == pytest.approx([0, 1])
    assert task_rates((100, 300), "equal", None, 1.0) == pytest.approx([0.5, 0.5])


def test_counts_are_the_expectation_rounded_by_chance():
    shares, rng = np.array([0.617, 0.3, 0.083]), np.random.default_rng(0)
    counts = np.array([systematic_counts(shares, 10, rng) for _ in range(4000)])
    assert (counts.sum(1) == 10).all()
    assert (np.abs(counts - 10 * shares) < 1).all()
    assert counts.mean(0) == pytest.approx(10 * shares, abs=0.03)


def test_one_task_has_each_row_once_in_another_order_each_epoch():
    sampler = TaskSampler([103], 8, seed=1)
    first, second = epoch(sampler), epoch(sampler, 1)
    assert sorted(first) == sorted(second) == list(range(103))
    assert first != second
    assert first == epoch(TaskSampler([103], 8, seed=1))
    assert first != epoch(TaskSampler([103], 8, seed=2))
    assert epoch(TaskSampler([103], 8, shuffled=False)) == list(range(103))


@pytest.mark.parametrize("mixing", ["proportional", "equal", "all"])
def test_a_step_is_of_one_task_unless_mixed(mixing):
    rows = epoch(TaskSampler(SIZES, 16, mixing=mixing))
    assert all(len(step) == 16 and len(set(map(task_of, step))) == 1 for step in steps(rows, 16))
    mixed = epoch(TaskSampler(SIZES, 16, mixing=mixing, mixed=True))
    assert max(len(set(map(task_of, step))) for step in steps(mixed, 16)) > 1


def test_all_has_each_row_once_and_fills_last_steps_with_the_same_task():
    rows = Counter(epoch(TaskSampler(SIZES, 16, mixing="all")))
    assert set(rows) == set(range(sum(SIZES)))
    assert sum(rows.values()) == sum(-(-size // 16) * 16 for size in SIZES)
    assert max(rows.values()) <= 2
    assert sorted(epoch(TaskSampler(SIZES, 16, mixing="all", mixed=True))) == list(range(sum(SIZES)))


@pytest.mark.parametrize("mixed", [False, True])
def test_tasks_come_at_their_rates(mixed):
    sampler = TaskSampler(SIZES, 8, mixing="proportional", limit=200, temperature=2.0, mixed=mixed)
    expected = task_rates(SIZES, "proportional", 200, 2.0)
    assert len(sampler) == pytest.approx(200 + 90 + 33, abs=8)
    seen = Counter(task_of(row) for number in range(60) for row in epoch(sampler, number))
    assert [seen[task] / seen.total() for task in range(3)] == pytest.approx(expected, abs=0.01)
    # The small task comes around several times, each row before any comes again.
    smallest = Counter(row for row in epoch(sampler) if task_of(row) == 2)
    assert max(smallest.values()) - min(smallest.values()) <= 1


@pytest.mark.parametrize("arguments", [{}, {"mixing": "proportional", "temperature": 3.0}, {"mixed": True}])
def test_rows_of_a_step_are_of_similar_length_and_the_longest_come_first(arguments):
    lengths = np.random.default_rng(0).integers(3, 100, sum(SIZES))
    grouped = steps(epoch(TaskSampler(SIZES, 8, lengths=lengths, **arguments)), 8)
    plain = steps(epoch(TaskSampler(SIZES, 8, **arguments)), 8)
    padding = [sum((lengths[step].max() - lengths[step]).sum() for step in each) for each in (grouped, plain)]
    assert padding[0] < 0.25 * padding[1]
    drawn = [row for step in grouped for row in step]
    assert lengths[grouped[0]].max() == lengths[drawn].max()
    assert [lengths[step].max() for step in grouped] != sorted((lengths[step].max() for step in grouped), reverse=True)


def test_every_process_count_cuts_the_same_steps():
    """Two processes with batches of 4, or one with 8: batch k of process p is rows [(2 k + p) * 4 ..]."""
    one = TaskSampler(SIZES, 8, mixing="equal", seed=3)
    assert steps(epoch(one, 5), 8) == [a + b for a, b in zip(*[iter(steps(epoch(one, 5), 4))] * 2, strict=True)]
