"""Intervals and tests against scipy, and against what they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from seq2seq.results.comparisons import behind, best_rows, missed, outdone
from seq2seq.results.measured import Measured, Row
from seq2seq.results.statistics import estimate, holm, paired


def test_one_task_is_the_t_interval():
    values = [80.1, 81.4, 79.6]
    found = estimate({"a": values})
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert estimate({"a": [v - 80 for v in values]}).p == pytest.approx(stats.ttest_1samp(values, 80).pvalue)


def test_two_tasks_are_welch():
    """The difference of two means is twice the mean of one and the other's negative."""
    a, b = [1.0, 2.5, 3.1, 2.2], [4.0, 9.0, 7.0]
    found = estimate({"a": a, "b": [-x for x in b]})
    wanted = stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(wanted.pvalue)
    low, high = wanted.confidence_interval()
    assert (2 * found.low, 2 * found.high) == pytest.approx((low, high))


def test_coverage():
    """Of 4 tasks with 3 seeds, whose scatter differs, 95% of the intervals hold the mean."""
    generator, hits = np.random.default_rng(0), 0
    means, scales = np.array([80.0, 75, 90, 60]), np.array([0.3, 1, 0.5, 2])
    for _ in range(2000):
        draw = {str(t): means[t] + scales[t] * generator.normal(size=3) for t in range(4)}
        found = estimate(draw)
        hits += found.low <= means.mean() <= found.high
    assert 0.93 < hits / 2000 < 0.975


def test_paired_uses_the_shared_seeds_only():
    first = {"a": {1: 80.0, 2: 82.0, 3: 99.0}, "b": {1: 50.0}}
    second = {"a": {1: 79.0, 2: 80.0}}
    assert paired(first, second) == estimate({"a": [1.0, 2.0]})
    assert paired(first, {"c": {1: 1.0}}) is None


def test_no_spread_and_one_seed():
    """Nothing can be told of the scatter, so nothing is decided."""
    for values in ([1.0, 1.0], [0.1 + 0.2, 0.3], [1.0]):
        found = estimate({"a": values})
        assert found.mean == pytest.approx(values[0])
        assert math.isnan(found.p)
        assert math.isnan(found.half)
    assert math.isnan(estimate({}).mean)


@pytest.mark.parametrize(("seeds", "rows", "scatter"), [(2, 200, 0.7), (2, 500, 0.5), (3, 200, 0.7), (3, 100, 0.5)])
def test_scores_that_are_equal_by_chance_decide_nothing(seeds, rows, scatter):
    """Accuracies are multiples of a test row: without a difference, at most about 5% of the tests find one."""
    generator, step = np.random.default_rng(0), 100 / rows
    draws = np.round((80 + scatter * generator.normal(size=(2000, 2, seeds))) / step) * step
    ps = []
    for first, second in draws:
        scores = [{"a": dict(enumerate(each))} for each in (first, second)]
        ps.append(paired(*scores, {"a": step}).p)
    assert np.mean(np.array(ps) < 0.05) < 0.06
    assert np.nanmin(ps) > 1e-5


def test_holm():
    ps = [0.01, 0.04, 0.03, 0.005]
    assert holm(ps) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm 1979: sorted p times 4, 3, 2, 1, never falling
    assert holm([0.5, math.nan, 0.9])[0] == 1.0
    assert math.isnan(holm([0.5, math.nan])[1])


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0, 1.0), (0.5, 0.5, 0.5, 3.0)])
def test_the_best_is_kept(scales):
    """Of equal rows, on tasks that vary alike or not, each is one of the best in at least 95% of tables."""
    generator, kept, alarms = np.random.default_rng(3), 0, 0
    for _ in range(100):
        measured = table_of(70 + np.array(scales)[:, None] * generator.normal(size=(12, 4, 3)))
        kept += len(best_rows(measured))
        alarms += bool(behind(measured))
    assert kept / (100 * 12) > 0.95
    assert alarms / 100 < 0.08


def test_what_a_seed_does_to_all_rows_makes_no_alarm():
    """Their common effect cancels in differences, and says nothing of their degrees of freedom."""
    generator, alarms, scales = np.random.default_rng(5), 0, np.array([0.3, 0.3, 0.3, 2])[:, None]
    for _ in range(60):
        draws = 70 + scales * generator.normal(size=(10, 4, 3)) + 3 * generator.normal(size=(4, 3))
        alarms += bool(behind(table_of(draws)))
    assert alarms / 60 < 0.08


def test_only_the_seeds_of_both_rows_decide():
    """A row with more seeds, the others of which are easy, has the higher mean, and is worse."""
    generator = np.random.default_rng(6)
    easy = 70 + 0.2 * generator.normal(size=(2, 4, 5))
    easy[:, :, 3:] += 30
    easy[1] += 3
    measured = table_of(easy)
    for scores in measured.rows[1].scores.values():
        del scores[3], scores[4]
    assert measured.rows[0].average.mean > measured.rows[1].average.mean
    assert [row.name for row in best_rows(measured)] == ["1"]
    assert behind(measured) == {"0"}


def test_what_would_be_missed():
    """A difference as large as `missed` says is told about every second time, one of twice that nearly always."""
    generator = np.random.default_rng(4)
    for factor, low, high in ((1, 0.25, 0.75), (2, 0.9, 1.0)):
        found = 0
        for _ in range(40):
            draws = 70 + generator.normal(size=(8, 4, 5))
            measured = table_of(draws)
            draws[0] += factor * missed(measured) * np.mean([row.average.half for row in measured.rows])
            measured = table_of(draws)
            first, second, *rest = measured.rows
            found += bool(outdone(measured, [(second, other) for other in (first, *rest)]))
        assert low <= found / 40 <= high


def table_of(draws: np.ndarray) -> Measured:
    """A table of rows with as many parameters. draws: scores by row, task and seed."""
    tasks, seeds = [str(task) for task in range(draws.shape[1])], [*range(draws.shape[2])]
    rows = [
        Row(
            str(number), str(number), "others", {}, "LoRA", 1000, 10**6,
            scores={task: dict(enumerate(values)) for task, values in zip(tasks, each, strict=True)},
            majority=dict.fromkeys(tasks, 50.0),
            steps=dict.fromkeys(tasks, 0.01),
        )
        for number, each in enumerate(draws.tolist())
    ]  # fmt: skip
    return Measured("table", {}, rows, tasks, seeds, "test", [], [], [], {})


def test_holm_keeps_false_alarms_rare():
    """20 comparisons without a difference: in at most about 5% of the tables is any of them decided."""
    generator = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        ps = [estimate({str(t): generator.normal(size=3) for t in range(4)}).p for _ in range(20)]
        alarms += min(holm(ps)) < 0.05
    assert alarms / 400 < 0.09
