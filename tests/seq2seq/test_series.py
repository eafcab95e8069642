"""Several seeds and several numbers of training rows in one command."""

import json
from math import isnan
from statistics import mean, stdev

import pytest

from common.ownership import Ownership
from seq2seq import series
from seq2seq.series import statistics
from tests.conftest import TINY_RUN

CONFIG = "configs/tt_adapter.json"
SERIES = {**TINY_RUN, "max_train_samples": None, "low_resource": [16, 32], "seeds": [1, 2], "num_train_epochs": 1}


@pytest.fixture
def counted_runs(monkeypatch):
    """The output directories of the runs that really run."""
    ran, run = [], series.run

    def counting(settings):
        ran.append(settings.training.output_dir)
        return run(settings)

    monkeypatch.setattr(series, "run", counting)
    return ran


def test_every_size_runs_with_every_seed_and_the_rest_is_kept(run_main, counted_runs, tmp_path):
    status, errors, out = run_main(CONFIG, **SERIES)
    assert status == 0, errors
    names = ["rows_16/seed_1", "rows_16/seed_2", "rows_32/seed_1", "rows_32/seed_2"]
    assert counted_runs == [str(out / name) for name in names]
    runs = [json.loads((out / name / "results.json").read_text()) for name in names]
    assert [(run["low_resource"], run["seed"]) for run in runs] == [(16, 1), (16, 2), (32, 1), (32, 2)]
    assert all(run["splits"]["test"]["tasks"]["vader-amazon"]["rows"] == 16 for run in runs)
    resolved = json.loads((out / "rows_16/seed_1/resolved_config.json").read_text())
    assert (resolved["seeds"], resolved["low_resource"], resolved["seed"]) == (None, 16, 1)

    series = json.loads((out / "series.json").read_text())
    row = next(r for r in series["scores"] if (r["low_resource"], r["split"], r["metric"]) == (32, "test", "loss"))
    of_seeds = [run["splits"]["test"]["tasks"]["vader-amazon"]["scores"]["loss"] for run in runs[2:]]
    assert row["mean"] == pytest.approx(mean(of_seeds))
    assert row["deviation"] == pytest.approx(stdev(of_seeds))
    assert row["runs"] == 2

    # Another seed: what is finished is not run again. A run that is lost is.
    (out / "rows_16/seed_2/results.json").unlink()
    counted_runs.clear()
    status, errors, _ = run_main(CONFIG, **{**SERIES, "low_resource": [16], "seeds": [1, 2, 3]})
    assert status == 0, errors
    assert counted_runs == [str(out / "rows_16/seed_2"), str(out / "rows_16/seed_3")]
    # Another configuration: all of it is.
    counted_runs.clear()
    keys = {**SERIES, "low_resource": 16, "seeds": [1], "tt_rank": 1, "output_dir": str(tmp_path / "out/rows_16")}
    assert run_main(CONFIG, **keys)[0] == 0
    assert counted_runs == [str(out / "rows_16/seed_1")]


def test_a_second_series_in_the_directory_is_refused(run_main, tmp_path):
    (tmp_path / "out").mkdir()
    with Ownership(tmp_path / "out"):
        status, errors, _ = run_main(CONFIG, **SERIES)
    assert (status, len(errors)) == (2, 1)
    assert "to which another run is writing" in errors[0]
    assert not list((tmp_path / "out").iterdir())


def test_a_score_that_is_no_number_leaves_the_mean_open():
    def result(loss):
        return {"low_resource": None, "splits": {"test": {"tasks": {"t": {"scores": {"loss": loss, "f1": 50.0}}}}}}

    loss, f1 = statistics([result(1.0), result(None), result(float("nan"))])
    assert isnan(loss["mean"])
    assert loss["deviation"] is None
    assert (f1["mean"], f1["deviation"]) == (50.0, 0.0)


def test_a_changed_file_runs_again_and_a_run_is_not_a_series(run_main, counted_runs, tmp_path):
    rows = "".join(f"film {n},{n % 2}\n" for n in range(60))
    file = tmp_path / "own.csv"
    file.write_text("text,label\n" + rows)
    own = {"task_name": "file", "train_file": str(file), "source_template": "{text}", "labels": ["0", "1"]}
    keys = {**TINY_RUN, **own, "seeds": [1]}
    for expected in (1, 1, 2):
        if expected == 2:
            file.write_text("text,label\n" + rows.replace("film", "book"))
        status, errors, out = run_main(CONFIG, **keys)
        assert status == 0, errors
        assert len(counted_runs) == expected
    status, errors, _ = run_main(CONFIG, **keys, output_dir=str(out / "seed_1"))
    assert (status, len(errors)) == (2, 1)
    assert "which holds a single run" in errors[0]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    single = {name: value for name, value in keys.items() if name != "seeds"}
    status, errors, _ = run_main(CONFIG, **single, experiment_name="another", overwrite_output_dir=True)
    assert (status, len(errors)) == (2, 1)
    assert "holds a series of runs" in errors[0]
    status, errors, _ = run_main(CONFIG, **{**keys, "seeds": [2]}, experiment_name="another")
    assert (status, len(errors)) == (2, 1)
    assert "holds the series 'tt_adapter', not 'another'" in errors[0]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_statistics_by_hand():
    def result(size, score):
        tasks = {"a": {"scores": {"accuracy": score}}, "b": {"scores": {"f1": 50.0}}}
        splits = {"test": {"tasks": tasks, "average_metrics": (score + 50) / 2}}
        return {"low_resource": size, "splits": splits}

    rows = statistics([result(None, 60.0), result(None, 70.0), result(100, 40.0)])
    by_name = {(row["low_resource"], row["task"], row["metric"]): row for row in rows}
    assert by_name[None, "a", "accuracy"]["mean"] == 65
    assert by_name[None, "a", "accuracy"]["deviation"] == pytest.approx(50**0.5)
    assert by_name[None, "average", "average_metrics"]["mean"] == 57.5
    assert by_name[100, "a", "accuracy"]["deviation"] is None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"seeds": []}, "seeds is []"),
        ({"seeds": [1, 1]}, "seeds is [1, 1]"),
        ({"seeds": [-1]}, "seeds contains -1"),
        ({"low_resource": [16, 0]}, "low_resource contains 0"),
        ({"low_resource": 0}, "low_resource is 0"),
        ({"low_resource": 100_000}, "low_resource is 100000; vader-amazon has 2596 training rows"),
        ({"low_resource": [8, 100_000]}, "low_resource is 100000"),  # before the first of them is run
        ({"low_resource": 100, "max_train_samples": 50}, "max_train_samples"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_lists_that_are_no_use(run_main, keys, words):
    given = {**TINY_RUN, "max_train_samples": None, **keys}
    status, errors, out = run_main(CONFIG, **given)
    assert (status, len(errors)) == (2, 1), errors
    assert words in errors[0]
    assert not out.exists()
