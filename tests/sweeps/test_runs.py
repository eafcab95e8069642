"""Cells that are run: their results, failures, and repetitions."""

import json

import pytest

from report import main as report
from run_seq2seq import main as run_one
from seq2seq.sweeps.records import Records, read_records
from tests.sweeps.small import CELLS, SWEEP, table_in

LORA = SWEEP["configurations"][1]


def test_a_cell_is_what_run_seq2seq_computes(reference, tmp_path):
    """Its resolved configuration, run by itself, gives the same scores."""
    _, records = read_records(reference / "cells.jsonl")
    record = [record for record in records if record["stage"] == "report"][-1]
    (directory,) = reference.rglob(f"*{record['cell']}")
    out = tmp_path / "alone"
    assert run_one([str(directory / "resolved_config.json"), "--output_dir", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    for split, scores in record["scores"].items():
        (task,) = results["splits"][split]["tasks"].values()
        assert {name: round(value, 4) for name, value in task["scores"].items()} == scores
    assert record["trainable"] == results["parameters"]["trainable"]
    assert (
        record["chosen"]["learning_rate"]
        == json.loads((directory / "resolved_config.json").read_text())["learning_rate"]
    )


def test_what_is_kept(reference, sweep, tmp_path):
    """Scores and logs; the model only if keep_models is set."""
    files = {path.name for path in reference.rglob("cells/**/*") if path.is_file()}
    assert not {name for name in files if name.endswith((".safetensors", ".bin"))}
    assert {"results.json", "resolved_config.json"} <= files
    status, _, _ = sweep(configurations=[LORA], seeds=[1], choose=None, keep_models=True)
    assert status == 0
    assert [*tmp_path.rglob("adapter_model.safetensors")]
    assert not [*tmp_path.rglob("checkpoint-*")]


def test_the_best_on_validation_is_reported(reference):
    sweep, records = read_records(reference / "cells.jsonl")
    assert sweep["choose"] == SWEEP["choose"]
    assert len(records) == CELLS
    for row in {record["row"] for record in records}:
        tried = [r for r in records if r["row"] == row and r["stage"] == "choose"]
        assert all("test" not in record["scores"] for record in tried)
        best = max(tried, key=lambda record: record["scores"]["validation"]["accuracy"])
        reported = [r for r in records if r["row"] == row and r["stage"] == "report"]
        assert [record["seed"] for record in reported] == [1, 2]
        assert all(record["chosen"] == best["chosen"] for record in reported)


def test_rows_are_reported_as_soon_as_they_are_chosen(reference):
    """With the first seed; an interrupted sweep has something to show."""
    _, records = read_records(reference / "cells.jsonl")
    begun = {
        (record["row"], record["stage"], record["seed"]): next(
            path.stat().st_mtime_ns for path in reference.rglob(f"*{record['cell']}/resolved_config.json")
        )
        for record in records
    }
    first, last = records[0]["row"], records[-1]["row"]
    assert begun[first, "report", 1] < begun[last, "choose", 1] < begun[first, "report", 2]


def test_cells_are_no_runs_of_their_own(reference, tmp_path, capsys):
    assert report([str(reference.parent), "--output_dir", str(tmp_path)]) == 2
    assert f"{CELLS} finished cells of sweeps are left out" in capsys.readouterr().err
    one = next(reference.glob("cells/*/*/report_seed_1_*/results.json")).parent
    assert report([str(one), "--output_dir", str(tmp_path)]) == 0


def test_verify(sweep, tmp_path, reference):
    (tmp_path / "out").mkdir()
    lines = (reference / "cells.jsonl").read_text().splitlines()
    (tmp_path / "out" / "cells.jsonl").write_text("\n".join(lines) + "\n")
    status, printed, _ = sweep("--verify", "2")
    assert status == 0
    assert [line.rpartition(": ")[2] for line in printed] == ["the same", "the same"]
    assert not (tmp_path / "out" / "verify").exists()
    changed = [line.replace('"loss":', '"loss":1') for line in lines]
    (tmp_path / "out" / "cells.jsonl").write_text("\n".join(changed) + "\n")
    status, _, errors = sweep("--verify", "1")
    assert status == 1
    assert "1 of 1 cells gave other results" in errors[-1]
    assert table_in(tmp_path / "out" / "cells.jsonl") == {
        json.loads(x)["cell"]: y for x, y in zip(changed[1:], map(without_time, changed[1:]), strict=True)
    }


def without_time(line: str) -> dict:
    return {k: v for k, v in json.loads(line).items() if k not in ("seconds", "cpu_seconds", "memory_mib")}


def test_a_failing_row_costs_itself_only(sweep, tmp_path):
    """A space of which no value works, and a row that diverges with every seed."""
    wrong = {"name": "wrong", "keys": {"use_LoRA": True, "low_resource": 100_000}}
    far = {
        "name": "far",
        "keys": {"use_LoRA": True, "learning_rate": 1e30, "warmup_steps": 0},
        "space": {"learning_rate": None},
    }
    choose = {**SWEEP["choose"], "keys": None}
    status, printed, errors = sweep(configurations=[LORA, wrong, far], choose=choose)
    assert status == 1
    assert any(line.startswith("failed with seed 1: wrong, vader-amazon: ") for line in printed)
    assert "not reported: wrong, vader-amazon: no value of the space has a score" in printed
    assert any(line.startswith("failed with every seed: far, vader-amazon: ") for line in printed)
    assert "4 cells have failed" in errors[-1]
    records = table_in(tmp_path / "out" / "cells.jsonl").values()
    assert sum("scores" in record for record in records) == 4
    assert sum("failed" in record for record in records) == 2
    status, printed, _ = sweep(configurations=[LORA, far], choose=choose)
    assert status == 1
    assert any(line.startswith("failed with every seed: far, vader-amazon: ") for line in printed)
    assert "6 of 6 cells are finished, 0 of them" in printed[-1]  # what diverged is not tried again


@pytest.mark.parametrize("tasks", [["vader-amazon"], [{"task_name": ["vader-amazon", "vader-tweets"]}]])
def test_baseline(sweep, tmp_path, tasks):
    from benchmarks.baselines import tf_idf

    keys = {"max_val_samples": None}
    status, _, _ = sweep(configurations=[{"baseline": "tf_idf"}], tasks=tasks, seeds=[1], choose=None, keys=keys)
    assert status == 0
    (record,) = table_in(tmp_path / "out" / "cells.jsonl").values()
    scores = record["scores"]["test"]
    for name in ("vader-amazon", "vader-tweets")[: 1 if len(scores) == 1 else 2]:
        key = "accuracy" if len(scores) == 1 else f"{name}/accuracy"
        assert scores[key] == pytest.approx(tf_idf(name), abs=1e-4)


@pytest.mark.slow
def test_several_processes(sweep, tmp_path):
    """A program that starts a run; here it starts one process."""
    import sys

    status, _, _ = sweep("--launch", sys.executable, configurations=[LORA], seeds=[1], choose=None)
    assert status == 0
    status, _, _ = sweep(configurations=[LORA], seeds=[1], choose=None, output_dir=str(tmp_path / "b"))
    tables = [table_in(tmp_path / place / "cells.jsonl").values() for place in ("out", "b")]
    (launched,), (alone,) = ([{**record, "cell": ""} for record in table] for table in tables)
    assert launched == alone
    status, printed, _ = sweep("--launch", "no-such-program", configurations=[LORA], seeds=[3], choose=None)
    assert status == 1
    assert any("no-such-program" in line for line in printed)


def test_dry_run(sweep, tmp_path, reference):
    status, printed, _ = sweep("--dry_run")
    assert status == 0
    assert not (tmp_path / "out").exists()
    assert any("LoRA" in line and "use_LoRA" in line for line in printed)
    assert "0 of 12 cells are finished" in printed
    assert "from timed steps on this machine" in printed[-1]
    status, printed, _ = sweep("--dry_run", "--records", str(reference / "cells.jsonl"))
    assert printed[-1] == "12 of 12 cells are finished"


def test_the_same_run_in_two_rows(sweep, tmp_path):
    """A row with a value and one that chooses it: the run is done once and stands in both."""
    fixed = {**LORA, "name": "fixed", "keys": {**LORA["keys"], "learning_rate": 0.01}, "space": {"learning_rate": None}}
    choose = {**SWEEP["choose"], "space": {"learning_rate": [0.01]}}
    status, printed, _ = sweep("--workers", "2", configurations=[fixed, LORA], seeds=[1], choose=choose)
    assert status == 0
    assert "3 of 3 cells are finished" in printed[-1]
    _, records = read_records(tmp_path / "out" / "cells.jsonl")
    reported = [record for record in records if record["stage"] == "report"]
    assert [record["row"] for record in reported] == ["fixed", "LoRA"]
    assert reported[0]["cell"] == reported[1]["cell"]
    assert reported[0]["scores"] == reported[1]["scores"]
    assert [record["chosen"] for record in reported] == [{}, {"learning_rate": 0.01}]
    assert "0 of them" in sweep("--workers", "2", configurations=[fixed, LORA], seeds=[1], choose=choose)[1][-1]


def test_a_changed_row_makes_its_old_cells_obsolete(sweep, tmp_path):
    for rank in (1, 2, 1):
        status, printed, _ = sweep(configurations=[{**LORA, "keys": {"lora_rank": rank}}], seeds=[1], choose=None)
        assert status == 0
        _, records = read_records(tmp_path / "out" / "cells.jsonl")
        (current,) = [record for record in records if not record.get("obsolete")]
        assert current["trainable"] == min(record["trainable"] for record in records) * rank or rank == 2
    assert len(records) == 2
    assert "0 of them" in printed[-1]  # the first came back


def test_odd_line_breaks_in_names(sweep, tmp_path):
    for _ in range(2):
        status, printed, _ = sweep(configurations=[{**LORA, "name": "a\u2028b\x85c [red]"}], seeds=[1], choose=None)
        assert status == 0
    assert "0 of them" in printed[-1]


def test_a_torn_line_is_cut_before_more_is_added(tmp_path):
    path = tmp_path / "cells.jsonl"
    record = {"cell": "a", "stage": "report", "row": "r", "task": "t", "seed": 1, "chosen": {}, "failed": "diverged"}
    path.write_text(json.dumps(record) + "\n" + '{"cell":"b","sc')
    Records(path).add({**record, "cell": "c"})
    assert Records(path).by_key.keys() == {"a", "c"}
    path.write_text(json.dumps(record))  # whole, but without its line break
    Records(path).add({**record, "cell": "c"})
    assert Records(path).by_key.keys() == {"a", "c"}
